"""CLIP's tokenizer without a download: the ids of open_clip, and the mask token of IRRA's family."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.clip_tokenizer import MASK_TOKEN, byte_symbols, clean_caption, clip_tokenizer, tokenizer_from_merges
from reid_zoo.errors import ConfigurationError

MASK, START, END = 49405, 49406, 49407
SENTENCES = [
    "A woman in a red coat with a black backpack.",
    "The man's wearing 2 pairs of white/grey Nike-sneakers, size 43!",
    "  spaces \t and\nlines  ",
    "café naïve façade — “quotes” … 5 €",
    "she's they're I've we'll he'd I'm",
    "日本語 and emoji 🙂 mixed",
    "&amp;amp; &lt;b&gt; html",
    "underscore_words ##hash @at 100%",
    "",
]


@cache
def tokenizer_of(*, mask_token: bool):
    return clip_tokenizer(mask_token=mask_token)


@cache
def open_clips():
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def ids_of(text: str, *, mask_token: bool = False) -> list[int]:
    return tokenizer_of(mask_token=mask_token)(clean_caption(text))["input_ids"]


@pytest.mark.parametrize("text", SENTENCES)
def test_ids_are_open_clips(text):
    assert ids_of(text) == [START, *open_clips().encode(text), END]


# Without the long s: to open_clip's regular expression "'ſ" is the contraction "'s".
_LETTERS = st.characters(max_codepoint=0x17E, exclude_categories=("Cc", "Cs"))


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet=_LETTERS, max_size=40))
def test_ids_are_open_clips_for_any_text(text):
    assert ids_of(text) == [START, *open_clips().encode(text), END]


def test_sizes_and_special_ids():
    plain, masking = tokenizer_of(mask_token=False), tokenizer_of(mask_token=True)
    for tokenizer in (plain, masking):
        assert len(tokenizer) == 49408
        assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (START, END)
    assert masking.mask_token_id == MASK
    assert plain.mask_token is None
    assert plain.convert_ids_to_tokens(MASK) == "jekyll</w>"


@pytest.mark.parametrize("text", SENTENCES)
def test_a_mask_token_leaves_all_other_ids_alone(text):
    assert ids_of(text, mask_token=True) == ids_of(text)


def test_the_mask_takes_the_place_of_one_word_which_is_spelled_instead():
    assert ids_of(f"a {MASK_TOKEN} coat", mask_token=True) == [START, 320, MASK, *ids_of("coat")[1:-1], END]
    whole = tokenizer_of(mask_token=False)("jekyll")["input_ids"][1:-1]
    halves = tokenizer_of(mask_token=True)("jekyll")["input_ids"][1:-1]
    assert whole == [MASK]
    assert len(halves) == 2
    assert "".join(tokenizer_of(mask_token=True).convert_ids_to_tokens(halves)) == "jekyll</w>"


def test_captions_are_cleaned_as_clip_does():
    assert clean_caption("  A\tRed\n&amp;amp;  BLUE Coat ") == "a red & blue coat"
    assert clean_caption("cafÃ© â€œquoteâ€\x9d") == 'café "quote"'  # text that was decoded wrongly once
    assert clean_caption("") == ""


def test_every_byte_has_a_symbol_of_its_own():
    symbols = byte_symbols()
    assert len(set(symbols)) == len(symbols) == 256
    assert not any(symbol.isspace() for symbol in symbols)
    assert symbols[0] == "!"
    tokenizer = tokenizer_from_merges([])
    assert [tokenizer.convert_ids_to_tokens(index) for index in range(256)] == symbols


def test_a_tokenizer_of_a_few_merges():
    merges = [("r", "e"), ("re", "d</w>"), ("c", "o")]
    tokenizer = tokenizer_from_merges(merges, mask_token=True)
    assert len(tokenizer) == 2 * 256 + 3 + 3
    assert tokenizer.tokenize("red co") == ["red</w>", "c", "o</w>"]  # a pair inside a word is not one at its end
    ids = tokenizer("red")["input_ids"]
    assert ids == [len(tokenizer) - 2, 2 * 256 + 1, len(tokenizer) - 1]
    assert tokenizer.mask_token_id == len(tokenizer) - 3


def test_it_survives_a_folder(tmp_path):
    from transformers import AutoTokenizer

    tokenizer_of(mask_token=True).save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in SENTENCES:
        assert again(clean_caption(text))["input_ids"] == ids_of(text, mask_token=True)
    assert again.mask_token_id == MASK


def test_without_open_clip_it_says_what_is_needed(monkeypatch):
    monkeypatch.setattr("reid_zoo.clip_tokenizer.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="open_clip_torch with its bpe_simple_vocab"):
        clip_tokenizer()
