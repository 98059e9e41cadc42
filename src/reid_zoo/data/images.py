"""Finding and decoding image files.

`load_image` is the one place where reid_zoo decodes files that it did not write. Whatever is wrong with a file, the
caller sees an `ImageReadError` with the path and a short reason, never a Pillow warning or a decoder's own exception;
so indexing can skip the file, report it and go on.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from ..errors import DatasetError, ImageReadError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DEFAULT_MAX_PIXELS", "IMAGE_EXTENSIONS", "find_images", "load_image", "natural_sort_key"]

IMAGE_EXTENSIONS: frozenset[str] = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""File name endings, in lower case, that `find_images` takes for images."""

DEFAULT_MAX_PIXELS = 100_000_000
"""Largest width x height that `load_image` decodes by default: 300 MB as RGB."""

# Only raster formats: Pillow's EPS reader, for one, would start Ghostscript on a file of unknown origin.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")

_SIGNATURES: tuple[tuple[re.Pattern[bytes], str, bool], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG", True),
    (re.compile(rb"\x89PNG"), "PNG", True),
    (re.compile(rb"GIF8[79]a"), "GIF", True),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WebP", True),
    (re.compile(rb"II\*\x00|MM\x00\*"), "TIFF", True),
    (re.compile(rb"BM"), "BMP", True),
    (re.compile(rb"....ftyp(avif|avis)", re.DOTALL), "AVIF", True),
    (re.compile(rb"....ftyp(heic|heix|hevc|mif1|msf1)", re.DOTALL), "HEIC", False),
    (re.compile(rb"%PDF"), "PDF", False),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "PostScript", False),
)

_TRUNCATED = "truncated: the file ends before the image does"

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _DecoderWarnings:
    """Silences Pillow's warnings while at least one thread is decoding.

    `warnings.catch_warnings` changes the filters of the whole process and puts the old ones back, so threads that each
    use it can leave wrong filters behind. Counting the threads inside makes the first one in set the filter and the
    last one out take it away. Interpreters that keep the filters per context need no count.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters: warnings.catch_warnings[None] | None = None

    @contextmanager
    def silenced(self) -> Iterator[None]:
        if getattr(sys.flags, "context_aware_warnings", False):
            with warnings.catch_warnings():
                self._ignore()
                yield
            return
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                self._ignore()
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0 and self._filters is not None:
                    self._filters.__exit__(None, None, None)
                    self._filters = None

    @staticmethod
    def _ignore() -> None:
        warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


_DECODER_WARNINGS = _DecoderWarnings()


def load_image(
    path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS, target_size: tuple[int, int] | None = None
) -> Image.Image:
    """Decode one image file to upright 8-bit RGB.

    - Animated files (GIF, WebP, APNG, multi-page TIFF) give their first frame.
    - The EXIF orientation is applied; a damaged EXIF block is ignored.
    - Transparent pixels are composited on white (a cut-out person on black would look like dark clothes).
    - 16-bit grey values are divided by 257, so 65535 becomes 255. Integer images of more than 16 bits and float images
      outside [0, 1] have no declared range: their own smallest and largest value become 0 and 255.
    - CMYK, palette, 1-bit, YCbCr and LAB images are converted; the colour profile is not applied.

    Args:
        path: The file. Raster formats only: JPEG, PNG, BMP, GIF, WebP, TIFF, PNM, JPEG 2000, AVIF.
        max_pixels: Refuse an image whose header declares more pixels (width x height), before decoding any of them.
        target_size: (height, width) that the image will be shrunk to later. A JPEG is then decoded at 1/2, 1/4 or 1/8
            of its size, as long as both sides stay at least twice the target; other formats take no notice.

    Returns:
        A new `RGB` image without metadata (so nobody applies the orientation twice).

    Raises:
        ImageReadError: For whatever reason the file cannot be decoded; `reason` says which.
    """
    try:
        _check_file(path)
        with _DECODER_WARNINGS.silenced():
            return _decode(path, max_pixels, target_size)
    except ImageReadError:
        raise
    except UnidentifiedImageError:
        raise ImageReadError(path, _unidentified_reason(path)) from None
    except MemoryError:
        raise ImageReadError(path, "not enough memory to decode it") from None
    except Image.DecompressionBombError as error:  # Pillow's own limit, checked while it reads the header
        raise ImageReadError(path, _bomb_reason(error, max_pixels)) from None
    except Exception as error:  # decoders raise SyntaxError, struct.error, EOFError, ValueError, ZeroDivisionError, ...
        reason = _TRUNCATED if _is_cut_webp(path) else _failure_reason(error)
        raise ImageReadError(path, reason) from error


def _check_file(path: str | Path) -> None:
    """Raise for what is not a readable regular file; opening a pipe or a device could wait for ever."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ImageReadError(path, "no such file") from None
    if stat.S_ISDIR(status.st_mode):
        raise ImageReadError(path, "is a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageReadError(path, "is not a regular file")
    if status.st_size == 0:
        raise ImageReadError(path, "the file is empty (0 bytes)")


def _decode(path: str | Path, max_pixels: int, target_size: tuple[int, int] | None) -> Image.Image:
    Image.init()
    with Image.open(path, formats=tuple(name for name in _FORMATS if name in Image.OPEN)) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ImageReadError(path, f"{width} x {height} pixels is more than the limit of {max_pixels}")
        if width == 0 or height == 0:
            raise ImageReadError(path, f"{width} x {height} pixels: there is nothing to see")
        if target_size is not None and image.format in ("JPEG", "MPO"):
            _decode_smaller(image, target_size)
        image.load()
        orientation = _orientation(image)
        rgb = _to_rgb(path, image)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    rgb.info = {}
    return rgb


def _decode_smaller(image: Image.Image, target_size: tuple[int, int]) -> None:
    height, width = target_size
    if _orientation(image) >= 5:  # stored lying on its side
        height, width = width, height
    image.draft(image.mode, (2 * width, 2 * height))


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _to_rgb(path: str | Path, image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey_to_rgb(path, image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        opaque = Image.new("RGB", rgba.size, (255, 255, 255))
        opaque.paste(rgba, mask=rgba.getchannel("A"))
        return opaque
    return image.convert("RGB")


def _deep_grey_to_rgb(path: str | Path, image: Image.Image) -> Image.Image:
    """Scale one channel of more than 8 bits; Pillow's own conversion clips it at 255."""
    import numpy as np

    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise ImageReadError(path, "the pixels contain NaN or infinity")
    low, high = _grey_range(image.mode, values)
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


def _grey_range(mode: str, values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    natural = (0.0, 1.0) if mode == "F" else (0.0, 65535.0)
    if natural[0] <= low and high <= natural[1]:
        return natural
    return (low, high) if high > low else (low, low + 1.0)


def _unidentified_reason(path: str | Path) -> str:
    try:
        with open(path, "rb") as file:
            head = file.read(32)
    except OSError as error:
        return _failure_reason(error)
    for signature, name, supported in _SIGNATURES:
        if signature.match(head):
            if supported:
                return f"damaged or truncated {name} file: its header cannot be read"
            return f"{name} is not a supported image format; convert it to JPEG or PNG"
    return "not an image file, or a format that is not supported"


def _is_cut_webp(path: str | Path) -> bool:
    """Whether a WebP file is shorter than its header says; its decoder gives no reason for failing."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError):
        return False
    return len(head) == 12 and head[8:] == b"WEBP" and size < 8 + int.from_bytes(head[4:8], "little")


def _bomb_reason(error: Exception, max_pixels: int) -> str:
    found = re.search(r"\((\d+) pixels\)", str(error))
    pixels = found.group(1) if found else "more"
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    if max_pixels > limit:
        return f"{pixels} pixels is more than Pillow's limit of {limit} (PIL.Image.MAX_IMAGE_PIXELS, doubled)"
    return f"{pixels} pixels is more than the limit of {max_pixels}"


def _failure_reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "permission denied"
    message = " ".join(str(error).split())
    if isinstance(error, (EOFError, struct.error, IndexError)) or re.search(
        r"truncat|end of file|not enough|unexpected eof|incomplete|too short", message, re.IGNORECASE
    ):
        return _TRUNCATED
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"damaged image data ({message or type(error).__name__})"


def natural_sort_key(path: Path) -> tuple[tuple[tuple[tuple[int, int | str], ...], ...], str]:
    """Sort key that puts `img2.jpg` before `img10.jpg`, the same on every machine and locale.

    Args:
        path: A path; compared component by component.

    Returns:
        A key for `sorted`; two different paths never have equal keys.
    """
    parts = tuple(
        tuple(
            (0, int(run)) if run.isascii() and run.isdigit() else (1, run.casefold())
            for run in re.split(r"([0-9]+)", part)
            if run
        )
        for part in path.parts
    )
    return parts, str(path)


def find_images(folder: str | Path, *, extensions: frozenset[str] = IMAGE_EXTENSIONS) -> list[Path]:
    """List the image files below a folder, by file name ending only.

    Sub-folders are searched too, linked ones included (each real folder once). Names that start with a dot and
    `__MACOSX` folders are passed over.

    Args:
        folder: Where to look.
        extensions: Endings to take, in lower case with the dot.

    Returns:
        The files in natural order (`2.jpg` before `10.jpg`) of their path inside the folder.

    Raises:
        DatasetError: If the folder is missing, is a file, cannot be read, or holds no image.
    """
    top = Path(folder)
    if not top.exists():
        raise DatasetError(f"{top}: no such folder; give a folder of images.")
    if not top.is_dir():
        raise DatasetError(f"{top}: is a file, not a folder of images.")

    def fail(error: OSError) -> None:
        raise DatasetError(f"{error.filename}: cannot list this folder ({error.strerror}); check its permissions.")

    found: list[Path] = []
    others = 0
    seen: set[str] = set()
    for here, folders, files in os.walk(top, followlinks=True, onerror=fail):
        real = os.path.realpath(here)
        if real in seen:  # a link back to a folder above, or a second link to the same one
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        for name in files:
            if name.startswith("."):
                continue
            if os.path.splitext(name)[1].lower() in extensions:
                found.append(Path(here, name))
            else:
                others += 1
    if not found:
        what = f"only {others} other file(s)" if others else "it is empty"
        raise DatasetError(f"{top}: no image found ({what}); looked for {', '.join(sorted(extensions))}.")
    return sorted(found, key=lambda path: natural_sort_key(path.relative_to(top)))
