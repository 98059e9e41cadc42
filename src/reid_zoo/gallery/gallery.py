"""`Gallery`: a durable, searchable index of person images.

On disk a gallery is one directory:

    people.gallery/
        gallery.json        format and engine
        next_id             the next free row id
        table.lance/        vectors and metadata (the engine's)
        matrix/             derived, for exact search; may be deleted at any time
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..errors import FilterError, GalleryError, ModelMismatchError, QueryError
from ..model_identity import ModelIdentity
from .engines.base import ColumnType, GalleryStore, StoreSchema
from .engines.durability import fsync_path, write_durably
from .engines.storage_errors import storage_errors
from .filters import Filter, parse_filter
from .image_sources import IMAGE_COLUMN, VERSION_COLUMN, Metadata, collect_items, infer_columns
from .ingest import AddReport, Encoder, add_images
from .queries import encode_queries

__all__ = ["Gallery", "GalleryHit", "GalleryInfo"]

_FILE = "gallery.json"
_FORMAT = "reid_zoo gallery"
_FORMAT_VERSION = 1
_NEXT_ID = "next_id"


@dataclass(frozen=True, slots=True)
class GalleryHit:
    """One answer of a search; `hit["score"]` is `hit.score`.

    Attributes:
        rank: 1 for the best.
        score: The model's score: inner product of query and image embedding.
        image: Absolute path of the image, or `memory:<hash>` (`image_name`) for one that was added without a file.
        id: Row id in the gallery, for `delete`.
        metadata: Column → value; columns without a value are left out.
        exact: Whether the search it belongs to was exact.
    """

    rank: int
    score: float
    image: str
    id: int
    metadata: Mapping[str, Any]
    exact: bool = True

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def keys(self) -> tuple[str, ...]:
        """Names of the fields; with `[]` this makes `dict(hit)` work."""
        return ("rank", "score", "image", "id", "metadata", "exact")


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """Facts about a gallery.

    Attributes:
        path: Its directory.
        rows: Number of images.
        bytes: Size on disk.
        identity: The model it was made with.
        columns: Metadata columns and their types.
        version: Changes with every change of the rows.
        format_version: Of the directory's layout.
        engine: Name of the engine.
        search: `"exact"`, or the name of the approximate index that answers large searches.
    """

    path: Path
    rows: int
    bytes: int
    identity: ModelIdentity
    columns: Mapping[str, str]
    version: str
    format_version: int
    engine: str
    search: str


class Gallery:
    """A durable index of person images, searched by sentence, image or vector.

    Made by `Gallery.create` and `Gallery.open`. Several processes may use one gallery at once. A gallery is a context
    manager that closes itself.
    """

    def __init__(
        self,
        path: Path,
        store: GalleryStore,
        *,
        encoder: Encoder | None,
        encoder_loader: Callable[[ModelIdentity], Encoder] | None,
    ) -> None:
        self.path = path
        self._store = store
        self._encoder: Encoder | None = None
        self._encoder_loader = encoder_loader
        if encoder is not None:
            self._use_encoder(encoder)

    # ------------------------------------------------------------------------------------------------ life of a gallery

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        encoder: Encoder | None = None,
        *,
        identity: ModelIdentity | None = None,
        exist_ok: bool = False,
        encoder_loader: Callable[[ModelIdentity], Encoder] | None = None,
        matrix_bytes: int = 2_000_000_000,
    ) -> Self:
        """Makes an empty gallery.

        Args:
            path: Directory that does not exist or is empty; its parents are made.
            encoder: The model whose embeddings it will hold.
            identity: The model, where `encoder` is not at hand; one of the two is needed.
            exist_ok: Open the gallery if there is one already (it must belong to the same model).
            encoder_loader: As of `open`.
            matrix_bytes: As of `open`.

        Raises:
            GalleryError: If there is something at the path already, or it cannot be written.
            ModelMismatchError: If the existing gallery belongs to another model.
        """
        if identity is None and encoder is None:
            raise GalleryError("a gallery belongs to a model: give encoder= or identity=")
        if identity is not None and encoder is not None and not identity.matches(encoder.identity):
            raise ModelMismatchError(
                f"identity= is {identity.describe()}, but encoder= is {encoder.identity.describe()}; give one of them"
            )
        identity = identity or encoder.identity  # type: ignore[union-attr]
        directory = Path(os.path.abspath(os.fspath(path)))
        if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
            if not (directory / _FILE).is_file():
                raise GalleryError(
                    f"{directory}: is {'not empty' if directory.is_dir() else 'a file'} and not a gallery; "
                    "choose another path"
                )
            if not exist_ok:
                raise GalleryError(f"{directory}: there is a gallery already; open it or choose another path")
            gallery = cls.open(directory, encoder, encoder_loader=encoder_loader, matrix_bytes=matrix_bytes)
            try:
                gallery.check_identity(identity)
            except GalleryError:
                gallery.close()
                raise
            return gallery
        _make_directory(directory, identity)
        return cls.open(directory, encoder, encoder_loader=encoder_loader, matrix_bytes=matrix_bytes)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        encoder: Encoder | None = None,
        *,
        encoder_loader: Callable[[ModelIdentity], Encoder] | None = None,
        matrix_bytes: int = 2_000_000_000,
    ) -> Self:
        """Opens a gallery.

        Args:
            path: Its directory.
            encoder: The model it was made with. Without it, only vectors can be searched for, and nothing added.
            encoder_loader: Called with the gallery's model once it is first needed, where `encoder` is `None`.
            matrix_bytes: Size of the vectors in float16 up to which search is exact; beyond, searches of more rows than
                this use a compressed index once `compact` has built it, and say so in `GalleryHit.exact`.

        Raises:
            GalleryError: If there is no gallery, or it is damaged or of a newer format.
            ModelMismatchError: If the encoder is not the model that the gallery was made with.
        """
        directory = Path(os.path.abspath(os.fspath(path)))
        _read_description(directory)
        from .engines.lance import LanceStore

        store = LanceStore.open(str(directory), matrix_bytes=matrix_bytes)
        try:
            return cls(directory, store, encoder=encoder, encoder_loader=encoder_loader)
        except BaseException:
            store.close()
            raise

    @staticmethod
    def is_gallery(path: str | os.PathLike[str]) -> bool:
        """Whether there is a gallery at that place."""
        return (Path(path) / _FILE).is_file()

    def close(self) -> None:
        """Closes the gallery; may be called twice."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._store.count()

    def __repr__(self) -> str:
        return f"Gallery({str(self.path)!r}, model={self.identity.name!r})"

    @property
    def identity(self) -> ModelIdentity:
        """The model whose embeddings the gallery holds."""
        return self._store.schema.identity

    @property
    def columns(self) -> dict[str, ColumnType]:
        """Metadata columns, which `where` can name, and their types."""
        return {name: kind for name, kind in self._store.schema.columns.items() if not name.startswith("_")}

    def check_identity(self, identity: ModelIdentity) -> None:
        """Refuses a model that the vectors do not come from.

        Raises:
            ModelMismatchError: Naming both models.
        """
        if not self.identity.matches(identity):
            raise ModelMismatchError(
                f"{self.path}: this gallery was made with {self.identity.describe()}, not with {identity.describe()}; "
                "use that model, or index into a new gallery"
            )

    def _use_encoder(self, encoder: Encoder) -> Encoder:
        self.check_identity(encoder.identity)
        self._encoder = encoder
        return encoder

    def _need_encoder(self, purpose: str) -> Encoder:
        if self._encoder is not None:
            return self._encoder
        if self._encoder_loader is None:
            raise GalleryError(
                f"{self.path}: {purpose} needs the model {self.identity.describe()}; "
                "open the gallery with encoder= or encoder_loader="
            )
        return self._use_encoder(self._encoder_loader(self.identity))

    # ------------------------------------------------------------------------------------------------------- writing

    def add(
        self,
        images: Any,
        *,
        metadata: Metadata | None = None,
        batch_size: int = 32,
        num_workers: int = 2,
        progress: bool = True,
    ) -> AddReport:
        """Encodes images and stores them; may be interrupted and run again.

        A file is known by its absolute path, size and modification time: one that is in the gallery already is
        skipped, a changed one replaces its row and metadata. A PIL image is known by its pixels. Skipped
        images keep the metadata they have. Files that cannot be read are reported, not raised.

        Ctrl-C stores what is encoded, drops the batch in flight and raises `KeyboardInterrupt`.

        Args:
            images: A folder (searched recursively), a file, a PIL image, a `PersonRecord`, or an iterable of paths, PIL
                images and records (such as a `PersonDataset`). Captions, person, camera and metadata of a record
                become the columns `captions`, `person_id`, `camera_id` and those of its metadata.
            metadata: Further columns: a mapping of name to one value for all or to a list with one value per image; or
                a list with one mapping per image, in the order of `images` (a folder's is that of `find_images`).
                Values are str, int, float, bool or lists of str; `None` is a missing value.
            batch_size: Images per call of the model.
            num_workers: Threads that decode ahead of the model; 0 decodes in between.
            progress: Whether a progress bar is shown on stderr.

        Returns:
            How many images were added, skipped (with those twice in the input) and replaced, and the failed ones.

        Raises:
            GalleryError: If the disk is full, a value does not fit its column, or there is nothing to add. Rows
                committed before stay.
            DatasetError: If the folder is missing or has no image.
        """
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise GalleryError(f"{name} is {value!r}; it must be a whole number of at least {least}")
        items = collect_items(images, metadata)
        new_columns = infer_columns(items, self._store.schema.columns)
        encoder = self._need_encoder("adding images")
        if new_columns:
            self._store.add_columns(new_columns)
        return add_images(
            self._store,
            encoder,
            items,
            reserve_ids=self._reserve_ids,
            batch_size=batch_size,
            num_workers=num_workers,
            progress=progress,
        )

    def _reserve_ids(self, count: int) -> int:
        from filelock import FileLock

        counter = self.path / _NEXT_ID
        with storage_errors(self.path, "reserve row ids"), FileLock(f"{counter}.lock"):
            try:
                first = int(counter.read_text("ascii"))
            except (FileNotFoundError, ValueError):
                first = self._first_free_id()
            write_durably(counter, str(first + count).encode())
        return first

    def _first_free_id(self) -> int:
        return max((int(batch.ids.max()) + 1 for batch in self._store.scan(columns=[]) if len(batch)), default=0)

    def delete(self, ids: Sequence[int] | np.ndarray | int | None = None, where: str | Filter | None = None) -> int:
        """Deletes images by row id, or all that match a filter.

        Args:
            ids: Row ids (`GalleryHit.id`); unknown ones are passed over.
            where: A filter; exactly one of the two is given.

        Returns:
            Number of rows deleted. The files of the images are not touched. The deleted vectors leave the disk with
            `compact`.

        Raises:
            GalleryError: If both or none are given.
            FilterError: If the expression is wrong.
        """
        if (ids is None) == (where is None):
            raise GalleryError("delete: give either ids or where")
        if where is not None:
            return self._store.delete(where=_filter(where))
        try:
            chosen = np.asarray([ids] if isinstance(ids, int | np.integer) else ids)
            if chosen.size and chosen.dtype.kind not in "iu":
                raise ValueError
        except ValueError:
            raise GalleryError(f"delete: ids are whole numbers, not {ids!r}") from None
        return self._store.delete(ids=chosen.astype(np.int64).reshape(-1))

    def compact(self) -> None:
        """Merges small files, frees the space of deleted and replaced rows, and brings the index up to date."""
        self._store.optimize(reclaim=True)

    # ------------------------------------------------------------------------------------------------------ searching

    def search(self, query: Any, top_k: int = 10, where: str | Filter | None = None) -> list[Any]:
        """The images that fit a query best.

        Args:
            query: A sentence; a PIL image; the `Path` of an image (or a string that is the path of an existing file
                with an image's ending); a vector (D,) or several (Q, D), used as they are; or a list of sentences and
                images.
            top_k: Number of answers, at least 1; more than there are images gives them all.
            where: A filter, e.g. `"camera_id = 3 and time >= '2024-05-01'"`, or a tree from `gallery.filters`.

        Returns:
            A list of `GalleryHit`, best first (of equal scores, the image added first); for a list of queries or a
            (Q, D) array, one such list per query.

        Raises:
            QueryError: If the query is empty or of another type, an image cannot be read, or `top_k` < 1.
            FilterError: If the filter is wrong or names a column that does not exist.
            GalleryError: If a sentence or image is given and there is no model to encode it.
        """
        if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
            raise QueryError(f"top_k is {top_k!r}; it must be a whole number of at least 1")
        condition = None if where is None else _filter(where)
        vectors, single = encode_queries(query, self.identity.embedding_size, self._need_encoder)
        if not len(vectors):
            return []
        result = self._store.search(vectors, int(top_k), where=condition)
        hits = self._hits(result.ids, result.scores, result.exact)
        return hits[0] if single else hits

    def _hits(self, ids: np.ndarray, scores: np.ndarray, exact: bool) -> list[list[GalleryHit]]:
        distinct = np.unique(ids[ids >= 0])
        rows = self._store.get(distinct)
        values: dict[int, tuple[str, dict[str, Any]]] = {}
        for row, row_id in enumerate(rows.ids.tolist()):
            metadata = {name: column[row] for name, column in rows.columns.items() if column[row] is not None}
            metadata.pop(VERSION_COLUMN, None)
            values[row_id] = (metadata.pop(IMAGE_COLUMN, ""), metadata)
        answers = []
        for query_ids, query_scores in zip(ids.tolist(), scores.tolist(), strict=True):
            hits: list[GalleryHit] = []
            for row_id, score in zip(query_ids, query_scores, strict=True):
                if row_id in values:  # a row that another process deleted meanwhile is no answer any more
                    image, metadata = values[row_id]
                    hits.append(GalleryHit(len(hits) + 1, score, image, row_id, metadata, exact))
            answers.append(hits)
        return answers

    def info(self) -> GalleryInfo:
        """Rows, bytes, model, columns and version."""
        stats = self._store.stats()
        description = _read_description(self.path)
        return GalleryInfo(
            path=self.path,
            rows=stats.rows,
            bytes=stats.bytes,
            identity=self.identity,
            columns={name: str(kind) for name, kind in self.columns.items()},
            version=stats.version,
            format_version=int(description["format_version"]),
            engine=str(description["engine"]),
            search=str(stats.details.get("search", "exact")),
        )


def _filter(where: str | Filter) -> Filter:
    if isinstance(where, str):
        return parse_filter(where)
    if not isinstance(where, Filter):
        raise FilterError(
            f'where is {type(where).__name__}; give an expression such as "camera_id = 3" or a filter tree'
        )
    return where


def _make_directory(directory: Path, identity: ModelIdentity) -> None:
    """Makes the directory complete under another name first, so that a gallery exists whole or not at all."""
    from .engines.lance import LanceStore

    temporary = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}.tmp")
    columns = {IMAGE_COLUMN: ColumnType.STRING, VERSION_COLUMN: ColumnType.STRING}
    try:
        temporary.mkdir(parents=True)
        LanceStore.create(str(temporary), StoreSchema(identity, columns)).close()
        description = {"format": _FORMAT, "format_version": _FORMAT_VERSION, "engine": "lance"}
        write_durably(temporary / _FILE, json.dumps(description, indent=1).encode())
        if directory.exists():
            directory.rmdir()
        temporary.rename(directory)
        fsync_path(directory.parent)
    except OSError as error:
        raise GalleryError(f"{directory}: cannot be made ({error.strerror or error}); choose another path") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_description(directory: Path) -> dict[str, Any]:
    if not directory.exists():
        raise GalleryError(f"{directory}: no such gallery; make it with Gallery.create or 'reid-zoo index'")
    file = directory / _FILE
    if not file.is_file():
        raise GalleryError(
            f"{directory}: is not a gallery (no {_FILE}); make one with Gallery.create or 'reid-zoo index'"
        )
    try:
        description = json.loads(file.read_text("utf-8"))
        if description["format"] != _FORMAT:
            raise ValueError(f"format {description['format']!r}")
        version = int(description["format_version"])
        engine = description["engine"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GalleryError(f"{file}: is damaged ({error!r}); restore it, or index into a new path") from error
    if version > _FORMAT_VERSION:
        raise GalleryError(
            f"{directory}: has format version {version}, this reid_zoo reads up to {_FORMAT_VERSION}; upgrade reid-zoo"
        )
    if engine != "lance":
        raise GalleryError(f"{directory}: needs the engine '{engine}', which this reid_zoo does not have")
    return dict(description)
