"""The processor: clear answers to odd inputs. That pixels and ids are the authors' is in `tests/golden`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, BertTokenizer

from reid_zoo import CFineConfig, ReIDProcessor
from reid_zoo.errors import CheckpointError, ConfigurationError, QueryError
from reid_zoo.processing import TruncationWarning

torch.set_num_threads(1)
FOLDER = Path(__file__).parent / "golden" / "cases" / "cfine" / "unit"
UNIT = load_file(FOLDER / "tensors.safetensors")
CASES = json.loads((FOLDER / "cases.json").read_text())
TOKENIZER = CASES["tokenizer"]


def tokenizer() -> BertTokenizer:
    vocabulary = {word: index for index, word in enumerate(TOKENIZER["vocab"])}
    return BertTokenizer(vocab=vocabulary, do_lower_case=TOKENIZER["do_lower_case"])


def processor(**options) -> ReIDProcessor:
    return ReIDProcessor.build(tokenizer(), **{"image_size": CASES["pixels"]["size"], **options})


def photo() -> Image.Image:
    return Image.fromarray(UNIT["pixels.uint8_hwc"].numpy())


def test_sentences_of_different_length_are_padded_to_the_same_fixed_length():
    encoded = processor(max_text_length=12)(text=["a man", "the man wearing a red shirt"])
    assert encoded["input_ids"].shape == encoded["attention_mask"].shape == (2, 12)
    assert encoded["input_ids"].dtype == torch.int64
    assert encoded["attention_mask"].sum(dim=1).tolist() == [4, 9]


def test_truncation_says_so_and_the_separator_is_a_choice():
    sentence = " ".join(["red"] * 10_000)
    for keeps, last in ((False, "red"), (True, "[SEP]")):
        made = processor(max_text_length=16, truncation_keeps_sep=keeps)
        with pytest.warns(TruncationWarning, match=r"10000 words.*16 tokens"):
            ids = made(text=sentence)["input_ids"][0]
        assert ids.shape == (16,)
        assert ids[-1].item() == TOKENIZER["vocab"].index(last)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        processor(max_text_length=16)(text="red " * 14)  # exactly full


def test_another_script_becomes_unknown_words_not_an_error():
    ids = processor()(text=["男人穿着红色外套", "Мужчина в красном"])["input_ids"]
    assert TOKENIZER["vocab"].index("[UNK]") in ids[0].tolist()
    assert ids.shape == (2, 100)
    assert not processor().knows_a_word_of("Мужчина ?")
    assert not processor().knows_a_word_of("...")
    assert processor().knows_a_word_of("Мужчина in red")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "images, text or both"),
        ({"text": []}, "list of sentences is empty"),
        ({"images": []}, "list of images is empty"),
        ({"text": ["a man", 3]}, "not int"),
        ({"text": ["a man", None]}, "not NoneType"),
        ({"text": [b"a man"]}, "not bytes"),
    ],
)
def test_what_is_no_query_is_refused(arguments, named):
    with pytest.raises(QueryError, match=named):
        processor()(**arguments)


@pytest.mark.parametrize("sentence", ["", "   ", "\t\n"])
def test_an_empty_query_is_refused(sentence):
    with pytest.raises(QueryError, match="empty"):
        processor()(text=sentence)
    with pytest.raises(QueryError, match="empty"):
        processor()(text=["a man", sentence])


def test_arguments_that_would_be_ignored_are_refused():
    for arguments in ({"padding": False}, {"truncation": False}, {"max_length": 5}, {"do_resize": False}):
        for given in (arguments, {"text_kwargs": arguments}, {"common_kwargs": arguments}):
            with pytest.raises(ConfigurationError, match=next(iter(arguments))):
                processor()(text="a man", **given)
    with pytest.raises(ConfigurationError, match="return_tensors='np'"):
        processor()(text="a man", return_tensors="np")
    with pytest.raises(ConfigurationError, match="interpolation"):
        processor(interpolation="nearest")
    with pytest.raises(ConfigurationError, match="max_text_length is 2"):
        processor(max_text_length=2)
    with pytest.raises(ConfigurationError, match="needs an image_processor"):
        ReIDProcessor()


def test_what_transformers_ask_of_every_processor_is_taken():
    made = processor()
    expected = made(text="a man")
    for arguments in (
        {"padding": True, "truncation": True, "max_length": made.max_text_length},
        {"text_kwargs": {"padding": "max_length"}, "images_kwargs": {}, "common_kwargs": {"return_tensors": "pt"}},
        {"audio_kwargs": {"padding": True}, "videos_kwargs": {}},
    ):
        found = made(text="a man", **arguments)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_every_mode_of_image_becomes_the_same_rgb():
    made = processor()
    grey = photo().convert("L")
    expected = made(images=grey.convert("RGB"))["pixel_values"]
    same = {
        "L": grey,
        "LA": grey.convert("LA"),
        "RGBA": grey.convert("RGBA"),
        "P": grey.convert("P"),
        "array": np.asarray(grey.convert("RGB")),
        "grey array": np.asarray(grey),
    }
    for name, image in same.items():
        assert torch.equal(made(images=image)["pixel_values"], expected), name
    batch = made(images=list(same.values()))["pixel_values"]
    assert torch.equal(batch, expected.expand(len(same), -1, -1, -1))
    assert made(images=Image.new("1", (5, 7)))["pixel_values"].shape == (1, 3, *CASES["pixels"]["size"])
    assert made(images=Image.new("RGB", (1, 1)))["pixel_values"].shape == (1, 3, *CASES["pixels"]["size"])


def test_the_aspect_ratio_is_not_kept_and_height_comes_first():
    assert processor(image_size=(32, 8))(images=Image.new("RGB", (100, 10)))["pixel_values"].shape == (1, 3, 32, 8)
    assert processor(image_size=(32, 8)).image_size == (32, 8)


def test_images_and_text_in_one_call():
    both = processor()(images=[photo(), photo()], text=["a man", "a woman"])
    assert set(both) == {"pixel_values", "input_ids", "attention_mask"}
    assert set(both) == set(processor().model_input_names)


def test_saved_and_loaded_it_does_the_same(tmp_path):
    made = processor(
        image_mean=(0.4, 0.5, 0.6),
        image_std=(0.2, 0.3, 0.4),
        interpolation="bilinear",
        max_text_length=9,
        truncation_keeps_sep=True,
    )
    made.save_pretrained(tmp_path)
    CFineConfig.from_preset("tiny").save_pretrained(tmp_path)
    sentence = "the man wearing a red shirt is the woman"
    for loaded in (ReIDProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, ReIDProcessor)
        assert (loaded.max_text_length, loaded.truncation_keeps_sep, loaded.image_size) == (9, True, (24, 16))
        with pytest.warns(TruncationWarning):
            again = loaded(images=photo(), text=sentence)
        with pytest.warns(TruncationWarning):
            expected = made(images=photo(), text=sentence)
        assert all(torch.equal(again[name], value) for name, value in expected.items())


def test_a_folder_without_processor(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read a processor") as caught:
        ReIDProcessor.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="nobody/nothing"):
        ReIDProcessor.from_pretrained("nobody/nothing")


def test_without_a_tokenizer_images_only(tmp_path):
    made = ReIDProcessor.build(None, image_size=(24, 16), interpolation="bilinear")
    made.save_pretrained(tmp_path)
    CFineConfig.from_preset("tiny").save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "processor_config.json"]
    tokenizer().save_pretrained(tmp_path)  # left over from another model: not taken up
    for loaded in (made, ReIDProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, ReIDProcessor)
        assert loaded.tokenizer is None
        assert loaded.model_input_names == ["pixel_values"]
        assert "tokenizer" in repr(loaded)
        images = loaded(images=photo())
        assert set(images) == {"pixel_values"}
        assert torch.equal(images["pixel_values"], made(images=photo())["pixel_values"])
        for use in (
            lambda loaded=loaded: loaded(text="a man"),
            lambda loaded=loaded: loaded(images=photo(), text="a man"),
            lambda loaded=loaded: loaded.process_texts(["a man"]),
            lambda loaded=loaded: loaded.knows_a_word_of("a man"),
        ):
            with pytest.raises(QueryError, match="has no tokenizer: its model takes images only"):
                use()


def test_a_lost_tokenizer_is_not_mistaken_for_none(tmp_path):
    processor().save_pretrained(tmp_path)
    for path in tmp_path.glob("*token*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="cannot read a processor"):
        ReIDProcessor.from_pretrained(tmp_path)


def test_without_a_tokenizer_it_can_be_pushed_to_the_hub(tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(
        ReIDProcessor, "push_to_hub", lambda self, repo_id, **options: pushed.append((repo_id, options))
    )
    made = ReIDProcessor.build(None, image_size=(24, 16))
    made.save_pretrained(tmp_path / "mine", push_to_hub=True)
    made.save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id="org/mine", private=True)
    assert pushed == [("mine", {}), ("org/mine", {"private": True})]
