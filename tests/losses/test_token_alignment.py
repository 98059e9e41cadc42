"""Matching of words with their best patches."""

from __future__ import annotations

import pytest
import torch

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import TokenAlignmentLoss
from reid_zoo.losses.distribution_matching import matching_distribution, row_divergence

torch.set_num_threads(1)


def test_equals_the_definition():
    generator = torch.Generator().manual_seed(0)
    patches, words = torch.randn(3, 4, 5, generator=generator), torch.randn(3, 6, 5, generator=generator)
    ids = torch.tensor([[8, 1, 2, 9, 0, 0], [8, 3, 9, 0, 0, 0], [8, 1, 2, 3, 4, 9]])
    labels = torch.tensor([0, 1, 0])
    spans = ((1, 3), (1, 2), (1, 5))  # words between start and end
    logits = torch.zeros(3, 3)
    for i, (start, end) in enumerate(spans):
        for j in range(3):
            best = [
                max(torch.cosine_similarity(word, patch, dim=0).item() for patch in patches[j]) / 0.02
                for word in words[i, start:end]
            ]
            logits[i, j] = sum(best) / len(best)
    expected = row_divergence(logits, matching_distribution(labels, labels))
    torch.testing.assert_close(TokenAlignmentLoss()(patches, words, ids, labels), expected, rtol=1e-4, atol=1e-5)


def test_an_empty_sentence_is_not_a_division_by_zero():
    patches, words = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    loss = TokenAlignmentLoss()(patches, words, torch.tensor([[8, 9, 0], [8, 1, 9]]), torch.tensor([0, 1]))
    assert loss.isfinite()


def test_a_bad_constant_is_named():
    with pytest.raises(ConfigurationError, match=r"TokenAlignmentLoss\.epsilon is 0"):
        TokenAlignmentLoss(epsilon=0)


def test_sentences_can_be_compared_with_all_images_one_after_the_other():
    generator = torch.Generator().manual_seed(0)
    patches, words = torch.randn(3, 4, 5, generator=generator), torch.randn(3, 6, 5, generator=generator)
    ids = torch.tensor([[8, 1, 2, 9, 0, 0], [8, 3, 9, 0, 0, 0], [8, 1, 2, 3, 4, 9]])
    labels, loss = torch.tensor([0, 1, 0]), TokenAlignmentLoss()
    rows = [loss.logits(patches, words[row : row + 1], ids[row : row + 1]) for row in range(3)]
    torch.testing.assert_close(loss.divergence(torch.cat(rows), labels), loss(patches, words, ids, labels))
