"""Random masks of patches and words."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.data.masking import mask_words, num_masked_units, random_image_mask
from reid_zoo.errors import ConfigurationError

torch.set_num_threads(1)
MASK, START, END = 47, 48, 49


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    scale=st.integers(1, 3),
    patch=st.sampled_from([2, 4]),
    ratio=st.integers(0, 20).map(lambda twentieths: twentieths / 20),
)
def test_an_image_mask_covers_whole_units_and_the_given_share(rows, columns, scale, patch, ratio):
    unit = patch * scale
    size = (rows * unit, columns * unit)
    masks = random_image_mask(3, size, patch, unit, ratio)
    assert masks.shape == (3, rows * scale, columns * scale)
    units = masks.unfold(1, scale, scale).unfold(2, scale, scale).flatten(3)
    assert (units.amin(dim=3) == units.amax(dim=3)).all()
    count = num_masked_units(size, unit, ratio)
    assert rows * columns * ratio <= count < rows * columns * ratio + 1
    assert (units.amax(dim=3).flatten(1).sum(dim=1) == count).all()


def test_samples_and_calls_are_independent():
    torch.manual_seed(0)
    masks = random_image_mask(64, (96, 32), 8, 16, 0.5)
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 55
    share = masks.float().mean(dim=0)
    assert (share - 0.5).abs().max() < 0.3  # every patch about as often as any other
    torch.manual_seed(0)
    assert torch.equal(masks, random_image_mask(64, (96, 32), 8, 16, 0.5))


@pytest.mark.parametrize(
    ("size", "unit", "named"),
    [((32, 32), 12, "multiple of the patch size 8"), ((40, 32), 16, "whole mask units of 16")],
)
def test_units_that_do_not_fit_are_refused(size, unit, named):
    with pytest.raises(ConfigurationError, match=named):
        random_image_mask(1, size, 8, unit, 0.5)


def sentences(count: int, length: int = 20) -> torch.Tensor:
    ids = torch.randint(1, MASK, (count, length))
    ids[:, 0], ids[:, -4], ids[:, -3:] = START, END, 0
    return ids


def test_words_are_chosen_and_disturbed_in_the_given_shares():
    torch.manual_seed(0)
    ids = sentences(4000)
    result = mask_words(ids, MASK)
    chosen = result.labels > 0
    words = (ids > 0) & (ids < MASK)
    assert torch.equal(result.input_ids[~chosen], ids[~chosen])
    assert torch.equal(result.labels[chosen], ids[chosen])
    assert not (chosen & ~words).any(), "never the start, the end or padding"
    assert chosen.any(dim=1).all(), "at least one word of every sentence"
    # 60,000 words; a sentence without any chosen word gets one: 0.85^15 / 15 of all words. Six standard deviations.
    assert chosen.sum().item() / words.sum().item() == pytest.approx(0.15 + 0.85**15 / 15, abs=0.009)
    by_draw = chosen.clone()
    by_draw[:, 1] = False  # the fallback always becomes the mask
    masked = (result.input_ids == MASK)[by_draw].float().mean().item()
    kept = (result.input_ids == ids)[by_draw].float().mean().item()
    assert masked == pytest.approx(0.8, abs=0.03)
    assert kept == pytest.approx(0.1 + 0.1 / (MASK - 1), abs=0.025)
    assert result.input_ids.max() == END
    assert (result.input_ids == 0).sum() == (ids == 0).sum()


def test_without_any_chosen_word_the_first_one_is_masked():
    ids = torch.tensor([[START, 5, 6, END, 0], [START, END, 0, 0, 0]])
    result = mask_words(ids, MASK, probability=0.0)
    assert result.input_ids.tolist() == [[START, MASK, 6, END, 0], [START, MASK, 0, 0, 0]]
    assert result.labels.tolist() == [[0, 5, 0, 0, 0], [0, END, 0, 0, 0]]
    assert ids[0].tolist() == [START, 5, 6, END, 0]


def test_shares_can_be_changed():
    ids = sentences(50)
    everything = mask_words(ids, MASK, probability=1.0, mask_share=1.0, random_share=0.0)
    words = (ids > 0) & (ids < MASK)
    assert (everything.input_ids[words] == MASK).all()
    nothing = mask_words(ids, MASK, probability=1.0, mask_share=0.0, random_share=0.0)
    assert torch.equal(nothing.input_ids, ids)
    assert torch.equal(nothing.labels > 0, words)
