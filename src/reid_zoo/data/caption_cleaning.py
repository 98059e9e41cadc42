"""Cleaning of captions before they are tokenised."""

from __future__ import annotations

import re

__all__ = ["CAPTION_CLEANING", "clean_evaluation_caption"]

CAPTION_CLEANING = ("none", "eval", "both")
"""Which captions are cleaned: none, those of evaluation and search, or those of training as well."""

_PUNCTUATION = re.compile(r"[,.'!?\"()*#:;~]")
_JOINING = re.compile(r"[-/]")
_WHITE_SPACE = re.compile(r"\s{2,}")


def clean_evaluation_caption(caption: str) -> str:
    r"""A caption as MGCC's release evaluates with it: lower case, without punctuation.

    Each of `` , . ' ! ? " ( ) * # : ; ~ - / `` becomes a blank, `<person>` loses its brackets, two or more white-space
    characters in a row become one blank (a single tab stays), and those at both ends go.

    Args:
        caption: Any text.

    References:
        MGCC spec section 8; not in the paper.

    Example:
        >>> clean_evaluation_caption("The man wears a T-shirt, dark/grey pants and (new) shoes.")
        'the man wears a t shirt dark grey pants and new shoes'
    """
    text = _JOINING.sub(" ", _PUNCTUATION.sub(" ", caption.lower()))
    return _WHITE_SPACE.sub(" ", text.replace("<person>", "person")).rstrip("\n").strip(" ")
