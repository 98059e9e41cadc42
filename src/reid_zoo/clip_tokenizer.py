"""CLIP's tokenizer, built from the vocabulary file that open_clip carries; no download is needed."""

from __future__ import annotations

import gzip
import html
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from transformers import CLIPTokenizer

from .errors import ConfigurationError

__all__ = ["MASK_TOKEN", "byte_symbols", "clean_caption", "clip_tokenizer", "tokenizer_from_merges"]

MASK_TOKEN = "<|mask|>"
START_TOKEN = "<|startoftext|>"
END_TOKEN = "<|endoftext|>"
END_OF_WORD = "</w>"

_VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
_NUM_MERGES = 48894  # 49408 ids - 2 × 256 bytes - start - end


def byte_symbols() -> list[str]:
    """The character that stands for each byte, in the order of CLIP's ids: printable bytes first, then the others."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def tokenizer_from_merges(merges: Sequence[tuple[str, str]], *, mask_token: bool = False) -> CLIPTokenizer:
    """A tokenizer of CLIP's kind: bytes, bytes that end a word, merges, then mask (if wanted), start and end.

    Args:
        merges: Pairs of symbols in order of priority; a word's last symbol ends in `"</w>"`.
        mask_token: Whether there is a mask token `<|mask|>`, the id before start.
    """
    symbols = byte_symbols()
    special = [*([MASK_TOKEN] if mask_token else []), START_TOKEN, END_TOKEN]
    pieces = [*symbols, *(symbol + END_OF_WORD for symbol in symbols), *("".join(pair) for pair in merges), *special]
    return CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[(left, right) for left, right in merges],
        **({"mask_token": MASK_TOKEN} if mask_token else {}),
    )


def clip_tokenizer(*, mask_token: bool = False) -> CLIPTokenizer:
    """The tokenizer of CLIP, 49408 ids, start 49406, end 49407.

    Args:
        mask_token: As in IRRA and VFE-TPS: the last merge ("jekyll") gives its id 49405 to a mask token `<|mask|>`; the
            word then splits into the two halves of that merge. Everything else equals CLIP's ids.

    Raises:
        ConfigurationError: If the installed open_clip does not carry the vocabulary file.
    """
    package = find_spec("open_clip")  # found without importing it, which takes seconds
    folders = [] if package is None else list(package.submodule_search_locations or [])
    file = next((path for folder in folders if (path := Path(folder) / _VOCABULARY_FILE).is_file()), None)
    if file is None:
        raise ConfigurationError(f"open_clip_torch with its {_VOCABULARY_FILE} is needed for CLIP's tokenizer.")
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1 : 1 + _NUM_MERGES]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    return tokenizer_from_merges(merges[:-1] if mask_token else merges, mask_token=mask_token)


def clean_caption(text: str) -> str:
    """What CLIP does to a text before it splits it.

    Broken unicode is repaired, HTML unescaped twice, white space collapsed, and everything lower-cased.
    """
    import ftfy

    repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(repaired.split()).lower()
