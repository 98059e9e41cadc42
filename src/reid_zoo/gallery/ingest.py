"""Getting images into a gallery: listing, skipping what is there, decoding beside the model, surviving bad files."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.images import find_images, load_image
from ..data.records import PersonRecord
from ..errors import GalleryError, ImageReadError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["AddReport", "FailedImage", "ImageSource", "decode_ahead", "image_sources"]

_ID_BITS = 63


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image that could not be indexed, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class AddReport:
    """What `Gallery.add` did.

    Attributes:
        added: Images encoded and written (new ones and changed ones).
        skipped: Images that were there already, unchanged.
        failed: Images that could not be read.
    """

    added: int
    skipped: int
    failed: tuple[FailedImage, ...] = ()


@dataclass(slots=True)
class ImageSource:
    """One image to index.

    Attributes:
        id: Id of its row: a hash of the absolute path (of the pixels for an image in memory), so that indexing an image
            twice, from any process, gives one row.
        name: What a hit shows as `image`.
        path: File, `None` for an image in memory.
        image: The image in memory.
        size: Bytes of the file; with `mtime` it tells whether the file has changed.
        mtime: Nanoseconds of its last change.
        metadata: Values of the metadata columns.
    """

    id: int
    name: str
    path: Path | None
    image: Image.Image | None = None
    size: int = 0
    mtime: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> (64 - _ID_BITS)


def _file_source(path: str | os.PathLike[str], metadata: dict[str, Any]) -> ImageSource:
    absolute = os.path.abspath(path)
    try:
        status = os.stat(absolute)
        size, mtime = status.st_size, status.st_mtime_ns
    except OSError:
        size, mtime = -1, -1  # reading it will say what is wrong
    return ImageSource(
        _hash(absolute.encode("utf-8", "surrogateescape")), absolute, Path(absolute), None, size, mtime, metadata
    )


def image_sources(images: Any, metadata: Mapping[str, Mapping[str, Any]] | None = None) -> list[ImageSource]:
    """List what is to be indexed.

    Args:
        images: A folder (searched recursively), a file, an image, or a list of files, folders, PIL images and
            [`PersonRecord`]s.
        metadata: File name or path → values of metadata columns.

    Raises:
        DatasetError: If a folder is missing or holds no image.
        GalleryError: If something is none of these.
    """
    from PIL import Image

    given = dict(metadata or {})

    def values_of(path: str | os.PathLike[str]) -> dict[str, Any]:
        text = os.fspath(path)
        for key in (text, os.path.abspath(text), os.path.basename(text)):
            if key in given:
                return dict(given[key])
        return {}

    items: Iterable[Any] = [images] if isinstance(images, str | os.PathLike | Image.Image | PersonRecord) else images
    sources: list[ImageSource] = []
    for item in items:
        if isinstance(item, PersonRecord):
            values: dict[str, Any] = dict(item.metadata)
            values |= {
                name: value
                for name, value in (("person_id", item.person_id), ("camera_id", item.camera_id))
                if value is not None
            }
            if item.captions:
                values["captions"] = list(item.captions)
            sources.append(_file_source(item.image_path, values))
        elif isinstance(item, Image.Image):
            pixels = item.convert("RGB")
            identifier = _hash(f"{pixels.size}".encode() + pixels.tobytes())
            sources.append(ImageSource(identifier, f"image-{identifier:016x}", None, pixels))
        elif isinstance(item, str | os.PathLike):
            if os.path.isfile(item):
                sources.append(_file_source(item, values_of(item)))
            else:  # a folder; anything else is refused by name
                sources += [_file_source(path, values_of(path)) for path in find_images(Path(item))]
        else:
            raise GalleryError(f"cannot index {type(item).__name__}; give files, folders, PIL images or records.")
    unique = {source.id: source for source in sources}  # a file named twice is one image
    return list(unique.values())


def decode_ahead(
    batches: Iterator[Sequence[ImageSource]],
    *,
    target_size: tuple[int, int] | None,
    num_workers: int,
    prefetch: int = 2,
) -> Iterator[tuple[list[ImageSource], list[Any], list[FailedImage]]]:
    """Decode batches in threads while the caller encodes the one before; at most `prefetch` batches are in memory.

    Args:
        batches: Batches of sources.
        target_size: `(height, width)` the model wants; large JPEGs are decoded smaller.
        num_workers: Decoding threads.
        prefetch: Batches decoded ahead.

    Yields:
        The sources that could be read, their images, and those that could not.
    """

    def read(source: ImageSource) -> Any:
        if source.image is not None:
            return source.image
        assert source.path is not None
        return load_image(source.path, target_size=target_size)

    with ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="decode") as pool:
        queue: deque[list[tuple[ImageSource, Future[Any]]]] = deque()

        def fill() -> None:
            while len(queue) < prefetch:
                batch = next(batches, None)
                if batch is None:
                    return
                queue.append([(source, pool.submit(read, source)) for source in batch])

        try:
            fill()
            while queue:
                current = queue.popleft()
                fill()
                sources, images, failed = [], [], []
                for source, future in current:
                    try:
                        images.append(future.result())
                        sources.append(source)
                    except ImageReadError as error:
                        failed.append(FailedImage(source.name, error.reason))
                yield sources, images, failed
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
