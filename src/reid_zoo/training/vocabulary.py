"""A WordPiece vocabulary learned from captions, for models trained from scratch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from transformers import BertTokenizer

__all__ = ["learn_wordpiece_tokenizer"]

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
    pieces = [*_SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters), *words][:vocabulary_size]
    return BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, do_lower_case=True)
