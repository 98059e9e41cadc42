"""MGCC's score of pairs: the formulas, masks, and streaming in blocks of any size."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reid_zoo.errors import ConfigurationError
from reid_zoo.models.mgcc.configuration_mgcc import AGGREGATIONS, SIMILARITIES
from reid_zoo.models.mgcc.late_interaction_mgcc import (
    InteractionFeatures,
    MultiGranularityFusion,
    dot_products,
    fuse_by_attention,
)
from tiny_mgcc import mgcc_config, random_side, scores_pair_by_pair

torch.set_num_threads(1)
# Of the largest score, float32 against float64: with τ = 0.1 a softmax multiplies rounding errors by up to 10.
ROUNDING = 5e-6


def build_fusion(**fields) -> MultiGranularityFusion:
    """The fusion alone, with matrices far from identities: transposed or swapped ones would show."""
    fusion = MultiGranularityFusion(mgcc_config(**{"softmax_temperature": 0.1, **fields}))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in fusion.parameters():
            if parameter.ndim:
                size = len(parameter)
                parameter.copy_(torch.eye(size) + torch.randn(size, size, generator=generator) / size**0.5)
            else:
                parameter.fill_(1.5)
    return fusion


def some_masked(side: InteractionFeatures, seed: int) -> InteractionFeatures:
    """Random tokens left out, zero as padding is; the first item keeps none, the second all."""
    mask = torch.rand(side.tokens.shape[:2], generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[0] = False
    mask[1:2] = True
    return InteractionFeatures(side.coarse, side.tokens * mask[..., None], mask)


def assert_same(found: Tensor, expected: Tensor, tolerance: float = ROUNDING) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance * float(expected.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("learnable", [True, False])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_equals_the_formulas_pair_by_pair(aggregation, learnable, masked):
    fusion = build_fusion(aggregation=aggregation, learnable_fusion=learnable)
    images, texts = random_side(5, 4, seed=0), random_side(6, 3, seed=1)
    if masked:
        images, texts = some_masked(images, 2), some_masked(texts, 3)
    expected = scores_pair_by_pair(fusion, images, texts)
    found = fusion(images.float(), texts.float())
    assert list(found) == [*SIMILARITIES, "fused"]
    for name in found:
        assert_same(found[name], expected[name])
    assert_same(fusion.score(texts, images), expected["fused"].T)


@torch.no_grad()
@pytest.mark.parametrize("enabled", [c for n in range(1, 5) for c in itertools.combinations(SIMILARITIES, n)])
def test_every_combination_of_similarities_is_their_mean(enabled):
    fusion = build_fusion(**{f"use_{name}": name in enabled for name in SIMILARITIES})
    images, texts = random_side(3, 4, seed=0), random_side(4, 3, seed=1)
    found = fusion(images.float(), texts.float())
    assert list(found) == [*enabled, "fused"]
    assert_same(found["fused"], sum(found[name] for name in enabled) / len(enabled), 1e-6)
    assert_same(fusion.score(texts, images), scores_pair_by_pair(fusion, images, texts)["fused"].T)
    wanted = {"it": {"global_matrix"}, "iw": {"image_word_matrix"}, "pt": {"patch_text_matrix"}}
    wanted["pw"] = {"local_matrix", "patch_matrix", "word_matrix", "second_word_matrix", "second_patch_matrix"}
    assert {name for name, _ in fusion.named_parameters()} == set().union(
        {"logit_scale"}, *(wanted[name] for name in enabled)
    )


@settings(max_examples=40, deadline=None)
@given(
    num_texts=st.integers(1, 7),
    num_images=st.integers(1, 7),
    num_words=st.integers(1, 3),
    num_patches=st.integers(1, 4),
    masks=st.booleans(),
    block_elements=st.sampled_from([None, 1, 2, 13, 100, 500, 10**6]),
    learnable=st.booleans(),
    aggregation=st.sampled_from(AGGREGATIONS),
)
@torch.no_grad()
def test_streaming_ragged_tokens_equals_all_at_once(
    num_texts, num_images, num_words, num_patches, masks, block_elements, learnable, aggregation
):
    fusion = build_fusion(learnable_fusion=learnable, aggregation=aggregation)
    images, texts = random_side(num_images, num_patches, seed=2).float(), random_side(num_texts, num_words, 3).float()
    if masks:
        images, texts = some_masked(images, 4), some_masked(texts, 5)
    streamed = fusion.score(texts, images, block_elements=block_elements)
    assert streamed.shape == (num_texts, num_images)
    if learnable:  # what is missing is filled up with masked tokens

        def filled(side: InteractionFeatures, count: int) -> InteractionFeatures:
            shape = (len(side.tokens), count)
            mask, tokens = torch.zeros(shape, dtype=torch.bool), torch.zeros(*shape, side.tokens.shape[2])
            mask[:, : side.tokens.shape[1]] = True if side.mask is None else side.mask
            tokens[:, : side.tokens.shape[1]] = side.tokens
            return InteractionFeatures(side.coarse, tokens, mask)

        images, texts = filled(images, 4), filled(texts, 3)
    assert_same(streamed, fusion(images, texts)["fused"].T)


@torch.no_grad()
def test_what_stands_in_a_masked_slot_does_not_matter():
    fusion = build_fusion()
    images, texts = random_side(4, 4, seed=0).float(), some_masked(random_side(5, 3, seed=1).float(), 6)
    noise = torch.randn(texts.tokens.shape) * ~texts.mask[..., None]
    other = InteractionFeatures(texts.coarse, texts.tokens + noise, texts.mask)
    assert torch.equal(fusion.score(other, images), fusion.score(texts, images))


@torch.no_grad()
def test_masked_words_count_for_nothing_and_zero_words_do_not():
    """A zero word competes in the softmax with similarity 0; a masked one does not."""
    fusion = build_fusion(learnable_fusion=False)
    images, texts = random_side(4, 4, seed=0).float(), random_side(5, 3, seed=1).float()
    mask = torch.tensor([True, True, False]).expand(5, 3)
    zeroed = InteractionFeatures(texts.coarse, texts.tokens * mask[..., None])
    masked = InteractionFeatures(texts.coarse, texts.tokens, mask)
    short = InteractionFeatures(texts.coarse, texts.tokens[:, :2])
    assert_same(fusion.score(masked, images), fusion.score(short, images), 1e-6)
    assert (fusion.score(masked, images) - fusion.score(zeroed, images)).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("empty", ["texts", "images"])
def test_no_sentences_or_no_images(empty):
    fusion = build_fusion()
    sides = {"texts": random_side(3, 3, seed=0).float(), "images": random_side(2, 4, seed=1).float()}
    sides[empty] = InteractionFeatures(sides[empty].coarse[:0], sides[empty].tokens[:0])
    assert fusion.score(**sides).numel() == 0


@pytest.mark.parametrize("block_elements", [0, -3])
def test_a_block_must_hold_something(block_elements):
    with pytest.raises(ConfigurationError, match=f"block_elements is {block_elements}"):
        build_fusion().score(random_side(1, 3, 0), random_side(1, 4, 1), block_elements=block_elements)


@torch.no_grad()
def test_blocks_bound_what_is_held(monkeypatch):
    """However many pairs there are, no tensor of a block is larger than `block_elements` says."""
    largest, original = 0, MultiGranularityFusion._patch_word

    def watched(self, values, *masks):
        nonlocal largest
        largest = max(largest, values.numel())
        return original(self, values, *masks)

    monkeypatch.setattr(MultiGranularityFusion, "_patch_word", watched)
    images, texts = random_side(40, 4, seed=0), random_side(50, 3, seed=1)
    build_fusion().score(texts, images, block_elements=1000)
    assert 500 <= largest <= 1000


@torch.no_grad()
def test_half_precision_features_are_scored_in_float32():
    fusion = build_fusion()
    images, texts = random_side(5, 4, seed=0), random_side(6, 3, seed=1)
    for dtype, tolerance in ((torch.float16, 2e-3), (torch.bfloat16, 2e-2)):  # rounding of the features, times 1/τ
        rounded = [InteractionFeatures(side.coarse.to(dtype), side.tokens.to(dtype)) for side in (texts, images)]
        scores = fusion.score(*rounded)
        assert scores.dtype == torch.float32
        assert_same(scores, fusion(images.float(), texts.float())["fused"].T, tolerance)
        # nothing but the features is rounded
        assert_same(scores, fusion(rounded[1].float(), rounded[0].float())["fused"].T)


@pytest.mark.parametrize("onednn", [True, False])
@torch.no_grad()
def test_dot_products_by_either_library(onednn):
    rows, columns = random_side(7, 1, 0).coarse.float(), random_side(5, 1, 1).coarse.float()
    if onednn and not torch.backends.mkldnn.is_available():
        onednn = False  # the same promise without the library
    found = dot_products(rows, columns.to_mkldnn() if onednn else columns)
    assert found.layout == torch.strided
    torch.testing.assert_close(found, torch.einsum("md,nd->mn", rows, columns), rtol=0, atol=1e-6)


@torch.no_grad()
def test_scores_do_not_depend_on_the_library(monkeypatch):
    fusion = build_fusion()
    texts, images = random_side(6, 3, seed=1), random_side(5, 4, seed=0)
    expected = fusion.score(texts, images)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert_same(fusion.score(texts, images), expected, 2e-6)


def test_attention_fusion_by_hand():
    """Weights go through U from the right, are not normalised again, and see v/τ."""
    values = torch.tensor([0.2, -0.1, 0.4], dtype=torch.float64)
    matrix = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 0.5], [3.0, 0.0, 1.0]])
    softmax = torch.exp(values / 0.1) / torch.exp(values / 0.1).sum()
    expected = sum(softmax[i] * matrix[i, j] * values[j] for i in range(3) for j in range(3))
    found = fuse_by_attention(values[None, :, None], matrix.double(), 0.1, 1)
    torch.testing.assert_close(found.squeeze().double(), expected, rtol=0, atol=1e-6)
    nothing = fuse_by_attention(values[None, :, None] * 0, None, 0.1, 1, torch.zeros(1, 3, 1, dtype=torch.bool))
    assert nothing.item() == 0


def test_gradients_flow_through_masks_and_are_finite():
    fusion = build_fusion()
    images, texts = random_side(3, 4, seed=0).float(), some_masked(random_side(3, 3, seed=1).float(), 2)
    images.tokens.requires_grad_()
    texts.tokens.requires_grad_()
    fusion(images, texts)["fused"].sum().backward()
    for tensor in (images.tokens, texts.tokens, *fusion.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().sum() > 0


def test_printing_says_what_is_compared():
    assert "aggregation=mean_max" in repr(build_fusion(aggregation="mean_max"))
