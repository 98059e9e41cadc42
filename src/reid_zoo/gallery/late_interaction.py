"""Galleries of models whose score compares tokens: the tokens of every image are kept, and search ranks by the score.

The vectors of such a model only choose candidates. Tokens lie in a store of their own; a row of the gallery names its
entry there by a revision in the hidden column `_tokens`. The entry is written first, so a row that can be seen has its
tokens, whenever a process is killed; what no row names any more is removed by `delete` and `compact`. Between writing
tokens and row, a process holds a lock that the removal takes too.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GalleryError
from .encoder import ImageEmbeddings, LateInteractionEncoder
from .engines.base import ColumnType, GalleryStore, TokenShape, TokenStore
from .engines.storage_errors import storage_errors
from .filters import Filter
from .image_sources import IMAGE_COLUMN

if TYPE_CHECKING:
    from ..outputs import RetrievalFeatures

__all__ = ["EXACT_ROWS", "TOKENS_COLUMN", "RankedImages", "TokenIndex"]

TOKENS_COLUMN = "_tokens"
"""Hidden column with the revision of a row's tokens."""

EXACT_ROWS = 10_000
"""Most images that are all scored by default; more are first narrowed down by their vectors."""

LEAST_CANDIDATES = 1000
CANDIDATES_PER_ANSWER = 20
"""Images that the first stage keeps by default: this many per answer, at least `LEAST_CANDIDATES`."""

BLOCK_VALUES = 2**23
"""Values of tokens that are scored at a time: 16 MB as they are stored, 1092 images of 15 tokens of 512 values."""

_ATTEMPTS = 3


@dataclass(slots=True)
class RankedImages:
    """Answers to one query, best first.

    Attributes:
        ids: (k,) int64 row ids.
        scores: (k,) float32.
        exact: Whether these are certain to be the best.
    """

    ids: np.ndarray
    scores: np.ndarray
    exact: bool


class TokenIndex:
    """The tokens of a gallery: kept in step with its rows, and scored.

    Args:
        path: The gallery's directory.
        store: Its vectors and metadata.

    Raises:
        GalleryError: If the gallery's rows have tokens and their store is missing or damaged.
    """

    def __init__(self, path: Path, store: GalleryStore) -> None:
        self._path = path
        self._store = store
        self._tokens: TokenStore | None = None
        if self.enabled:
            self._opened()

    def close(self) -> None:
        """Closes the store of tokens; may be called twice."""
        if self._tokens is not None:
            self._tokens.close()

    @property
    def enabled(self) -> bool:
        """Whether the gallery is one of a model that scores by late interaction."""
        return TOKENS_COLUMN in self._store.schema.columns

    def _opened(self) -> TokenStore:
        if self._tokens is None:
            self._tokens = self._store.token_store()
            if self._tokens is None:
                raise GalleryError(
                    f"{self._path}: the table 'tokens.lance' of its images' tokens is missing; the gallery is damaged, "
                    "index again"
                )
        return self._tokens

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        with storage_errors(self._path, "lock the tokens"):
            lock = FileLock(self._path / "tokens.lock")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    # ------------------------------------------------------------------------------------------------------- writing

    def upsert(
        self, ids: np.ndarray, images: ImageEmbeddings, columns: Mapping[str, Sequence[Any] | np.ndarray]
    ) -> None:
        """As `GalleryStore.upsert`, for images with their tokens.

        Raises:
            GalleryError: If the tokens are of another size than those in the gallery.
        """
        assert images.tokens is not None and images.mask is not None
        shape = TokenShape(*images.tokens.shape[1:])
        revisions = np.array([secrets.randbits(62) for _ in ids], np.int64)
        with self._locked():
            if not self.enabled:
                # the table first: a gallery that has the column has the table
                self._tokens = self._store.token_store(make=shape)
                self._store.add_columns({TOKENS_COLUMN: ColumnType.INT})
            tokens = self._opened()
            if tokens.shape != shape:
                raise GalleryError(
                    f"{self._path}: holds {tokens.shape.count} tokens of {tokens.shape.width} values per image, but the "
                    f"model gives {shape.count} of {shape.width}; index into a new gallery"
                )
            tokens.append(ids, revisions, images.tokens, images.mask)
            self._store.upsert(ids, images.vectors, {**columns, TOKENS_COLUMN: revisions})

    def remove_orphans(self) -> None:
        """Removes the tokens that no row names: of deleted and replaced rows, and of writes that never finished."""
        if not self.enabled:
            return
        with self._locked():
            tokens = self._opened()
            used = [np.empty(0, np.int64)]
            for batch in self._store.scan(columns=[TOKENS_COLUMN]):
                used.append(_revisions(batch.columns[TOKENS_COLUMN]))
            written = tokens.keys()[:, 1]
            tokens.delete(written[~np.isin(written, np.concatenate(used))])

    def compact(self) -> None:
        """Removes what no row names, and gives its space back."""
        if self.enabled:
            self.remove_orphans()
            self._opened().optimize(reclaim=True)

    # ----------------------------------------------------------------------------------------------------- searching

    def search(
        self,
        encoder: LateInteractionEncoder,
        texts: RetrievalFeatures,
        top_k: int,
        *,
        where: Filter | None = None,
        candidates: int | None = None,
    ) -> list[RankedImages]:
        """The images with the largest score for each sentence; of equal scores, the smaller id comes first.

        Args:
            encoder: The model.
            texts: Its features of T sentences.
            top_k: Number of answers.
            where: Only rows that match.
            candidates: Images of which the score is computed, those whose vectors fit best; by default all up to
                `EXACT_ROWS`, else `CANDIDATES_PER_ANSWER` per answer and at least `LEAST_CANDIDATES`.

        Raises:
            GalleryError: If an image has no tokens.
        """
        assert texts.embeds is not None
        matching = self._store.count(where)
        if candidates is None:
            few = max(LEAST_CANDIDATES, CANDIDATES_PER_ANSWER * top_k)
            candidates = matching if matching <= EXACT_ROWS else few
        if candidates >= matching:
            parts = [np.empty(0, np.int64), *(batch.ids for batch in self._store.scan(where=where, columns=[]))]
            ids, scores = self._best(encoder, texts, np.sort(np.concatenate(parts)), top_k)
            return [RankedImages(*answer, exact=True) for answer in zip(ids, scores, strict=True)]
        found = self._store.search(texts.embeds.numpy(), candidates, where=where)
        answers = []
        for row, ids in enumerate(found.ids):
            best = self._best(encoder, texts.take(slice(row, row + 1)), np.sort(ids[ids >= 0]), top_k)
            answers.append(RankedImages(best[0][0], best[1][0], exact=False))
        return answers

    def _best(
        self, encoder: LateInteractionEncoder, texts: RetrievalFeatures, rows: np.ndarray, top_k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids and scores (T, k) of the best of some rows."""
        assert texts.embeds is not None
        ids = np.empty((len(texts.embeds), 0), np.int64)
        scores = np.empty((len(texts.embeds), 0), np.float32)
        for block_ids, images in self._blocks(rows):
            ids = np.hstack([ids, np.broadcast_to(block_ids, (len(ids), len(block_ids)))])
            scores = np.hstack([scores, encoder.similarity(texts, images)])
            if not np.isfinite(scores).all():
                raise GalleryError(f"model {encoder.identity.name} gave a score that is NaN or infinite")
            order = np.lexsort((ids, -scores), axis=1)[:, :top_k]
            ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
        return ids, scores

    def _blocks(self, ids: np.ndarray) -> Iterator[tuple[np.ndarray, RetrievalFeatures]]:
        """Ids and features of rows, so many at a time that memory stays bounded."""
        import torch

        from ..outputs import RetrievalFeatures

        if not len(ids):
            return
        if not self.enabled:
            raise self._without_tokens("its images were")
        shape = self._opened().shape
        step = max(1, BLOCK_VALUES // (shape.count * shape.width))
        for start in range(0, len(ids), step):
            found, vectors, tokens, mask = self._read(ids[start : start + step])
            if len(found):
                yield (
                    found,
                    RetrievalFeatures(
                        embeds=torch.from_numpy(vectors.astype(np.float32)),
                        tokens=torch.from_numpy(tokens),
                        token_mask=torch.from_numpy(mask),
                    ),
                )

    def _read(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Ids, vectors, tokens and masks of rows; rows that have been deleted meanwhile are left out."""
        for _ in range(_ATTEMPTS):
            rows = self._store.get(ids, columns=[TOKENS_COLUMN], vectors=True)
            assert rows.vectors is not None
            revisions = _revisions(rows.columns[TOKENS_COLUMN])
            if len(revisions) < len(rows):
                missing = [row is None for row in rows.columns[TOKENS_COLUMN]].index(True)
                name = self._store.get(rows.ids[missing : missing + 1], columns=[IMAGE_COLUMN]).columns[IMAGE_COLUMN]
                raise self._without_tokens(f"the image {', '.join(name)} was")
            found, tokens, mask = self._opened().read(rows.ids, revisions)
            if found.all():
                return rows.ids, rows.vectors, tokens, mask
            # another process replaced or deleted rows between the two reads
        raise GalleryError(
            f"{self._path}: the table 'tokens.lance' lacks the tokens of {int((~found).sum())} images; the gallery is "
            "damaged, index again"
        )

    def _without_tokens(self, what: str) -> GalleryError:
        return GalleryError(
            f"{self._path}: {what} indexed by an older reid_zoo without the tokens that the model's score needs; index "
            "the same images again, which completes them"
        )


def _revisions(values: np.ndarray) -> np.ndarray:
    """The values of the column as int64, missing ones left out."""
    return np.array([value for value in values if value is not None], np.int64)
