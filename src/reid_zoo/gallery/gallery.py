"""`Gallery`: images one can search by description, by picture and by metadata, kept on disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..errors import GalleryError, ModelMismatchError, QueryError
from .engines.base import ColumnType, GalleryStore, StoreSchema
from .engines.durability import write_durably
from .engines.lance import LanceStore
from .filters import Filter, parse_filter
from .identity import ModelIdentity
from .ingest import AddReport, FailedImage, ImageSource, decode_ahead, image_sources

if TYPE_CHECKING:
    from ..encoding import PersonEncoder

__all__ = ["Gallery", "GalleryHit"]

_DESCRIPTION = "gallery.json"
_FORMAT = 1
_SIZE, _MTIME = "_size", "_mtime"
"""Columns of our own; a leading underscore keeps them out of filters and hits."""

_BASE_COLUMNS = {"image": ColumnType.STRING, _SIZE: ColumnType.INT, _MTIME: ColumnType.INT}
_ROWS_PER_COMMIT = 256
_ROWS_PER_LOOKUP = 256


@dataclass(frozen=True, slots=True)
class GalleryHit:
    """One answer; also readable like a dictionary, `hit["rank"]`.

    Attributes:
        rank: 1 for the best.
        score: The model's score, larger is better; not a probability.
        image: Path of the image.
        id: Id of the row, for `delete`.
        metadata: Its metadata columns.
        exact: Whether the search was exact (very large galleries are searched approximately).
    """

    rank: int
    score: float
    image: str
    id: int
    metadata: Mapping[str, Any]
    exact: bool = True

    def __getitem__(self, name: str) -> Any:
        if name not in self.__slots__:
            raise KeyError(name)
        return getattr(self, name)


class Gallery:
    """A durable index of person images. Use `create` or `open`, not the constructor.

    What `add` has committed survives the death of the process; several processes may add to one gallery.

    Example:
        >>> with Gallery.create("people.gallery", encoder=PersonEncoder.from_pretrained("org/cfine-cuhk")) as gallery:
        ...     gallery.add("people/")
        ...     hits = gallery.search("a man in a blue jacket", top_k=10, where="camera_id = 3")
    """

    def __init__(
        self,
        path: Path,
        store: GalleryStore,
        encoder: PersonEncoder | None,
        encoder_loader: Callable[[ModelIdentity], PersonEncoder] | None,
    ) -> None:
        self.path = path
        self._store = store
        self._encoder = encoder
        self._encoder_loader = encoder_loader
        if encoder is not None:
            self.check_identity(encoder.identity)

    # ------------------------------------------------------------------------------------------------ making, opening

    @staticmethod
    def is_gallery(path: str | os.PathLike[str]) -> bool:
        """Whether there is a gallery in that folder."""
        return (Path(path) / _DESCRIPTION).is_file()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        encoder: PersonEncoder | None = None,
        *,
        identity: ModelIdentity | None = None,
        exist_ok: bool = False,
        **options: Any,
    ) -> Self:
        """Make an empty gallery.

        Args:
            path: Folder to make it in.
            encoder: The model it is for.
            identity: The model's identity, if there is no encoder (vectors are then added by other means).
            exist_ok: Open a gallery that is there already.
            options: Of the engine: `matrix_bytes`, `optimize_every`, `keep_versions`.

        Raises:
            GalleryError: If there is something else in that place, or it cannot be written.
            ModelMismatchError: With `exist_ok`, if the gallery there belongs to another model.
        """
        folder = Path(path)
        if cls.is_gallery(folder):
            if exist_ok:
                return cls.open(folder, encoder, **options)
            raise GalleryError(f"{folder} is a gallery already; open it, or choose another place.")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise GalleryError(f"{folder} exists and is not a gallery; choose another place.")
        if encoder is not None:
            identity = encoder.identity
        if identity is None:
            raise GalleryError("Gallery.create needs an encoder, or the identity of the model it is for.")
        existed = folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            store = LanceStore.create(str(folder), StoreSchema(identity, dict(_BASE_COLUMNS)), **options)
            # Written last: a folder with this file has a complete table.
            write_durably(folder / _DESCRIPTION, json.dumps({"format": _FORMAT, "engine": "lance"}).encode())
        except OSError as error:
            if not existed:
                shutil.rmtree(folder, ignore_errors=True)
            raise GalleryError(f"cannot make a gallery in {folder}: {error.strerror or error}.") from error
        return cls(folder, store, encoder, None)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        encoder: PersonEncoder | None = None,
        *,
        encoder_loader: Callable[[ModelIdentity], PersonEncoder] | None = None,
        **options: Any,
    ) -> Self:
        """Open a gallery.

        Args:
            path: Its folder.
            encoder: The model to search with.
            encoder_loader: Called with the recorded identity when a search first needs the model.
            options: Of the engine, see `create`.

        Raises:
            GalleryError: If there is no gallery there, or it is damaged.
            ModelMismatchError: If the gallery was made by another model.
        """
        folder = Path(path)
        if not folder.exists():
            raise GalleryError(f"{folder} does not exist; make a gallery with `reid-zoo index` or Gallery.create.")
        if not cls.is_gallery(folder):
            raise GalleryError(f"{folder} is not a gallery (it has no {_DESCRIPTION}).")
        try:
            description = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
            written = description["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise GalleryError(f"{folder / _DESCRIPTION} cannot be read ({error}); the gallery is damaged.") from error
        if written != _FORMAT:
            raise GalleryError(f"{folder} has gallery format {written}, this version reads format {_FORMAT}.")
        store = LanceStore.open(str(folder), **options)
        return cls(folder, store, encoder, encoder_loader)

    def close(self) -> None:
        """Finish; may be called twice."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._store.count()

    # ------------------------------------------------------------------------------------------------------ the model

    @property
    def identity(self) -> ModelIdentity:
        """The model that the gallery was made with."""
        return self._store.schema.identity

    def check_identity(self, identity: ModelIdentity) -> None:
        """Refuse a model that the vectors do not come from.

        Raises:
            ModelMismatchError: Naming both models.
        """
        if not identity.matches(self.identity):
            raise ModelMismatchError(
                f"{self.path} was made by {self.identity.describe()}, not by {identity.describe()}; use that model, or "
                "index the images again into another gallery."
            )

    @property
    def encoder(self) -> PersonEncoder:
        """The model, loaded when first needed if the gallery was opened with a loader.

        Raises:
            GalleryError: If there is no model.
            ModelMismatchError: If the loader gave another one than the gallery was made with.
        """
        if self._encoder is None:
            if self._encoder_loader is None:
                raise GalleryError(
                    f"{self.path} was opened without a model: give Gallery.open the encoder of "
                    f"{self.identity.describe()}, or search with vectors."
                )
            encoder = self._encoder_loader(self.identity)
            self.check_identity(encoder.identity)
            self._encoder = encoder
        return self._encoder

    # ----------------------------------------------------------------------------------------------------- adding rows

    def add(
        self,
        images: Any,
        *,
        metadata: Mapping[str, Mapping[str, Any]] | None = None,
        batch_size: int = 32,
        num_workers: int = 2,
        progress: bool = True,
    ) -> AddReport:
        """Index images. An image that is there already (same path, size and time of change) is skipped.

        Decoding runs in threads beside the model, in batches; memory does not depend on the number of images. Files that
        cannot be read are reported and do no harm. What has been committed stays if the run is interrupted; running it
        again continues.

        Args:
            images: A folder, a file, or a list of files, folders, PIL images and records.
            metadata: File name or path → values to filter by later; records bring their own.
            batch_size: Images encoded at once.
            num_workers: Decoding threads.
            progress: Show a progress bar.

        Raises:
            DatasetError: If a folder is missing or holds no image.
            GalleryError: If a metadata value does not fit its column, or nothing more can be written.
        """
        from tqdm.auto import tqdm

        encoder = self.encoder
        sources = image_sources(images, metadata)
        added = skipped = 0
        failed: list[FailedImage] = []
        pending: list[tuple[ImageSource, np.ndarray]] = []
        with tqdm(total=len(sources), desc="indexing", unit="image", disable=not progress) as bar:

            def missing() -> Iterator[ImageSource]:
                nonlocal skipped
                for start in range(0, len(sources), _ROWS_PER_LOOKUP):
                    chunk = sources[start : start + _ROWS_PER_LOOKUP]
                    known = self._known(chunk)
                    for source in chunk:
                        if known.get(source.id) == (source.size, source.mtime):
                            skipped += 1
                            bar.update()
                        else:
                            yield source

            def batches() -> Iterator[list[ImageSource]]:
                remaining = missing()
                while batch := list(islice(remaining, batch_size)):
                    yield batch

            decoded = decode_ahead(batches(), target_size=encoder.processor.image_size, num_workers=num_workers)
            try:
                for ready, pictures, unreadable in decoded:
                    failed += unreadable
                    if ready:
                        pending += zip(ready, encoder.encode_images(pictures), strict=True)
                    bar.update(len(ready) + len(unreadable))
                    if len(pending) >= _ROWS_PER_COMMIT:
                        added += self._write(pending)
                        pending = []
            finally:
                decoded.close()  # type: ignore[attr-defined]
                if pending:  # also after Ctrl-C: what was encoded is kept
                    added += self._write(pending)
        return AddReport(added, skipped, tuple(failed))

    def _known(self, sources: Sequence[ImageSource]) -> dict[int, tuple[int, int]]:
        rows = self._store.get([source.id for source in sources], columns=[_SIZE, _MTIME])
        return {
            int(row): (size, mtime)
            for row, size, mtime in zip(rows.ids, rows.columns[_SIZE], rows.columns[_MTIME], strict=True)
        }

    def _write(self, rows: Sequence[tuple[ImageSource, np.ndarray]]) -> int:
        sources = [source for source, _ in rows]
        names = sorted({name for source in sources for name in source.metadata})
        columns: dict[str, list[Any]] = {
            "image": [source.name for source in sources],
            _SIZE: [source.size for source in sources],
            _MTIME: [source.mtime for source in sources],
        }
        known = self._store.schema.columns
        new: dict[str, ColumnType] = {}
        for name in names:
            values = [source.metadata.get(name) for source in sources]
            columns[name] = values
            present = [value for value in values if value is not None]
            if name not in known and present:
                new[name] = _column_type(name, present)
        if new:
            self._store.add_columns(new)
        columns = {name: values for name, values in columns.items() if name in known or name in new}
        vectors = np.stack([vector for _, vector in rows])
        self._store.upsert(np.array([source.id for source in sources], dtype=np.int64), vectors, columns)
        return len(rows)

    # ------------------------------------------------------------------------------------------------------- searching

    def search(self, query: Any, top_k: int = 10, where: str | Filter | None = None) -> list[Any]:
        """Find the images that fit best.

        Args:
            query: A description (`str`), an image (PIL image, or its file as a `Path`), a vector `(D,)`; or a list of any
                of these, or vectors `(Q, D)`.
            top_k: Number of answers; a smaller gallery gives all it has.
            where: Only images whose metadata match, e.g. `"camera_id = 3 and time >= '2024-05-01'"`.

        Returns:
            [`GalleryHit`]s, best first; equal scores in ascending order of ids. For a list of queries a list of lists.

        Raises:
            QueryError: For an empty query, one of another kind, or `top_k` below 1.
            FilterError: If `where` cannot be understood.
        """
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
            raise QueryError(f"top_k is {top_k!r}, but must be a whole number of at least 1.")
        condition = parse_filter(where) if isinstance(where, str) else where
        several = isinstance(query, list | tuple) or (isinstance(query, np.ndarray) and query.ndim == 2)
        vectors = self._query_vectors(list(query) if several else [query])
        result = self._store.search(vectors, top_k, where=condition)
        wanted = np.unique(result.ids[result.ids >= 0])
        names = [name for name in self._store.schema.columns if not name.startswith("_")]
        rows = self._store.get(wanted, columns=names)
        values = {int(row): {name: rows.columns[name][index] for name in names} for index, row in enumerate(rows.ids)}
        answers = []
        for ids, scores in zip(result.ids, result.scores, strict=True):
            hits: list[GalleryHit] = []
            for identifier, score in zip(ids.tolist(), scores.tolist(), strict=True):
                if identifier not in values:  # padding, or deleted by another process meanwhile
                    continue
                metadata = {name: value for name, value in values[identifier].items() if value is not None}
                hits.append(GalleryHit(len(hits) + 1, score, metadata.pop("image"), identifier, metadata, result.exact))
            answers.append(hits)
        return answers if several else answers[0]

    def _query_vectors(self, queries: Sequence[Any]) -> np.ndarray:
        from PIL import Image

        from ..data.images import load_image

        if not queries:
            raise QueryError("the list of queries is empty.")
        vectors = []
        for query in queries:
            if isinstance(query, str):
                if not query.strip():
                    raise QueryError("the query is empty; describe the person in words.")
                vectors.append(self.encoder.encode_texts([query])[0])
            elif isinstance(query, os.PathLike):
                vectors.append(self.encoder.encode_images([load_image(Path(query))])[0])
            elif isinstance(query, Image.Image):
                vectors.append(self.encoder.encode_images([query.convert("RGB")])[0])
            elif isinstance(query, np.ndarray) and query.ndim == 1:
                if len(query) != self.identity.embedding_size:
                    raise ModelMismatchError(
                        f"the query vector has {len(query)} values, but {self.path} was made by {self.identity.describe()}."
                    )
                vectors.append(query.astype(np.float32))
            else:
                raise QueryError(f"cannot search for {type(query).__name__}; give text, an image, a Path or a vector.")
        return np.stack(vectors)

    # ---------------------------------------------------------------------------------------------------- looking after

    def delete(self, ids: Sequence[int] | None = None, where: str | Filter | None = None) -> int:
        """Delete images by id, or all that match; the files themselves are left alone.

        Returns:
            Number of rows deleted.

        Raises:
            GalleryError: If neither or both are given.
        """
        if (ids is None) == (where is None):
            raise GalleryError("Gallery.delete needs ids or where, one of them.")
        condition = parse_filter(where) if isinstance(where, str) else where
        return self._store.delete(ids=ids, where=condition)

    def compact(self) -> None:
        """Free the space of replaced and deleted rows."""
        self._store.optimize()

    def info(self) -> dict[str, Any]:
        """Rows, bytes, model and columns."""
        stats = self._store.stats()
        columns = self._store.schema.columns
        return {
            "path": str(self.path),
            "rows": stats.rows,
            "bytes": stats.bytes,
            "version": stats.version,
            "model": self.identity.to_dict(),
            "columns": {name: str(kind) for name, kind in columns.items() if not name.startswith("_")},
        }


def _column_type(name: str, values: Sequence[Any]) -> ColumnType:
    """Type of a new metadata column from its first values."""
    if name.startswith("_"):
        raise GalleryError(f"metadata column '{name}': names that start with an underscore are kept for the gallery.")
    if all(isinstance(value, bool) for value in values):
        return ColumnType.BOOL
    if any(isinstance(value, bool) for value in values):
        raise GalleryError(f"metadata column '{name}' mixes true/false with other values.")
    if all(isinstance(value, int | np.integer) for value in values):
        return ColumnType.INT
    if all(isinstance(value, int | float | np.number) for value in values):
        return ColumnType.FLOAT
    if all(isinstance(value, str) for value in values):
        return ColumnType.STRING
    if all(isinstance(value, list | tuple) for value in values):
        return ColumnType.STRINGS
    raise GalleryError(f"metadata column '{name}' mixes text with numbers; give all values of one type.")
