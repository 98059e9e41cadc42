"""Augmentation of images and captions: what each option does, that none is silently ignored, and wrong values."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reid_zoo.data.transforms import (
    CaptionAugmentation,
    ImageAugmentation,
    augment_caption,
    build_image_augmentation,
)
from reid_zoo.errors import ConfigurationError

CAPTION = "A man walks. He wears a red coat; his shoes are black. Is that a bag?"
SENTENCES = ["A man walks.", "He wears a red coat;", "his shoes are black.", "Is that a bag?"]
SIZE = (48, 16)
MEAN, STD = (0.48, 0.45, 0.4), (0.27, 0.26, 0.28)
STILL = ImageAugmentation(horizontal_flip=0.0)

words = st.lists(st.text(st.characters(categories=["L", "P"]), min_size=1, max_size=8), min_size=1, max_size=20)


@given(words, st.integers(0, 100))
def test_without_options_a_caption_stays_as_it_is(caption, seed):
    torch.manual_seed(seed)
    assert augment_caption("  ".join(caption), CaptionAugmentation()) == "  ".join(caption)


@given(words, st.floats(0.01, 0.99), st.integers(0, 100))
def test_dropping_words_keeps_their_order_and_at_least_one(caption, probability, seed):
    torch.manual_seed(seed)
    kept = augment_caption(" ".join(caption), CaptionAugmentation(word_dropout=probability)).split()
    remaining = iter(caption)
    assert kept
    assert all(word in remaining for word in kept)  # a subsequence


def test_words_are_dropped_at_the_given_rate():
    torch.manual_seed(0)
    caption = " ".join(["word"] * 20_000)
    kept = len(augment_caption(caption, CaptionAugmentation(word_dropout=0.3)).split())
    assert kept / 20_000 == pytest.approx(0.7, abs=0.015)  # more than four standard deviations


def test_shuffled_sentences_stay_whole():
    torch.manual_seed(0)
    settings = CaptionAugmentation(sentence_shuffle=1.0)
    seen = Counter(augment_caption(CAPTION, settings) for _ in range(500))
    assert len(seen) == 24, "every order of four sentences comes up"
    for text in seen:
        assert sorted(text.split()) == sorted(CAPTION.split())
        assert all(sentence in text for sentence in SENTENCES)
    half = [augment_caption(CAPTION, CaptionAugmentation(sentence_shuffle=0.5)) for _ in range(500)]
    assert sum(text == CAPTION for text in half) / 500 == pytest.approx(0.5 + 0.5 / 24, abs=0.09)


def test_dropped_sentences_are_whole_and_one_stays():
    torch.manual_seed(0)
    texts = [augment_caption(CAPTION, CaptionAugmentation(sentence_dropout=0.9)) for _ in range(300)]
    for text in texts:
        kept = [sentence for sentence in SENTENCES if sentence in text]
        assert text == " ".join(kept)
        assert kept
    assert {text for text in texts if text in SENTENCES} == set(SENTENCES)


@pytest.mark.parametrize(
    ("name", "value"),
    [("same_person_swap", 1.1), ("sentence_shuffle", -0.1), ("sentence_dropout", 1.0), ("word_dropout", 1.0)],
)
def test_a_wrong_probability_of_captions_is_named(name, value):
    with pytest.raises(ConfigurationError, match=rf"caption_augmentation\.{name} is {value}"):
        CaptionAugmentation(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("horizontal_flip", 2),
        ("erase_probability", -1),
        ("color_jitter", 1.5),
        ("scale_jitter", 3),
        ("scale_jitter", 1),
        ("crop_padding", -1),
    ],
)
def test_a_wrong_value_of_images_is_named(name, value):
    with pytest.raises(ConfigurationError, match=rf"augmentation\.{name} is {value}"):
        ImageAugmentation(**{name: value})


@pytest.fixture
def person() -> Image.Image:
    """Left half dark red, right half bright green: flips, colours and erasing can be seen."""
    image = Image.new("RGB", (32, 96), (90, 0, 0))
    image.paste((0, 220, 0), (16, 0, 32, 96))
    return image


def augmented(person: Image.Image, count: int = 200, **options) -> torch.Tensor:
    torch.manual_seed(0)
    settings = ImageAugmentation(**{"horizontal_flip": 0.0, **options})
    transform = build_image_augmentation(settings, SIZE, Image.Resampling.BICUBIC)
    pixels = transform.resize(person)
    assert pixels.shape == (3, *SIZE)
    assert pixels.dtype == torch.uint8
    before = pixels.clone()
    result = torch.stack([transform(pixels) for _ in range(count)])
    assert torch.equal(pixels, before), "the cached pixels are not changed"
    assert result.shape == (count, 3, *SIZE)
    return result


def test_no_augmentation_changes_nothing(person):
    result = augmented(person, 3)
    assert torch.equal(result[0], result[2])
    assert result[0, 1, 10, 14] > 200
    assert result[0, 1, 10, 1] < 20


def test_flips_come_at_their_probability(person):
    result = augmented(person, horizontal_flip=0.5)
    flipped = result[:, 1, 10, 1] > 200
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.15)
    assert torch.equal(result[flipped][0], augmented(person, 1)[0].flip(-1))


def test_erasing_fills_one_grey_rectangle(person):
    result = augmented(person, erase_probability=0.5)
    grey = (result == 127).all(dim=1).flatten(1).float().mean(dim=1)
    erased = grey > 0
    assert erased.float().mean().item() == pytest.approx(0.5, abs=0.15)
    assert grey[erased].min() > 0.01
    assert grey.max() < 0.3


@pytest.mark.parametrize("options", [{"color_jitter": 0.3}, {"scale_jitter": 0.2}, {"crop_padding": 4}])
def test_jitter_varies_from_image_to_image(person, options):
    result = augmented(person, 20, **options)
    assert len({tuple(image.flatten().tolist()) for image in result}) > 2


def normalized(person: Image.Image, count: int = 200, **options) -> torch.Tensor:
    torch.manual_seed(0)
    settings = ImageAugmentation(**{"horizontal_flip": 0.0, "erase_probability": 1.0, **options})
    transform = build_image_augmentation(settings, SIZE, Image.Resampling.BILINEAR, MEAN, STD)
    pixels = transform.resize(person)
    clean = (pixels / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(build_image_augmentation(STILL, SIZE, 2, MEAN, STD).normalize(pixels), clean)
    return torch.stack([transform.normalize(transform(pixels)) for _ in range(count)]) - clean


def test_noise_is_drawn_for_every_pixel_and_channel_behind_the_normalisation(person):
    """CLIP-ReID spec, section 9: one rectangle of 2 % to a third of the area, standard normal noise."""
    torch.manual_seed(0)
    options = {"erase_fill": "noise", "erase_scale": (0.02, 1 / 3), "erase_ratio": (0.3, 1 / 0.3)}
    settings = ImageAugmentation(horizontal_flip=0.0, erase_probability=1.0, **options)
    transform = build_image_augmentation(settings, SIZE, Image.Resampling.BILINEAR, MEAN, STD)
    pixels = transform.resize(person)
    clean = build_image_augmentation(STILL, SIZE, 2, MEAN, STD).normalize(pixels)
    values = torch.stack([transform.normalize(transform(pixels)) for _ in range(300)])
    erased = values != clean
    assert torch.equal(erased[:, 0], erased[:, 1])
    noise = values[erased]
    # 300 rectangles of some hundred numbers: far within 5 standard errors
    assert noise.mean().item() == pytest.approx(0.0, abs=0.02)
    assert noise.std().item() == pytest.approx(1.0, abs=0.02)
    shares = erased[:, 0].flatten(1).float().mean(dim=1)
    # Height and width are rounded to whole pixels.
    assert shares[shares > 0].min() > 0.01
    assert shares.max() < 0.37
    for mask in erased[:20, 0]:
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert int(mask.sum()) == int(rows.sum()) * int(columns.sum()), "one rectangle"


def test_the_released_fill_of_irra_is_the_mean_in_normalised_units(person):
    change = normalized(person, 1, erase_fill="normalized_mean", erase_scale=(0.3, 0.3), erase_ratio=(1.0, 1.0))[0]
    assert (change != 0).any()
    torch.manual_seed(0)
    settings = ImageAugmentation(
        horizontal_flip=0.0,
        erase_probability=1.0,
        erase_fill="normalized_mean",
        erase_scale=(0.3, 0.3),
        erase_ratio=(1.0, 1.0),
    )
    transform = build_image_augmentation(settings, SIZE, Image.Resampling.BILINEAR, MEAN, STD)
    values = transform.normalize(transform(transform.resize(person)))
    erased = (change != 0).all(dim=0)
    for channel, mean in enumerate(MEAN):
        assert torch.equal(values[channel][erased], torch.full((int(erased.sum()),), mean))


def test_training_may_resize_otherwise_than_evaluation(person):
    noisy = Image.effect_noise((32, 96), 80).convert("RGB")
    bilinear, bicubic = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    own = build_image_augmentation(ImageAugmentation(resize_interpolation="bicubic"), SIZE, bilinear).resize(noisy)
    default = build_image_augmentation(ImageAugmentation(), SIZE, bilinear).resize(noisy)
    assert torch.equal(own, build_image_augmentation(ImageAugmentation(), SIZE, bicubic).resize(noisy))
    assert not torch.equal(own, default)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"erase_fill": "grey"}, "erase_fill is 'grey', but must be one of 'color', 'noise', 'normalized_mean'"),
        ({"erase_ratio": (2.0, 1.0)}, r"erase_ratio is \[2.0, 1.0\], but must be \[smallest, largest\]"),
        ({"erase_ratio": (0.3, float("inf"))}, r"erase_ratio\[1\] is inf, but must be above 0 and finite"),
        ({"erase_scale": (0.0, 0.5)}, r"erase_scale\[0\] is 0.0, but must be above 0 and below 1"),
        ({"erase_value": (1, 2)}, r"erase_value is \[1, 2\], but must be three numbers"),
        ({"resize_interpolation": "nearest"}, "resize_interpolation is 'nearest', but must be one of"),
    ],
)
def test_wrong_settings_of_erasing_and_resizing_are_named(options, message):
    with pytest.raises(ConfigurationError, match=message):
        ImageAugmentation(**options)


def test_black_borders_of_the_crop(person):
    result = augmented(Image.new("RGB", (32, 96), (200, 200, 200)), crop_padding=4, crop_fill="black")
    black = (result == 0).all(dim=1)
    assert black.any()
    offsets = black[:, :, 8].sum(dim=1)  # rows of border in the middle column
    assert set(offsets.tolist()) == set(range(5)), "the crop moves by up to the padding"


def test_colour_jitter_keeps_the_hue(person):
    result = augmented(person, 50, color_jitter=0.4).float()
    dark, bright = result[:, :, 10, 2], result[:, :, 10, 13]
    assert (dark.argmax(dim=1) == 0).all(), "red stays red"
    assert (bright.argmax(dim=1) == 1).all(), "green stays green"
