"""The table of tokens: entries by row id and revision, durable, merged now and then."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from reid_zoo.errors import GalleryError
from reid_zoo.gallery import ModelIdentity
from reid_zoo.gallery.engines import durability, lance_tokens
from reid_zoo.gallery.engines.base import StoreSchema, TokenShape
from reid_zoo.gallery.engines.lance import LanceStore
from reid_zoo.gallery.engines.lance_tokens import LanceTokens

SHAPE = TokenShape(3, 4)


def entries(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    mask = generator.random((count, SHAPE.count)) < 0.7
    tokens = generator.normal(size=(count, SHAPE.count, SHAPE.width)).astype(np.float16)
    return np.arange(count), generator.permutation(10**6)[:count], tokens, mask


@pytest.fixture
def store(tmp_path: Path) -> LanceTokens:
    return LanceTokens.open_or_create(str(tmp_path), SHAPE)


@pytest.mark.parametrize("chunk", [7, 2000])
def test_entries_come_back_in_the_order_asked_for(
    store: LanceTokens, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance_tokens, "ID_CHUNK", chunk)
    ids, revisions, tokens, mask = entries(50)
    store.append(ids[:30], revisions[:30], tokens[:30].astype(np.float32), mask[:30])
    store.append(ids[30:], revisions[30:], tokens[30:], mask[30:])
    order = np.random.default_rng(1).permutation(50)[:40]
    found, got_tokens, got_mask = store.read(ids[order], revisions[order])
    assert found.all()
    assert got_tokens.dtype == np.float16
    np.testing.assert_array_equal(got_tokens, tokens[order])
    np.testing.assert_array_equal(got_mask, mask[order])
    assert sorted(map(tuple, store.keys())) == sorted(zip(ids, revisions, strict=True))


def test_another_revision_of_a_row_is_not_its_entry(store: LanceTokens) -> None:
    ids, revisions, tokens, mask = entries(4)
    store.append(ids, revisions, tokens, mask)
    store.append(ids[:2], revisions[:2] + 10**7, tokens[2:], mask[2:])
    asked = np.array([revisions[0], revisions[1] + 10**7, 5 * 10**7, revisions[3]])
    found, got, got_mask = store.read(ids, asked)
    assert found.tolist() == [True, True, False, True]
    np.testing.assert_array_equal(got[[0, 1, 3]], tokens[[0, 3, 3]])
    assert not got[2].any()
    assert not got_mask[2].any()
    store.delete(np.array([revisions[0], 123456789]))
    assert store.read(ids, asked)[0].tolist() == [False, True, False, True]
    assert len(store.keys()) == 5
    assert store.read(ids[:0], asked[:0])[1].shape == (0, 3, 4)


def test_every_commit_is_synced_and_another_handle_sees_it(
    tmp_path: Path, store: LanceTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(durability, "fsync_path", lambda path: synced.append(str(path)))

    def files() -> set[str]:
        return {str(path) for path in (tmp_path / "tokens.lance").rglob("*") if path.is_file()}

    other = LanceTokens.open(str(tmp_path))
    for number in range(2):
        before = files()
        synced.clear()
        store.append(*entries(5, seed=number))
        new = files() - before
        assert new
        assert new <= set(synced)
        assert {os.path.dirname(path) for path in new} <= set(synced), "the directory entries too"
        assert len(other.keys()) == 5 * (number + 1)


def test_small_files_are_merged_now_and_then(
    tmp_path: Path, store: LanceTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance_tokens, "_MOST_FRAGMENTS", 5)
    ids, revisions, tokens, mask = entries(14)
    for row in range(14):
        part = slice(row, row + 1)
        store.append(ids[part], revisions[part], tokens[part], mask[part])
        assert store._num_fragments() < 5
    np.testing.assert_array_equal(store.read(ids, revisions)[1], tokens)
    store.optimize(reclaim=True)
    assert len(list((tmp_path / "tokens.lance" / "data").iterdir())) == 1


def test_housekeeping_that_fails_fails_no_write(store: LanceTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*, reclaim: bool = False) -> None:
        raise GalleryError("no space left")

    monkeypatch.setattr(lance_tokens, "_MOST_FRAGMENTS", 1)
    monkeypatch.setattr(store, "optimize", full)
    store.append(*entries(3))
    assert len(store.keys()) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tokens, mask: (tokens[:, :2], mask), "wanted"),
        (lambda tokens, mask: (tokens, mask[:, :2]), "wanted"),
        (lambda tokens, mask: (tokens[1:], mask), "wanted"),
        (lambda tokens, mask: (tokens * np.nan, mask), "NaN"),
        (lambda tokens, mask: (tokens.astype(np.float32) + 1e6, mask), "too large"),
    ],
)
def test_what_does_not_fit_is_refused(store: LanceTokens, change: object, message: str) -> None:
    ids, revisions, tokens, mask = entries(3)
    with pytest.raises(GalleryError, match=message):
        store.append(ids, revisions, *change(tokens, mask))  # type: ignore[operator]
    assert len(store.keys()) == 0


def test_a_foreign_table_is_refused(tmp_path: Path) -> None:
    import lancedb
    import pyarrow as pa

    for name, data in (("a", {"id": [1]}), ("b", {"id": [1], "tokens": [[1.0]], "mask": [[True]]})):
        lancedb.connect(str(tmp_path / name)).create_table("tokens", pa.table(data))
        with pytest.raises(GalleryError, match=r"'tokens\.lance' was not written by reid_zoo"):
            LanceTokens.open(str(tmp_path / name))


def test_a_store_gives_its_tokens(tmp_path: Path) -> None:
    store = LanceStore.create(str(tmp_path), StoreSchema(ModelIdentity("m", None, "fake", 8, "f")))
    assert store.capabilities().token_vectors
    assert store.token_store() is None
    made = store.token_store(make=SHAPE)
    assert made is not None
    made.append(*entries(2))
    again = store.token_store()
    assert again is not None
    assert again.shape == SHAPE
    assert len(again.keys()) == 2
    assert store.token_store(make=SHAPE).keys().tolist() == again.keys().tolist()  # type: ignore[union-attr]
    made.close()
    made.close()
    with pytest.raises(GalleryError, match="closed"):
        made.keys()
