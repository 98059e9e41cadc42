"""Vocabularies learned from captions, for models trained from scratch: WordPiece, and byte pairs of CLIP's kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from transformers import BertTokenizer, CLIPTokenizer

from ..clip_tokenizer import END_OF_WORD, clean_caption, tokenizer_from_merges
from ..errors import RecipeError

__all__ = ["learn_clip_tokenizer", "learn_wordpiece_tokenizer"]

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-'.,"
_MIN_COUNT = 2


def learn_wordpiece_tokenizer(captions: Iterable[str], vocabulary_size: int = 2000) -> BertTokenizer:
    """A lower-casing BERT tokenizer whose pieces are the frequent words of `captions`.

    Letters, digits and common punctuation are always in the vocabulary, also as continuations, so that a word never met
    splits into known pieces ("jackets" into "jacket" and "##s") instead of becoming one unknown token. The same captions
    always give the same vocabulary, which the trainer of the tokenizers library does not promise.

    Args:
        captions: Training sentences.
        vocabulary_size: Largest number of pieces, the five special tokens included.

    Raises:
        RecipeError: If special tokens and letters alone are more than that.
    """
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(caption)))
    letters = sorted({letter for word in counts for letter in word} | set(_ALPHABET))
    words = sorted(
        (word for word, count in counts.items() if count >= _MIN_COUNT and len(word) > 1),
        key=lambda word: (-counts[word], word),
    )
    smallest = [*_SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    _check_size(vocabulary_size, len(smallest))
    pieces = [*smallest, *words][:vocabulary_size]
    return BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, do_lower_case=True)


def learn_clip_tokenizer(
    captions: Iterable[str], vocabulary_size: int = 2000, *, mask_token: bool = True
) -> CLIPTokenizer:
    """A tokenizer of CLIP's kind whose merges are the frequent byte pairs of `captions`.

    The same captions always give the same merges: equally frequent pairs are taken in alphabetical order.

    Args:
        captions: Training sentences.
        vocabulary_size: Largest number of ids; 515 are bytes and special tokens (514 without mask), the rest is merges.
        mask_token: Whether there is a mask token, the id before start.

    Raises:
        RecipeError: If bytes and special tokens alone are more than that.
    """
    splitter = tokenizer_from_merges([]).backend_tokenizer
    counts: Counter[tuple[str, ...]] = Counter()
    for caption in captions:
        for word, _ in splitter.pre_tokenizer.pre_tokenize_str(
            splitter.normalizer.normalize_str(clean_caption(caption))
        ):
            counts[(*word[:-1], word[-1] + END_OF_WORD)] += 1
    merges: list[tuple[str, str]] = []
    num_ids = len(tokenizer_from_merges([], mask_token=mask_token))
    _check_size(vocabulary_size, num_ids)
    words = list(counts.items())
    while num_ids + len(merges) < vocabulary_size:
        pairs: Counter[tuple[str, str]] = Counter()
        for symbols, count in words:
            for pair in pairwise(symbols):
                pairs[pair] += count
        if not pairs or max(pairs.values()) < _MIN_COUNT:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [(_merge(symbols, best), count) for symbols, count in words]
    return tokenizer_from_merges(merges, mask_token=mask_token)


def _check_size(vocabulary_size: int, smallest: int) -> None:
    if vocabulary_size < smallest:
        raise RecipeError(
            f"recipe field processor.vocabulary_size is {vocabulary_size}, but must be at least {smallest}: so many are special "
            "tokens and single letters."
        )


def _merge(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Join every occurrence of `pair`, from left to right."""
    merged: list[str] = []
    index = 0
    while index < len(symbols):
        if symbols[index : index + 2] == pair:
            merged.append(pair[0] + pair[1])
            index += 2
        else:
            merged.append(symbols[index])
            index += 1
    return tuple(merged)
