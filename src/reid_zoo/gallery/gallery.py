"""`Gallery`: a durable, searchable index of person images.

On disk a gallery is one directory:

    people.gallery/
        gallery.json        format and engine
        next_id             the next free row id
        table.lance/        vectors and metadata (the engine's)
        tokens.lance/       tokens of the images, of models that score by late interaction
        matrix/             derived, for exact search; may be deleted at any time
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..errors import FilterError, GalleryError, ModelMismatchError, QueryError
from ..model_identity import ModelIdentity
from .directory import DESCRIPTION_FILE, make_directory, read_description
from .encoder import Encoder, late_interaction
from .engines.base import ColumnType, GalleryStore
from .engines.durability import write_durably
from .engines.storage_errors import storage_errors
from .filters import Filter, parse_filter
from .image_sources import IMAGE_COLUMN, Metadata, collect_items, infer_columns
from .ingest import AddReport, add_images
from .late_interaction import RankedImages, TokenIndex
from .queries import EncodedQueries, encode_queries
from .results import GalleryHit, GalleryInfo

__all__ = ["Gallery", "GalleryHit", "GalleryInfo"]

_NEXT_ID = "next_id"


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
        self._token_index = TokenIndex(path, store)
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
            if not (directory / DESCRIPTION_FILE).is_file():
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
        make_directory(directory, identity)
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
        read_description(directory)
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
        return (Path(path) / DESCRIPTION_FILE).is_file()

    def close(self) -> None:
        """Closes the gallery; may be called twice."""
        self._token_index.close()
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
                become the columns `captions`, `person_id`, `camera_id` and those of its metadata. A model that uses
                the camera or the viewpoint of an image takes them from the columns `camera_id` and `view_id`, whole
                numbers from 0 as in its training.
            metadata: Further columns: a mapping of name to one value for all or to a list with one value per image; or
                a list with one mapping per image, in the order of `images` (a folder's is that of `find_images`).
                Values are str, int, float, bool or lists of str; `None` is a missing value.
            batch_size: Images per call of the model.
            num_workers: Threads that decode ahead of the model; 0 decodes in between.
            progress: Whether a progress bar is shown on stderr.

        Returns:
            How many images were added, skipped (with those twice in the input) and replaced, and the failed ones: those
            that cannot be read, or whose camera or viewpoint is none of the model's.

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
            token_index=self._token_index,
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
            return self._delete(where=_filter(where))
        try:
            chosen = np.asarray([ids] if isinstance(ids, int | np.integer) else ids)
            if chosen.size and chosen.dtype.kind not in "iu":
                raise ValueError
        except ValueError:
            raise GalleryError(f"delete: ids are whole numbers, not {ids!r}") from None
        return self._delete(ids=chosen.astype(np.int64).reshape(-1))

    def _delete(self, **chosen: Any) -> int:
        deleted = self._store.delete(**chosen)
        if deleted:
            with contextlib.suppress(GalleryError):  # without their rows, tokens are in nobody's way until `compact`
                self._token_index.remove_orphans()
        return deleted

    def compact(self) -> None:
        """Merges small files, frees the space of deleted and replaced rows, and brings the index up to date."""
        self._store.optimize(reclaim=True)
        self._token_index.compact()

    # ------------------------------------------------------------------------------------------------------ searching

    def search(
        self,
        query: Any,
        top_k: int = 10,
        where: str | Filter | None = None,
        *,
        candidates: int | None = None,
        camera_ids: Any = None,
        view_ids: Any = None,
    ) -> list[Any]:
        """The images that fit a query best.

        Sentences are ranked by the model's own score. Where that compares tokens (MGCC), images up to
        `late_interaction.EXACT_ROWS` are all scored, beyond only candidates that their vectors choose, which
        `GalleryHit.exact` says; the last digits of such a score may depend on what is scored with it. Image queries are
        ranked by the inner product of the vectors, for MGCC its coarse ones: it has no score of two images.

        Args:
            query: A sentence; a PIL image; the `Path` of an image (or a string that is the path of an existing file
                with an image's ending); a vector (D,) or several (Q, D), used as they are; or a list of sentences and
                images.
            top_k: Number of answers, at least 1; more than there are images gives them all.
            where: A filter, e.g. `"camera_id = 3 and time >= '2024-05-01'"`, or a tree from `gallery.filters`.
            candidates: Images to score, for models that compare tokens; at least `top_k`, by default see above.
            camera_ids: Camera of each image query, for models that use it: one for all, or a list with one per query
                (`None` where unknown or no image), numbered from 0 as in the model's training. Without it the query
                is encoded without camera, which `MissingCameraWarning` says once.
            view_ids: Viewpoint of each image query, likewise.

        Returns:
            A list of `GalleryHit`, best first (of equal scores, the image added first); for a list of queries or a
            (Q, D) array, one such list per query.

        Raises:
            QueryError: If the query is empty or of another type, an image cannot be read, `top_k` < 1, an option does not
                fit the model, a sentence is given for a model that takes images only, or a vector for one that compares
                tokens.
            FilterError: If the filter is wrong or names a column that does not exist.
            GalleryError: If a sentence or image is given and there is no model to encode it, or tokens are missing.
        """
        top_k = _checked_count("top_k", top_k)
        condition = None if where is None else _filter(where)
        queries = self.encode(query, camera_ids=camera_ids, view_ids=view_ids)
        hits = self.search_encoded(queries, top_k, condition, candidates=candidates)
        return hits[0] if queries.single else hits

    def encode(self, query: Any, *, camera_ids: Any = None, view_ids: Any = None) -> EncodedQueries:
        """Queries as `search_encoded` takes them; arguments and errors as of `search`."""
        late = self._token_index.enabled
        if self._encoder is not None:
            late = late_interaction(self._encoder) is not None
        return encode_queries(
            query,
            self.identity.embedding_size,
            self._need_encoder,
            late=late,
            camera_ids=camera_ids,
            view_ids=view_ids,
        )

    def search_encoded(
        self,
        queries: EncodedQueries,
        top_k: int = 10,
        where: str | Filter | None = None,
        *,
        candidates: int | None = None,
    ) -> list[list[GalleryHit]]:
        """As `search`, for Q queries that have been encoded; Q lists."""
        top_k = _checked_count("top_k", top_k)
        condition = None if where is None else _filter(where)
        if candidates is not None:
            if _checked_count("candidates", candidates) < top_k:
                raise QueryError(f"candidates is {candidates}, but top_k = {top_k} answers need at least as many")
            if queries.scorer is None:
                raise QueryError(
                    "candidates is for sentences and models that compare tokens (MGCC); other searches need none, leave it out"
                )
        if not len(queries.vectors):
            return []
        answers: dict[int, RankedImages] = {}
        if queries.scorer is not None:
            assert queries.text_features is not None
            ranked = self._token_index.search(
                queries.scorer, queries.text_features, top_k, where=condition, candidates=candidates
            )
            answers |= dict(zip(queries.text_rows, ranked, strict=True))
        others = [row for row in range(len(queries.vectors)) if row not in answers]
        if others:
            found = self._store.search(queries.vectors[others], top_k, where=condition)
            for row, ids, scores in zip(others, found.ids, found.scores, strict=True):
                answers[row] = RankedImages(ids, scores, found.exact)
        return self._hits([answers[row] for row in range(len(queries.vectors))])

    def _hits(self, answers: Sequence[RankedImages]) -> list[list[GalleryHit]]:
        distinct = np.unique(np.concatenate([answer.ids for answer in answers]))
        rows = self._store.get(distinct[distinct >= 0])
        values: dict[int, tuple[str, dict[str, Any]]] = {}
        for row, row_id in enumerate(rows.ids.tolist()):
            named = {name: column[row] for name, column in rows.columns.items() if column[row] is not None}
            metadata = {name: value for name, value in named.items() if not name.startswith("_")}
            values[row_id] = (metadata.pop(IMAGE_COLUMN, ""), metadata)
        found = []
        for answer in answers:
            hits: list[GalleryHit] = []
            for row_id, score in zip(answer.ids.tolist(), answer.scores.tolist(), strict=True):
                if row_id in values:  # a row that another process deleted meanwhile is no answer any more
                    image, metadata = values[row_id]
                    hits.append(GalleryHit(len(hits) + 1, score, image, row_id, metadata, answer.exact))
            found.append(hits)
        return found

    def info(self) -> GalleryInfo:
        """Rows, bytes, model, columns and version."""
        stats = self._store.stats()
        description = read_description(self.path)
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
            late_interaction=self._token_index.enabled,
        )


def _checked_count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise QueryError(f"{name} is {value!r}; it must be a whole number of at least 1")
    return int(value)


def _filter(where: str | Filter) -> Filter:
    if isinstance(where, str):
        return parse_filter(where)
    if not isinstance(where, Filter):
        raise FilterError(
            f'where is {type(where).__name__}; give an expression such as "camera_id = 3" or a filter tree'
        )
    return where
