"""The ranking loss: who may be a negative, who is drawn, and the value against a loop over its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import SemiHardRankingLoss

torch.set_num_threads(1)


def features(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, texts = torch.randn(2, count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return images, images + 0.7 * texts  # pairs that resemble each other, so that some negatives are semi-hard


def candidates(cosines: torch.Tensor, labels: list[int], margin: float) -> dict[int, list[int]]:
    """Semi-hard negatives of every anchor that has any: inside the margin, but not closer than the positive."""
    found = {
        i: [
            j
            for j in range(len(labels))
            if labels[j] != labels[i] and 0 < (cosines[i, j] - cosines[i, i] + margin).item() < margin
        ]
        for i in range(len(labels))
    }
    return {anchor: negatives for anchor, negatives in found.items() if negatives}


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=7),
    seed=st.integers(0, 1000),
    margin=st.sampled_from([0.05, 0.2, 0.6]),
)
def test_only_semi_hard_negatives_are_drawn_one_for_every_anchor(labels, seed, margin):
    images, texts = features(len(labels), seed)
    cosines = torch.cosine_similarity(images[:, None], texts[None], dim=2)
    expected = candidates(cosines, labels, margin)
    triplets = SemiHardRankingLoss(margin).mine(cosines, torch.tensor(labels)).tolist()
    if expected:
        assert [anchor for anchor, _, _ in triplets] == list(expected)
        for anchor, positive, negative in triplets:
            assert positive == anchor
            assert negative in expected[anchor]
    else:  # the last anchor with its first negative, if there is any
        negatives = [j for j, label in enumerate(labels) if label != labels[-1]]
        last = len(labels) - 1
        assert triplets == [[last, last, j] for j in negatives[:1]]


def test_every_candidate_is_drawn_equally_often():
    cosines = torch.tensor([[0.50, 0.45, 0.40, 0.49, 0.20], *[[0.0] * 5] * 4])
    labels = torch.tensor([0, 1, 2, 0, 3])  # column 3 is the anchor's own person, column 4 outside of the margin
    torch.manual_seed(0)
    loss, drawn = SemiHardRankingLoss(0.2), []
    for _ in range(400):
        first = loss.mine(cosines, labels)[0].tolist()
        assert first[:2] == [0, 0]
        drawn.append(first[2])
    assert set(drawn) == {1, 2}
    assert 150 < drawn.count(1) < 250  # five standard deviations around 200


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(2, 6), margin=st.sampled_from([0.1, 0.5]))
def test_equals_a_loop_over_given_triplets(seed, count, margin):
    images, texts = features(count, seed)
    generator = torch.Generator().manual_seed(seed)
    given_triplets = [torch.randint(count, (3, 3), generator=generator) for _ in range(2)]
    expected = 0.0
    for (anchors, others), triplets in zip(((images, texts), (texts, images)), given_triplets, strict=True):
        for anchor, positive, negative in triplets.tolist():
            near = torch.cosine_similarity(anchors[anchor], others[positive], dim=0).item()
            far = torch.cosine_similarity(anchors[anchor], others[negative], dim=0).item()
            expected += max(margin - near + far, 0.0)  # summed, not averaged
    found = SemiHardRankingLoss(margin)(images, texts, torch.arange(count), *given_triplets)
    assert found.item() == pytest.approx(expected, rel=1e-6)  # norms get 1e-8


def test_mined_triplets_give_the_same_loss_as_given_ones():
    images, texts = features(6, 0)
    labels, loss = torch.tensor([0, 1, 2, 0, 3, 1]), SemiHardRankingLoss(0.5)
    cosines = torch.cosine_similarity(images[:, None], texts[None], dim=2)
    torch.manual_seed(1)
    mined = loss(images, texts, labels)
    torch.manual_seed(1)
    triplets = loss.mine(cosines, labels), loss.mine(cosines.T, labels)
    assert mined.item() == pytest.approx(loss(images, texts, labels, *triplets).item(), rel=1e-6)


def test_a_batch_of_one_person_has_nothing_to_rank():
    images, texts = (side.requires_grad_() for side in features(3, 0))
    loss = SemiHardRankingLoss()(images, texts, torch.zeros(3))
    assert loss.item() == 0
    loss.backward()
    assert (images.grad == 0).all()


def test_length_does_not_matter_and_zero_vectors_are_finite():
    images, texts = features(4, 2)
    labels = torch.arange(4)
    triplets = torch.tensor([[0, 0, 1], [2, 2, 3]])
    loss = SemiHardRankingLoss()
    expected = loss(images, texts, labels, triplets, triplets)
    torch.testing.assert_close(loss(7 * images, 0.1 * texts, labels, triplets, triplets), expected, rtol=1e-6, atol=0)
    assert loss(0 * images, texts, labels, triplets, triplets).isfinite()


@pytest.mark.parametrize("margin", [0, -0.1])
def test_a_margin_must_be_positive(margin):
    with pytest.raises(ConfigurationError, match="margin"):
        SemiHardRankingLoss(margin)
