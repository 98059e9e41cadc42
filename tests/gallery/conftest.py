"""A deterministic encoder without a model, a store without an engine, and folders of images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from PIL import Image

from reid_zoo.errors import GalleryError, QueryError
from reid_zoo.gallery import ModelIdentity
from reid_zoo.gallery.engines.base import (
    ColumnType,
    GalleryStore,
    RowBatch,
    SearchResult,
    StoreCapabilities,
    StoreSchema,
    StoreStats,
    check_column_name,
    check_filter,
    column_values,
)
from reid_zoo.gallery.filters import Filter, evaluate
from reid_zoo.outputs import RetrievalFeatures


class FakeEncoder:
    """Embeds an image by its 4 x 4 thumbnail and a sentence by its characters; remembers what it was given."""

    def __init__(self, size: int = 32, name: str = "fake/model") -> None:
        self.identity = ModelIdentity(name, "main", "fake", size, f"{name}-{size}-fingerprint")
        self.batches: list[int] = []

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.batches.append(len(images))
        assert all(image.mode == "RGB" for image in images)
        rows = [np.asarray(image.resize((4, 4)), np.float32).ravel() - 99.5 for image in images]
        return self._normalised([np.resize(row, self.identity.embedding_size) for row in rows])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        generators = [np.random.default_rng(list(text.encode())) for text in texts]
        return self._normalised([generator.normal(size=self.identity.embedding_size) for generator in generators])

    def check_query(self, text: str) -> None:
        if not any(character.isalnum() for character in text):
            raise QueryError(f"nothing is known of {text!r}")

    @staticmethod
    def _normalised(rows: list[np.ndarray]) -> np.ndarray:
        matrix = np.stack(rows).astype(np.float32)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


class LateEncoder(FakeEncoder):
    """Scores by the best image token for each text token; some images have one token less than others."""

    scores_by_late_interaction = True

    def __init__(self, size: int = 32, name: str = "late/model") -> None:
        super().__init__(size, name)
        self.scored: list[tuple[int, int]] = []

    def encode_image_features(self, images: Sequence[Image.Image]) -> RetrievalFeatures:
        thumbnails = [np.asarray(image.resize((4, 4)), np.float32) - 99.5 for image in images]
        tokens = np.stack([thumbnail.reshape(16, 3).T for thumbnail in thumbnails]) / 300
        mask = np.array([[True, True, thumbnail.sum() % 2 < 1] for thumbnail in thumbnails])
        return self._features(self.encode_images(images), tokens * mask[..., None], mask)

    def encode_text_features(self, texts: Sequence[str]) -> RetrievalFeatures:
        generators = [np.random.default_rng([7, *text.encode()]) for text in texts]
        tokens = np.stack([generator.normal(size=(2, 16)) for generator in generators])
        return self._features(self.encode_texts(texts), tokens, np.ones((len(texts), 2), bool))

    @staticmethod
    def _features(embeds: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> RetrievalFeatures:
        return RetrievalFeatures(
            embeds=torch.from_numpy(embeds),
            tokens=torch.from_numpy(tokens.astype(np.float32)),
            token_mask=torch.from_numpy(mask),
        )

    def similarity(self, texts: RetrievalFeatures, images: RetrievalFeatures) -> np.ndarray:
        assert texts.tokens is not None
        assert images.tokens is not None
        assert images.token_mask is not None
        self.scored.append((len(texts.tokens), len(images.tokens)))
        pairs = torch.einsum("twd,izd->tiwz", texts.tokens.double(), images.tokens.double())
        best = pairs.masked_fill(~images.token_mask[None, :, None], -torch.inf).amax(dim=3)
        coarse = texts.embeds.double() @ images.embeds.double().T
        return (best.sum(dim=2) + 0.1 * coarse).float().numpy()


class MemoryStore(GalleryStore):
    """The contract of `GalleryStore` in the plainest form: dictionaries and a float64 product."""

    _places: dict[str, MemoryStore] = {}  # noqa: RUF012 - stands for a disk

    def __init__(self, schema: StoreSchema) -> None:
        self._schema = schema
        self._rows: dict[int, tuple[np.ndarray, dict[str, Any]]] = {}
        self._version = 0

    @classmethod
    def create(cls, uri: str, schema: StoreSchema, **options: Any) -> Self:
        if uri in cls._places:
            raise GalleryError(f"{uri}: exists")
        for name in schema.columns:
            check_column_name(name)
        cls._places[uri] = store = cls(schema)
        return store

    @classmethod
    def open(cls, uri: str, **options: Any) -> Self:
        if uri not in cls._places:
            raise GalleryError(f"{uri}: missing")
        return cls._places[uri]  # type: ignore[return-value]

    def close(self) -> None:
        pass

    @property
    def schema(self) -> StoreSchema:
        return self._schema

    def capabilities(self) -> StoreCapabilities:
        return StoreCapabilities(exact=True, multiprocess=False, durable=False)

    def add_columns(self, columns: Mapping[str, ColumnType]) -> None:
        for name, kind in columns.items():
            check_column_name(name)
            if self._schema.columns.get(name, kind) is not kind:
                raise GalleryError(f"column '{name}' holds {self._schema.columns[name]} values")
        merged = {**self._schema.columns, **columns}
        self._schema = StoreSchema(self._schema.identity, merged, self._schema.normalized)

    def upsert(self, ids: np.ndarray, vectors: np.ndarray, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
        ids, vectors = np.asarray(ids), np.asarray(vectors)
        if ids.dtype.kind not in "iu" or (ids < 0).any() or len(set(ids.tolist())) != len(ids):
            raise GalleryError("bad ids")
        with np.errstate(over="ignore"):
            half = vectors.astype(np.float16)
        if vectors.shape != (len(ids), self._schema.embedding_size) or not np.isfinite(half).all():
            raise GalleryError("bad vectors")
        for name, values in columns.items():
            if name not in self._schema.columns or len(values) != len(ids):
                raise GalleryError(f"bad column '{name}'")
        plain = {name: column_values(name, self._schema.columns[name], values) for name, values in columns.items()}
        for row, row_id in enumerate(ids.tolist()):
            self._rows[row_id] = (half[row], {name: values[row] for name, values in plain.items()})
        self._version += 1

    def _matching(self, where: Filter | None) -> list[int]:
        if where is None:
            return list(self._rows)
        check_filter(where, self._schema.columns)
        return [i for i, (_, values) in self._rows.items() if evaluate(where, {"id": i, **values}) is True]

    def delete(self, *, ids: Sequence[int] | np.ndarray | None = None, where: Filter | None = None) -> int:
        if (ids is None) == (where is None):
            raise GalleryError("ids or where")
        chosen = self._matching(where) if ids is None else np.asarray(ids).tolist()
        return sum(self._rows.pop(i, None) is not None for i in chosen)

    def count(self, where: Filter | None = None) -> int:
        return len(self._matching(where))

    def get(
        self, ids: Sequence[int] | np.ndarray, *, columns: Sequence[str] | None = None, vectors: bool = False
    ) -> RowBatch:
        return self._batch([i for i in np.asarray(ids).tolist() if i in self._rows], columns, vectors)

    def _batch(self, ids: list[int], columns: Sequence[str] | None, vectors: bool) -> RowBatch:
        names = list(self._schema.columns) if columns is None else list(columns)
        for name in names:
            if name not in self._schema.columns:
                raise GalleryError(f"no column '{name}'")
        data = {}
        for name in names:
            data[name] = np.empty(len(ids), object)
            for row, i in enumerate(ids):
                data[name][row] = self._rows[i][1].get(name)
        matrix = np.array([self._rows[i][0] for i in ids], np.float16).reshape(len(ids), -1) if vectors else None
        return RowBatch(np.array(ids, np.int64), data, matrix)

    def search(self, queries: np.ndarray, top_k: int, *, where: Filter | None = None) -> SearchResult:
        if top_k < 1 or queries.ndim != 2 or queries.shape[1] != self._schema.embedding_size:
            raise GalleryError("bad query")
        ids = np.array(sorted(self._matching(where)), np.int64)
        stored = np.array([self._rows[i][0] for i in ids.tolist()], np.float64).reshape(len(ids), queries.shape[1])
        scores = (queries.astype(np.float64)[:, None] * stored[None]).sum(axis=2).astype(np.float32)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return SearchResult(ids[order], np.take_along_axis(scores, order, axis=1), exact=True)

    def scan(
        self,
        *,
        where: Filter | None = None,
        columns: Sequence[str] | None = None,
        vectors: bool = False,
        batch_size: int = 8192,
    ) -> Iterator[RowBatch]:
        ids = iter(self._matching(where))
        parts = [
            self._batch(part, columns, vectors) for part in iter(lambda: list(itertools.islice(ids, batch_size)), [])
        ]
        return iter(parts)

    def flush(self) -> None:
        pass

    def optimize(self, *, reclaim: bool = False) -> None:
        pass

    def stats(self) -> StoreStats:
        return StoreStats(len(self._rows), 0, 0, str(self._version))


@pytest.fixture
def memory_store_class() -> type[GalleryStore]:
    return MemoryStore


@pytest.fixture
def make_encoder() -> Callable[..., FakeEncoder]:
    return FakeEncoder


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def late_encoder() -> LateEncoder:
    return LateEncoder()


@pytest.fixture
def write_photos() -> Callable[..., list[Path]]:
    """Writes `count` small images, all different, into a folder."""

    def write(folder: Path, count: int, *, seed: int = 0, size: tuple[int, int] = (16, 32)) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(seed)
        paths = [folder / f"{number}.png" for number in range(count)]
        for path in paths:
            Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)
        return paths

    return write


@pytest.fixture
def photos(tmp_path: Path, write_photos: Callable[..., list[Path]]) -> list[Path]:
    return write_photos(tmp_path / "people", 12)


@pytest.fixture
def unit_vectors() -> Callable[..., np.ndarray]:
    """(count, size) float32 random unit vectors."""

    def make(count: int, size: int, seed: int = 0) -> np.ndarray:
        rows = np.random.default_rng(seed).normal(size=(count, size))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    return make
