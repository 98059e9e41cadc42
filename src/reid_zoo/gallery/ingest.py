"""Indexing: decode in threads, encode in this one, commit in batches.

Images are decoded ahead of the model by a bounded number of images and of pixels, so memory does not grow with the
number of images. Rows are committed at least every `COMMIT_ROWS` rows or `COMMIT_SECONDS` seconds; what is committed
survives anything, what is not is indexed by the next run.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GalleryError, ImageReadError
from .encoder import Encoder, ImageEmbeddings, encode_images, label_problem, late_interaction
from .engines.base import GalleryStore
from .image_sources import IMAGE_COLUMN, VERSION_COLUMN, ImageItem
from .late_interaction import TOKENS_COLUMN, TokenIndex

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["AddReport", "FailedImage", "IndexedImages", "add_images"]

COMMIT_ROWS = 1024
COMMIT_SECONDS = 10.0
COMMIT_TOKEN_BYTES = 64_000_000
"""Tokens collected for one commit, of models that score by late interaction."""

PIXEL_BUDGET = 64_000_000
"""Pixels decoded but not yet encoded (192 MB as RGB); one image more per worker may be on its way."""


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image that could not be indexed: its path (or a description) and the reason in a few words."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class AddReport:
    """What an `add` did.

    Attributes:
        added: Images encoded and stored.
        replaced: How many of the added ones replaced the row of an older version of the file.
        skipped: Images that were in the gallery already, or twice in the input.
        failed: Images that could not be read, or with a camera or viewpoint that the model does not know.
    """

    added: int
    skipped: int
    failed: tuple[FailedImage, ...] = ()
    replaced: int = 0


class IndexedImages:
    """Which images a gallery has: name → (id, version), in 32 bytes per image.

    Names and versions are kept as hashes (128 and 64 bits).

    Args:
        store: The gallery's rows.
        with_tokens: Whether a row without tokens counts as an older version of its image.
    """

    def __init__(self, store: GalleryStore, *, with_tokens: bool = False) -> None:
        names, checks, versions, ids = [], [], [], []
        columns = [IMAGE_COLUMN, VERSION_COLUMN]
        has_tokens = TOKENS_COLUMN in store.schema.columns
        for batch in store.scan(columns=[*columns, TOKENS_COLUMN] if has_tokens else columns):
            if with_tokens:
                complete = [has_tokens and value is not None for value in batch.columns.get(TOKENS_COLUMN, batch.ids)]
                batch.columns[VERSION_COLUMN][np.logical_not(complete)] = None
            hashes = [_hash_pair(name) for name in batch.columns[IMAGE_COLUMN]]
            names.append(np.array([pair[0] for pair in hashes], np.uint64))
            checks.append(np.array([pair[1] for pair in hashes], np.uint64))
            versions.append(np.array([_hash_pair(v)[0] for v in batch.columns[VERSION_COLUMN]], np.uint64))
            ids.append(batch.ids)
        order = np.argsort(np.concatenate([np.empty(0, np.uint64), *names]), kind="stable")
        self._names = np.concatenate([np.empty(0, np.uint64), *names])[order]
        self._checks = np.concatenate([np.empty(0, np.uint64), *checks])[order]
        self._versions = np.concatenate([np.empty(0, np.uint64), *versions])[order]
        self._ids = np.concatenate([np.empty(0, np.int64), *ids])[order]

    def find(self, name: str, version: str) -> tuple[int, bool] | None:
        """The id of an image and whether it is there in this version; `None` if it is not there at all."""
        key, check = _hash_pair(name)
        position = int(np.searchsorted(self._names, np.uint64(key)))
        while position < len(self._names) and int(self._names[position]) == key:
            if int(self._checks[position]) == check:
                return int(self._ids[position]), int(self._versions[position]) == _hash_pair(version)[0]
            position += 1
        return None


def _hash_pair(text: str | None) -> tuple[int, int]:
    digest = _digest(text or "")
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


@dataclass(slots=True)
class _Decoded:
    item: ImageItem
    name: str = ""
    version: str = ""
    existing_id: int | None = None
    image: Image.Image | None = None  # None: skipped or failed
    failure: FailedImage | None = None

    @property
    def pixels(self) -> int:
        return 0 if self.image is None else self.image.width * self.image.height


class _Decoder:
    """Decodes items in order, in threads, ahead of the caller by at most `ahead` images and the pixel budget."""

    def __init__(self, indexed: IndexedImages, workers: int, ahead: int, pixel_budget: int) -> None:
        self._indexed = indexed
        self._workers = workers
        self._ahead = ahead
        self._budget = pixel_budget
        self._held = 0  # pixels decoded and not yet released
        self._wanted = 0  # position of the item that the caller takes next
        self._stopped = False
        self._changed = threading.Condition()

    def decode(self, item: ImageItem, position: int) -> _Decoded:
        """The item at a position of the input, in whatever thread."""
        result = _Decoded(item)
        try:
            result.name, result.version = item.name_and_version()
            result.name.encode()  # file names that are not valid Unicode cannot be stored as text
            found = self._indexed.find(result.name, result.version)
            if found is not None:
                result.existing_id = found[0]
                if found[1]:
                    return result
            with self._changed:
                # the item that the caller waits for may always go on: later ones may hold the whole budget
                self._changed.wait_for(lambda: self._held < self._budget or self._wanted == position or self._stopped)
                if self._stopped:
                    return result
            result.image = item.load()
        except ImageReadError as error:
            result.failure = FailedImage(item.label, error.reason)
        except UnicodeEncodeError:
            result.failure = FailedImage(repr(item.label), "the file name is not valid Unicode")
        with self._changed:
            self._held += result.pixels
        return result

    def release(self, pixels: int) -> None:
        """Says that images of so many pixels are not needed any more."""
        with self._changed:
            self._held -= pixels
            self._changed.notify_all()

    @contextmanager
    def running(self, items: Iterable[ImageItem]) -> Iterator[Iterator[_Decoded]]:
        """The results in order; leaving the context stops the threads and drops what is in flight."""
        if self._workers == 0:
            yield self._results_in_this_thread(items)
            return
        executor = ThreadPoolExecutor(self._workers, thread_name_prefix="reid_zoo-decode")
        try:
            yield self._results(executor, enumerate(items))
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            executor.shutdown(wait=True, cancel_futures=True)

    def _results_in_this_thread(self, items: Iterable[ImageItem]) -> Iterator[_Decoded]:
        for position, item in enumerate(items):
            self._want(position)
            yield self.decode(item, position)

    def _want(self, position: int) -> None:
        with self._changed:
            self._wanted = position
            self._changed.notify_all()

    def _results(self, executor: ThreadPoolExecutor, items: Iterator[tuple[int, ImageItem]]) -> Iterator[_Decoded]:
        pending: deque[Future[_Decoded]] = deque()
        for taken in itertools.count():
            while len(pending) < self._ahead and (next_item := next(items, None)) is not None:
                position, item = next_item
                pending.append(executor.submit(self.decode, item, position))
            if not pending:
                return
            self._want(taken)
            yield pending.popleft().result()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Lets Ctrl-C wait for the end of the block: a commit given up half-way might still reach the disk afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets KeyboardInterrupt
        return
    received: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)
    if received:
        if callable(before):
            before(signal.SIGINT, received[0])
        elif before is not signal.SIG_IGN:
            raise KeyboardInterrupt


@dataclass(slots=True)
class _Row:
    existing_id: int | None
    vector: np.ndarray
    tokens: np.ndarray | None
    mask: np.ndarray | None
    columns: Mapping[str, Any]


class _Writer:
    """Collects encoded rows and commits them in batches."""

    def __init__(self, store: GalleryStore, token_index: TokenIndex, reserve_ids: Callable[[int], int]) -> None:
        self._store = store
        self._token_index = token_index
        self._reserve_ids = reserve_ids
        self._rows: list[_Row] = []
        self._token_bytes = 0
        self._last_commit = time.monotonic()
        self.added = 0
        self.replaced = 0

    def add(self, decoded: Sequence[_Decoded], images: ImageEmbeddings) -> None:
        """Takes over encoded images; commits when it is time."""
        nothing = [None] * len(decoded)
        tokens = nothing if images.tokens is None else images.tokens
        mask = nothing if images.mask is None else images.mask
        for one, vector, its_tokens, its_mask in zip(decoded, images.vectors, tokens, mask, strict=True):
            own = {IMAGE_COLUMN: one.name, VERSION_COLUMN: one.version}
            self._rows.append(_Row(one.existing_id, vector, its_tokens, its_mask, {**one.item.metadata, **own}))
        self._token_bytes += 0 if images.tokens is None else images.tokens.nbytes
        enough = len(self._rows) >= COMMIT_ROWS or self._token_bytes >= COMMIT_TOKEN_BYTES
        if enough or time.monotonic() - self._last_commit >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Writes what was collected; when that fails, a later run has to encode these images again."""
        rows, self._rows = self._rows, []
        self._token_bytes = 0
        if rows:
            fresh = sum(row.existing_id is None for row in rows)
            with _uninterrupted():
                new_ids = itertools.count(self._reserve_ids(fresh) if fresh else 0)
                ids = np.array(
                    [next(new_ids) if row.existing_id is None else row.existing_id for row in rows], np.int64
                )
                names = dict.fromkeys(name for row in rows for name in row.columns)
                known = self._store.schema.columns  # a column without any value was never made
                columns = {name: [row.columns.get(name) for row in rows] for name in names if name in known}
                vectors = np.stack([row.vector for row in rows])
                tokens = [row.tokens for row in rows if row.tokens is not None]
                if tokens:
                    mask = np.stack([row.mask for row in rows if row.mask is not None])
                    self._token_index.upsert(ids, ImageEmbeddings(vectors, np.stack(tokens), mask), columns)
                else:
                    self._store.upsert(ids, vectors, columns)
            self.added += len(rows)
            self.replaced += len(rows) - fresh
        self._last_commit = time.monotonic()


def add_images(
    store: GalleryStore,
    encoder: Encoder,
    items: Sequence[ImageItem],
    *,
    token_index: TokenIndex,
    reserve_ids: Callable[[int], int],
    batch_size: int,
    num_workers: int,
    progress: bool,
    pixel_budget: int = PIXEL_BUDGET,
) -> AddReport:
    """Indexes images; see `Gallery.add`, which checks the arguments.

    Args:
        store: Where the rows go; it has all columns that the items use.
        encoder: The model.
        items: The images.
        token_index: Where the tokens go, of models that score by late interaction.
        reserve_ids: Gives the first of so many new consecutive ids, which nobody else gets.
        batch_size: Images per call of the model; fewer where they are large.
        num_workers: Decoding threads; 0 decodes in this thread, between the model's batches.
        progress: Whether a bar is shown on stderr.
        pixel_budget: Pixels that may be decoded ahead.
    """
    from tqdm import tqdm

    indexed = IndexedImages(store, with_tokens=late_interaction(encoder) is not None)
    decoder = _Decoder(indexed, num_workers, 2 * batch_size + num_workers, pixel_budget)
    writer = _Writer(store, token_index, reserve_ids)
    seen: set[bytes] = set()
    failed: list[FailedImage] = []
    batch: list[_Decoded] = []
    skipped = 0

    def encode() -> None:
        images = [one.image for one in batch if one.image is not None]
        writer.add(batch, encode_images(encoder, images, [one.item.metadata for one in batch]))
        decoder.release(sum(one.pixels for one in batch))
        batch.clear()

    bar = tqdm(total=len(items), desc="indexing", unit="img", disable=not progress)
    with bar, decoder.running(items) as results:
        try:
            for one in results:
                key = _digest(one.name)
                if one.failure is not None:
                    failed.append(one.failure)
                elif one.image is None or key in seen:
                    skipped += 1
                    decoder.release(one.pixels)
                elif problem := label_problem(encoder, one.item.metadata):
                    failed.append(FailedImage(one.item.label, problem))
                    decoder.release(one.pixels)
                else:
                    seen.add(key)
                    batch.append(one)
                    if len(batch) >= batch_size or sum(each.pixels for each in batch) >= pixel_budget // 2:
                        encode()
                bar.update()
            if batch:
                encode()
            writer.commit()
        except BaseException:
            # Ctrl-C, or a model that failed: what is encoded is kept, the batch in flight dropped. (After a failed
            # commit nothing is left to write.)
            with contextlib.suppress(GalleryError):
                writer.commit()
            raise
    return AddReport(writer.added, skipped, tuple(failed), writer.replaced)
