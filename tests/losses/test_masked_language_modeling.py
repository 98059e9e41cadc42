"""Prediction of masked words."""

from __future__ import annotations

import torch

from reid_zoo.losses import MaskedLanguageModelingLoss

torch.set_num_threads(1)


def test_only_labelled_positions_count_and_all_of_them_alike():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 4, 0], [2, 0, 1]])
    log_p = logits.log_softmax(dim=2)
    expected = -(log_p[0, 1, 4] + log_p[1, 0, 2] + log_p[1, 2, 1]) / 3
    torch.testing.assert_close(MaskedLanguageModelingLoss()(logits, labels), expected)
    changed = logits.clone()
    changed[0, 0], changed[1, 1] = 50.0, -3.0
    torch.testing.assert_close(MaskedLanguageModelingLoss()(changed, labels), expected)


def test_nothing_to_predict_costs_nothing():
    logits = torch.randn(1, 3, 5, requires_grad=True)
    loss = MaskedLanguageModelingLoss()(logits, torch.zeros(1, 3, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()
    assert MaskedLanguageModelingLoss().accuracy(logits, torch.zeros(1, 3, dtype=torch.long)).item() == 0


def test_accuracy_is_the_share_of_masked_words_found():
    logits = torch.eye(5)[torch.tensor([[1, 2, 3], [4, 0, 1]])]
    labels = torch.tensor([[1, 0, 2], [4, 0, 0]])
    torch.testing.assert_close(MaskedLanguageModelingLoss().accuracy(logits, labels), torch.tensor(2 / 3))


def test_parts_of_a_batch_add_up():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels, loss = torch.tensor([[0, 4, 0], [2, 0, 1]]), MaskedLanguageModelingLoss()
    for function, whole in ((loss.totals, loss), (loss.correct, loss.accuracy)):
        parts = [function(logits[row : row + 1], labels[row : row + 1]) for row in range(2)]
        joint = loss.reduce(parts[0][0] + parts[1][0], parts[0][1] + parts[1][1])
        torch.testing.assert_close(joint, whole(logits, labels))
