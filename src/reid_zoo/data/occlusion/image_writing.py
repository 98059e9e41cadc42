"""Reading holistic images and writing them again, complete or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from PIL import Image

from ...errors import DatasetError
from ..images import load_image

__all__ = ["ENCODINGS", "PARTIAL_SUFFIX", "ImageEncoding", "encode_image", "read_image", "write_whole_file"]

ImageEncoding = Literal["released", "high_quality"]
ENCODINGS: tuple[ImageEncoding, ...] = ("released", "high_quality")

PARTIAL_SUFFIX = ".partial"
"""Ending of a file that is still being written; such a file never counts."""

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
_JPEG_OPTIONS: dict[ImageEncoding, dict[str, Any]] = {
    "released": {"quality": 75},  # Pillow's default, which the released tool leaves alone
    "high_quality": {"quality": 95, "subsampling": 0},
}


def read_image(path: Path) -> Image.Image:
    """Decode a holistic image: `L` for one that is stored as 8-bit grey, else `RGB`.

    Raises:
        ImageReadError: If it cannot be decoded.
    """
    image = load_image(path)
    with Image.open(path) as header:
        is_grey = header.mode == "L"
    return image.convert("L") if is_grey else image


def encode_image(image: Image.Image, name: str, encoding: ImageEncoding) -> bytes:
    """Encode an image in the format that its file name says.

    Args:
        image: `RGB` or `L`.
        name: File name or path.
        encoding: `"released"`: JPEG of quality 75. `"high_quality"`: JPEG of quality 95, colours at full resolution.
            Other formats lose nothing either way.

    Raises:
        DatasetError: If the ending is not one of JPEG, PNG, BMP or TIFF.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in _FORMATS:
        raise DatasetError(
            f"{name}: cannot be written again as {suffix or 'a file without ending'}; convert it to PNG."
        )
    kind = _FORMATS[suffix]
    buffer = io.BytesIO()
    image.save(buffer, kind, **(_JPEG_OPTIONS[encoding] if kind == "JPEG" else {}))
    return buffer.getvalue()


def write_whole_file(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it, so that it is there complete or not at all.

    Raises:
        DatasetError: If it cannot be written.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        reason = error.strerror or error
        raise DatasetError(f"{path} cannot be written ({reason}); make room or access and run again.") from None
