from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.clip_tokenizer import MASK_TOKEN, clean_caption
from reid_zoo.training.vocabulary import learn_clip_tokenizer, learn_wordpiece_tokenizer

CAPTIONS = ["A woman wears a red jacket.", "The woman has a red jacket and Café-brown shoes.", "woman"]


def test_frequent_words_are_one_piece_and_others_are_spelled():
    tokenizer = learn_wordpiece_tokenizer(CAPTIONS)
    assert tokenizer.tokenize("Woman, red jackets") == ["woman", ",", "red", "jacket", "##s"]
    assert tokenizer.tokenize("hat") == ["h", "##a", "##t"]
    assert tokenizer.unk_token not in tokenizer.tokenize("a CAFÉ 42's")
    assert tokenizer.tokenize("红") == [tokenizer.unk_token]


def test_the_same_captions_give_the_same_vocabulary_and_its_size_is_limited():
    vocabulary = learn_wordpiece_tokenizer(CAPTIONS).get_vocab()
    assert learn_wordpiece_tokenizer(list(CAPTIONS)).get_vocab() == vocabulary
    assert len(learn_wordpiece_tokenizer(CAPTIONS, vocabulary_size=88).get_vocab()) == 88
    assert vocabulary["[PAD]"] == 0


def test_special_tokens_frame_a_sentence():
    tokenizer = learn_wordpiece_tokenizer(CAPTIONS)
    ids = tokenizer("red")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "red", "[SEP]"]


# ---------------------------------------------------------------- byte pairs

BYTES_AND_SPECIAL = 2 * 256 + 3


def merges_of(tokenizer) -> list[str]:
    """The learned pieces in the order of their ids."""
    return tokenizer.convert_ids_to_tokens(list(range(512, len(tokenizer) - 3)))


def test_frequent_words_become_one_piece_of_a_clip_tokenizer():
    tokenizer = learn_clip_tokenizer(CAPTIONS)
    assert tokenizer.tokenize("woman red jacket") == ["woman</w>", "red</w>", "jacket</w>"]
    assert tokenizer.tokenize("hat")[-1].endswith("</w>")
    assert "".join(tokenizer.tokenize("hat")) == "hat</w>"


def test_special_tokens_are_the_last_ids_in_clips_order():
    tokenizer = learn_clip_tokenizer(CAPTIONS)
    size = len(tokenizer)
    assert (tokenizer.mask_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (size - 3, size - 2, size - 1)
    ids = tokenizer(f"red {MASK_TOKEN}")["input_ids"]
    assert (ids[0], ids[2], ids[-1]) == (size - 2, size - 3, size - 1)
    assert max(ids) == tokenizer.eos_token_id, "the end of a sentence is found by its largest id"


def test_the_size_is_limited_and_captions_limit_it_too():
    assert len(learn_clip_tokenizer(CAPTIONS, vocabulary_size=520)) == 520
    assert len(learn_clip_tokenizer(CAPTIONS, vocabulary_size=BYTES_AND_SPECIAL)) == BYTES_AND_SPECIAL
    assert len(learn_clip_tokenizer([])) == BYTES_AND_SPECIAL
    assert merges_of(learn_clip_tokenizer(["abc def"])) == []  # no pair occurs twice
    smaller, larger = (merges_of(learn_clip_tokenizer(CAPTIONS, size)) for size in (520, 526))
    assert (len(smaller), len(larger)) == (5, 11)
    assert smaller == larger[:5]  # more merges come behind, none changes


def test_the_same_captions_give_the_same_merges_in_any_order():
    merges = merges_of(learn_clip_tokenizer(CAPTIONS))
    assert merges_of(learn_clip_tokenizer(CAPTIONS[::-1])) == merges
    assert merges_of(learn_clip_tokenizer(["zx zx", "ab ab"])) == ["ab</w>", "zx</w>"]  # ties: by the alphabet


def test_the_most_frequent_pair_comes_first():
    # "co" stands in all five words, "oa", "at" in three of them
    merges = merges_of(learn_clip_tokenizer(["coat coat coat cone cone"]))
    assert merges[:2] == ["co", "at</w>"]
    assert {"coat</w>", "cone</w>"} <= set(merges)


@settings(max_examples=50, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=("Cc", "Cs")), max_size=30))
def test_any_text_is_spelled_and_can_be_read_back(text):
    """Bytes are always in the vocabulary: nothing is unknown, and nothing but blanks is lost."""
    tokenizer = learn_clip_tokenizer(CAPTIONS)
    cleaned = clean_caption(text)
    ids = tokenizer(cleaned)["input_ids"][1:-1]
    assert tokenizer.mask_token_id not in ids
    decoded = tokenizer.decode(ids)
    assert decoded.replace(" ", "") == tokenizer.backend_tokenizer.normalizer.normalize_str(cleaned).replace(" ", "")


def test_captions_are_cleaned_before_they_are_counted():
    merges = merges_of(learn_clip_tokenizer(["A RED coat &amp; a  blue\tcoat"] * 2))
    assert "red</w>" in merges
    assert not any("amp" in piece or piece != piece.lower() for piece in merges)
