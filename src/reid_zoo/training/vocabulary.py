"""A WordPiece vocabulary learned from captions, for models trained from scratch."""

from __future__ import annotations

import json
from collections.abc import Iterable

from transformers import BertTokenizer

__all__ = ["learn_wordpiece_tokenizer"]


def learn_wordpiece_tokenizer(captions: Iterable[str], vocabulary_size: int = 2000) -> BertTokenizer:
    """A lower-casing BERT tokenizer whose pieces come from `captions`.

    Letters, digits and common punctuation are always in the vocabulary, so that a word never met splits into known
    pieces instead of becoming one unknown token.

    Args:
        captions: Training sentences.
        vocabulary_size: Largest number of pieces, the five special tokens included.
    """
    from tokenizers import BertWordPieceTokenizer

    learner = BertWordPieceTokenizer(lowercase=True)
    learner.train_from_iterator(
        captions,
        vocab_size=vocabulary_size,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz0123456789-'.,"),
        limit_alphabet=200,
    )
    vocabulary = json.loads(learner.to_str())["model"]["vocab"]
    alphabet = sorted({piece for piece in vocabulary if len(piece) == 1})
    for piece in alphabet:  # every letter may also continue a word
        vocabulary.setdefault(f"##{piece}", len(vocabulary))
    return BertTokenizer(vocab=vocabulary, do_lower_case=True)
