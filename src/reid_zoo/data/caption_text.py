"""What counts as an empty caption."""

from __future__ import annotations

import html

__all__ = ["is_empty_caption"]


def is_empty_caption(caption: str) -> bool:
    """Whether nothing of a caption is left once a text processor has cleaned it.

    The processors of the zoo unescape HTML twice and replace punctuation and white space by single spaces, so a caption
    without a letter or a digit (of any script) becomes the empty sentence.

    Args:
        caption: The sentence as the file gives it.

    Returns:
        True if there is no letter and no digit in it.
    """
    return not any(character.isalnum() for character in html.unescape(html.unescape(caption)))
