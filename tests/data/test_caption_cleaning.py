"""Cleaning of captions: what it removes, and which captions it touches from data set to token ids."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reid_zoo.data import load_dataset
from reid_zoo.data.caption_cleaning import CAPTION_CLEANING, clean_evaluation_caption
from reid_zoo.data.collators import ImageTextCollator
from reid_zoo.errors import ConfigurationError
from reid_zoo.models.mgcc.configuration_mgcc import MGCCConfig
from reid_zoo.processing import ReIDProcessor
from reid_zoo.processor_building import build_processor
from reid_zoo.training.recipe import load_recipe
from reid_zoo.training.running import build_model
from reid_zoo.training.vocabulary import learn_clip_tokenizer
from tiny_models import draw_people

torch.set_num_threads(1)
CAPTION = 'A T-shirt, dark/grey pants (new); "shoes".'
CLEANED = "a t shirt dark grey pants new shoes"


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        (CAPTION, CLEANED),
        ("the <PERSON>'s bag", "the person s bag"),
        ("a\tb", "a\tb"),  # one white-space character stays as it is
        ("a \t b\n", "a b"),
        ("...!?", ""),
        ("50% & [x] {y} _", "50% & [x] {y} _"),
    ],
)
def test_what_is_removed(caption, cleaned):
    assert clean_evaluation_caption(caption) == cleaned


@given(st.text())
def test_cleaning_twice_changes_no_more_than_white_space_at_the_ends(caption):
    once = clean_evaluation_caption(caption)
    assert not re.search(r"[,.'!?\"()*#:;~/-]|\s\s", once)
    assert clean_evaluation_caption(once).split() == once.split()


def processor(cleaning: str) -> ReIDProcessor:
    tokenizer = learn_clip_tokenizer([CAPTION.lower(), CLEANED], 560)
    return ReIDProcessor.build(tokenizer, image_size=(16, 8), max_text_length=64, caption_cleaning=cleaning)


@pytest.mark.parametrize(("cleaning", "evaluation", "training"), [("none", 0, 0), ("eval", 1, 0), ("both", 1, 1)])
def test_queries_and_training_captions(cleaning, evaluation, training, tmp_path):
    plain, made = processor("none"), processor(cleaning)
    wanted = [plain.process_texts([caption])["input_ids"] for caption in (CAPTION.lower(), CLEANED)]
    assert not torch.equal(*wanted)
    made.save_pretrained(tmp_path)
    for used in (made, ReIDProcessor.from_pretrained(tmp_path)):
        assert used.caption_cleaning == cleaning
        assert torch.equal(used(text=[CAPTION])["input_ids"], wanted[evaluation])
        item = {"pixel_values": torch.zeros(3, 16, 8), "caption": CAPTION, "person_label": 0}
        assert torch.equal(ImageTextCollator(used)([item])["input_ids"], wanted[training])


def test_unknown_choices_are_refused():
    assert CAPTION_CLEANING == ("none", "eval", "both")
    with pytest.raises(ConfigurationError, match="caption_cleaning"):
        processor("all")


def test_mgccs_own_processor_cleans_queries_as_the_release_does():
    made = build_processor(MGCCConfig())
    assert torch.equal(made(text=[CAPTION])["input_ids"], made.process_texts([CLEANED], training=True)["input_ids"])
    assert not torch.equal(
        *(made.process_texts([CAPTION], training=training)["input_ids"] for training in (True, False))
    )


def test_a_recipe_chooses(tmp_path):
    people = load_dataset("cuhk-pedes", draw_people(tmp_path, identities=4), "train")
    assert build_model(load_recipe("cfine-tiny"), people)[1].caption_cleaning == "none"
    assert build_model(load_recipe("mgcc-tiny"), people)[1].caption_cleaning == "eval"
    recipe = load_recipe("cfine-tiny", ["caption_cleaning=both"])
    assert build_model(recipe, people)[1].caption_cleaning == "both"
