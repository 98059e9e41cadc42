"""What every `GalleryStore` must do; each test runs on every store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_zoo.errors import FilterError, GalleryError
from reid_zoo.gallery import GalleryStore, ModelIdentity
from reid_zoo.gallery.engines.base import ColumnType, StoreSchema
from reid_zoo.gallery.engines.lance import LanceStore
from reid_zoo.gallery.filters import And, Eq, In, Not, Range, parse_filter

SIZE = 24
SCHEMA = StoreSchema(
    ModelIdentity("org/model", "v1", "fake", SIZE, "fingerprint"),
    {
        "camera_id": ColumnType.INT,
        "height": ColumnType.FLOAT,
        "time": ColumnType.STRING,
        "indoor": ColumnType.BOOL,
        "captions": ColumnType.STRINGS,
    },
)

Vectors = Callable[..., np.ndarray]


class Place:
    """Creates and reopens a store of one kind at one place."""

    def __init__(self, kind: type[GalleryStore], uri: str, options: dict[str, Any]) -> None:
        self.kind, self.uri, self.options = kind, uri, options

    def create(self, schema: StoreSchema = SCHEMA) -> GalleryStore:
        return self.kind.create(self.uri, schema, **self.options)

    def open(self) -> GalleryStore:
        return self.kind.open(self.uri, **self.options)


@pytest.fixture(params=["lance", "lance without matrix", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, memory_store_class: type[GalleryStore]) -> Place:
    if request.param == "memory":
        return Place(memory_store_class, str(tmp_path), {})
    # a budget of nothing sends every search through the table itself
    return Place(LanceStore, str(tmp_path), {"matrix_bytes": 0} if "without" in request.param else {})


@pytest.fixture
def store(place: Place) -> GalleryStore:
    return place.create()


def filled(store: GalleryStore, vectors: np.ndarray) -> np.ndarray:
    """Puts the vectors into the store with camera = id % 5 (missing where id % 7 is 0); gives them back as stored."""
    ids = np.arange(len(vectors))
    store.upsert(
        ids,
        vectors,
        {
            "camera_id": [int(i) % 5 if i % 7 else None for i in ids],
            "time": [f"2024-05-{1 + int(i) % 28:02}" for i in ids],
            "captions": [("a woman", f"person {i}") for i in ids],
        },
    )
    return vectors.astype(np.float16)


def ranking(stored: np.ndarray, query: np.ndarray, ids: np.ndarray) -> list[int]:
    scores = (stored[ids].astype(np.float64) * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    return ids[np.lexsort((ids, -scores))].tolist()


def test_a_new_store_is_empty_and_knows_its_schema(store: GalleryStore) -> None:
    assert store.schema == SCHEMA
    assert store.count() == 0
    assert store.stats().rows == 0
    result = store.search(np.ones((2, SIZE), np.float32), 5)
    assert result.ids.shape == result.scores.shape == (2, 0)
    assert result.exact
    assert list(store.scan()) == []
    assert len(store.get([1, 2])) == 0
    assert store.delete(ids=[1]) == 0


def test_a_place_holds_one_store(place: Place) -> None:
    with pytest.raises(GalleryError):
        place.open()
    place.create()
    with pytest.raises(GalleryError):
        place.create()


def test_search_is_the_ranking_by_inner_product(store: GalleryStore, unit_vectors: Vectors) -> None:
    stored = filled(store, unit_vectors(300, SIZE))
    queries = unit_vectors(7, SIZE, seed=1)
    result = store.search(queries, 20)
    assert result.exact
    assert result.ids.dtype == np.int64
    assert result.scores.dtype == np.float32
    for row, query in enumerate(queries):
        assert result.ids[row].tolist() == ranking(stored, query, np.arange(300))[:20]
        expected = stored[result.ids[row]].astype(np.float64) @ query.astype(np.float64)
        # 1e-6: float32 rounding of a score below 1 is 6e-8; the stored float16 vectors enter without another rounding
        np.testing.assert_allclose(result.scores[row], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "where", ["camera_id = 3", "camera_id IS NULL", "id < 3", "time >= '2024-05-20' AND camera_id IN (0, 1)"]
)
def test_a_filter_loses_no_answer(store: GalleryStore, unit_vectors: Vectors, where: str) -> None:
    stored = filled(store, unit_vectors(300, SIZE))
    query = unit_vectors(1, SIZE, seed=1)
    condition = parse_filter(where)
    ids = np.sort(np.concatenate([batch.ids for batch in store.scan(where=condition, columns=[])]))
    assert 0 < len(ids) < 300
    assert store.count(condition) == len(ids)
    assert store.search(query, 1000, where=condition).ids[0].tolist() == ranking(stored, query[0], ids)
    assert store.search(query, 2, where=condition).ids[0].tolist() == ranking(stored, query[0], ids)[:2]
    scores = dict(zip(*(part[0].tolist() for part in _pair(store.search(query, 300))), strict=True))
    filtered = store.search(query, 1000, where=condition)
    assert [scores[i] for i in filtered.ids[0].tolist()] == filtered.scores[0].tolist(), "a filter changes no score"


def _pair(result: Any) -> tuple[np.ndarray, np.ndarray]:
    return result.ids, result.scores


def test_a_filter_without_answers_gives_none(store: GalleryStore, unit_vectors: Vectors) -> None:
    filled(store, unit_vectors(20, SIZE))
    assert store.search(unit_vectors(2, SIZE), 5, where=Eq("camera_id", 99)).ids.shape == (2, 0)


def test_equal_scores_come_in_order_of_id(store: GalleryStore, unit_vectors: Vectors) -> None:
    vectors = np.repeat(unit_vectors(3, SIZE), 40, axis=0)
    order = np.random.default_rng(0).permutation(len(vectors))
    for part in np.array_split(order, 4):  # neither the order of insertion nor of storage decides
        store.upsert(part, vectors[part], {})
    store.upsert(np.array([5]), vectors[5:6], {})
    result = store.search(vectors[:1], 50)
    assert result.ids[0, :40].tolist() == list(range(40))
    assert len(set(result.scores[0, :40].tolist())) == 1
    assert (np.diff(result.ids[0, 40:]) > 0).all()


def test_more_answers_than_rows_gives_all_rows(store: GalleryStore, unit_vectors: Vectors) -> None:
    filled(store, unit_vectors(9, SIZE))
    result = store.search(unit_vectors(3, SIZE), 10**9)
    assert result.ids.shape == (3, 9)
    assert all(sorted(row) == list(range(9)) for row in result.ids.tolist())


def test_upsert_replaces_and_can_be_repeated(store: GalleryStore, unit_vectors: Vectors) -> None:
    vectors = unit_vectors(10, SIZE)
    filled(store, vectors)
    changed = unit_vectors(4, SIZE, seed=9)
    for _ in range(2):
        store.upsert(np.array([8, 2, 11, 10]), changed, {"camera_id": [80, 20, 110, 100]})
    assert store.count() == 12
    rows = store.get([2, 8, 3], vectors=True)
    assert rows.columns["camera_id"].tolist() == [20, 80, 3]
    assert rows.columns["time"].tolist() == [None, None, "2024-05-04"], "a replaced row is replaced whole"
    assert rows.vectors is not None
    np.testing.assert_array_equal(rows.vectors[:2], changed[[1, 0]].astype(np.float16))
    assert store.search(changed[:1], 1).ids[0, 0] == 8


def test_deleted_rows_are_gone_at_once(store: GalleryStore, unit_vectors: Vectors) -> None:
    vectors = unit_vectors(30, SIZE)
    stored = filled(store, vectors)
    store.search(vectors[:1], 1)
    assert store.delete(ids=[3, 4, 4, 999]) == 2
    assert store.delete(where=Eq("camera_id", 1)) == len([i for i in range(30) if i % 5 == 1 and i % 7])
    kept = np.array([i for i in range(30) if i not in (3, 4) and not (i % 5 == 1 and i % 7)])
    assert store.count() == len(kept)
    assert store.search(vectors[3:4], 100).ids[0].tolist() == ranking(stored, vectors[3], kept)
    assert store.delete(ids=[]) == 0


def test_delete_needs_ids_or_a_filter(store: GalleryStore) -> None:
    with pytest.raises(GalleryError):
        store.delete()
    with pytest.raises(GalleryError):
        store.delete(ids=[1], where=Eq("id", 1))


def test_get_keeps_the_order_and_leaves_out_what_is_missing(store: GalleryStore, unit_vectors: Vectors) -> None:
    stored = filled(store, unit_vectors(10, SIZE))
    rows = store.get([7, 99, 1, 7], columns=["captions", "camera_id"], vectors=True)
    assert rows.ids.tolist() == [7, 1, 7]
    assert rows.columns["captions"].tolist() == [("a woman", f"person {i}") for i in (7, 1, 7)]
    assert rows.columns["camera_id"].tolist() == [None, 1, None]
    np.testing.assert_array_equal(rows.vectors, stored[[7, 1, 7]])
    assert list(store.get([1]).columns) == list(SCHEMA.columns)
    assert store.get([1]).vectors is None
    with pytest.raises(GalleryError, match="nothing_like_this"):
        store.get([1], columns=["nothing_like_this"])


def test_scan_gives_every_row_once(store: GalleryStore, unit_vectors: Vectors) -> None:
    stored = filled(store, unit_vectors(50, SIZE))
    batches = list(store.scan(vectors=True, columns=["time"], batch_size=7))
    assert max(len(batch) for batch in batches) <= 7
    ids = np.concatenate([batch.ids for batch in batches])
    assert sorted(ids.tolist()) == list(range(50))
    np.testing.assert_array_equal(np.concatenate([batch.vectors for batch in batches]), stored[ids])
    assert sum(len(batch) for batch in store.scan(where=Range("id", low=48))) == 2


def test_a_scan_sees_one_snapshot(store: GalleryStore, unit_vectors: Vectors) -> None:
    vectors = unit_vectors(40, SIZE)
    filled(store, vectors)
    seen = []
    for batch in store.scan(columns=[], batch_size=5):
        seen.extend(batch.ids.tolist())
        store.upsert(np.array([100 + len(seen)]), vectors[:1], {})
    assert sorted(seen) == list(range(40))


def test_scan_and_upsert_move_a_gallery_between_stores(
    store: GalleryStore, unit_vectors: Vectors, memory_store_class: type[GalleryStore]
) -> None:
    filled(store, unit_vectors(30, SIZE))
    other = memory_store_class.create(f"copy of {id(store)}", store.schema)
    for batch in store.scan(vectors=True, batch_size=8):
        assert batch.vectors is not None
        other.upsert(batch.ids, batch.vectors, batch.columns)
    queries = unit_vectors(3, SIZE, seed=5)
    condition = And((Eq("camera_id", 2), Not(In("id", (2, 12)))))
    for where in (None, condition):
        mine, copied = store.search(queries, 50, where=where), other.search(queries, 50, where=where)
        np.testing.assert_array_equal(mine.ids, copied.ids)
        np.testing.assert_array_equal(mine.scores, copied.scores)


def test_columns_can_be_added_later(store: GalleryStore, unit_vectors: Vectors) -> None:
    filled(store, unit_vectors(4, SIZE))
    store.add_columns({"floor": ColumnType.INT, "camera_id": ColumnType.INT})
    store.add_columns({"floor": ColumnType.INT})
    store.upsert(np.array([9]), unit_vectors(1, SIZE), {"floor": [2]})
    assert store.get([0, 9], columns=["floor"]).columns["floor"].tolist() == [None, 2]
    assert store.count(Eq("floor", 2)) == 1
    assert store.schema.columns == {**SCHEMA.columns, "floor": ColumnType.INT}
    with pytest.raises(GalleryError, match="camera_id"):
        store.add_columns({"camera_id": ColumnType.STRING})
    for name in ("id", "vector", "a.b", "", "a`b", "a\nb"):
        with pytest.raises(GalleryError, match="cannot be the name"):
            store.add_columns({name: ColumnType.INT})


def test_values_come_back_as_they_were_written(store: GalleryStore) -> None:
    columns: dict[str, list[Any]] = {
        "camera_id": [-(2**63), 2**63 - 1, None],
        "height": [1, float("nan"), 1e300],
        "time": ['it\'s \\ \n "x" 赤', "", None],
        "indoor": [True, False, None],
        "captions": [("a", ""), (), None],
    }
    store.upsert(np.arange(3), np.eye(3, SIZE), columns)
    found = store.get([0, 1, 2]).columns
    columns["height"] = [1.0, None, 1e300]
    for name, values in columns.items():
        assert found[name].tolist() == values
        assert [type(value) for value in found[name]] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("camera_id", "3"),
        ("camera_id", 1.5),
        ("camera_id", True),
        ("camera_id", 2**63),
        ("height", "tall"),
        ("time", 20240501),
        ("indoor", 1),
        ("captions", "one"),
        ("captions", [1]),
        ("unknown", 1),
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_nothing_is_written(
    store: GalleryStore, column: str, value: Any
) -> None:
    with pytest.raises(GalleryError, match=column):
        store.upsert(np.array([0, 1]), np.eye(2, SIZE), {column: [None, value]})
    assert store.count() == 0


@pytest.mark.parametrize(
    ("ids", "vectors"),
    [
        ([-1], np.ones((1, SIZE))),
        ([1, 1], np.ones((2, SIZE))),
        ([1.5], np.ones((1, SIZE))),
        ([1], np.ones((1, SIZE + 1))),
        ([1], np.ones((2, SIZE))),
        ([1], np.full((1, SIZE), np.nan)),
        ([1], np.full((1, SIZE), 1e6)),
    ],
)
def test_bad_ids_and_vectors_are_refused(store: GalleryStore, ids: list[Any], vectors: np.ndarray) -> None:
    with pytest.raises(GalleryError):
        store.upsert(np.array(ids), vectors, {})
    assert store.count() == 0


def test_columns_must_have_a_value_per_row(store: GalleryStore) -> None:
    with pytest.raises(GalleryError, match="camera_id"):
        store.upsert(np.array([1, 2]), np.eye(2, SIZE), {"camera_id": [1]})


def test_bad_searches_are_refused(store: GalleryStore, unit_vectors: Vectors) -> None:
    filled(store, unit_vectors(3, SIZE))
    with pytest.raises(GalleryError):
        store.search(unit_vectors(1, SIZE), 0)
    with pytest.raises(GalleryError):
        store.search(unit_vectors(1, SIZE + 1), 1)
    with pytest.raises(GalleryError):
        store.search(unit_vectors(1, SIZE)[0], 1)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("camra = 3", "unknown field 'camra'; this gallery has: camera_id, captions, height, id, indoor, time"),
        ("camera_id = 'three'", "'camera_id' is compared with 'three', but it holds a whole number"),
        ("time > 3", "'time' is compared with 3, but it holds a string"),
        ("height = TRUE", "'height' is compared with True, but it holds a number"),
        ("indoor = 1", "'indoor' is compared with 1, but it holds a truth value"),
        ("indoor > FALSE", "'indoor' is true or false and has no order"),
        ("captions = 'red'", "'captions' is a list of str; only IS NULL"),
        ("NOT (camera_id = 1 OR time IN ('a', 2))", "'time' is compared with 2"),
    ],
)
def test_a_filter_that_does_not_fit_the_columns_is_refused(store: GalleryStore, where: str, message: str) -> None:
    condition = parse_filter(where)
    for use in (
        lambda: store.count(condition),
        lambda: store.search(np.ones((1, SIZE), np.float32), 1, where=condition),
        lambda: store.delete(where=condition),
        lambda: list(store.scan(where=condition)),
    ):
        with pytest.raises(FilterError, match=message.replace("(", r"\(")):
            use()


def test_what_was_written_is_there_after_reopening(place: Place, unit_vectors: Vectors) -> None:
    store = place.create()
    filled(store, unit_vectors(40, SIZE))
    store.add_columns({"floor": ColumnType.STRING})
    queries = unit_vectors(2, SIZE, seed=3)
    before = store.search(queries, 10)
    store.flush()
    store.close()
    store.close()
    again = place.open()
    after = again.search(queries, 10)
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.scores, after.scores)
    assert again.schema.identity == SCHEMA.identity
    assert again.schema.columns == {**SCHEMA.columns, "floor": ColumnType.STRING}


@pytest.mark.parametrize("reclaim", [False, True])
def test_optimize_keeps_the_rows(store: GalleryStore, unit_vectors: Vectors, reclaim: bool) -> None:
    for part in range(5):
        store.upsert(np.arange(20) + 20 * part, unit_vectors(20, SIZE, seed=part), {"camera_id": [part] * 20})
    store.delete(where=Eq("camera_id", 2))
    store.optimize(reclaim=reclaim)
    assert store.count() == store.stats().rows == 80
    assert sorted(np.concatenate([batch.ids for batch in store.scan()]).tolist()) == [
        i for i in range(100) if i // 20 != 2
    ]


def test_every_change_gives_a_new_version(store: GalleryStore, unit_vectors: Vectors) -> None:
    versions = [store.stats().version]
    for part in range(3):
        store.upsert(np.array([part]), unit_vectors(1, SIZE), {})
        versions.append(store.stats().version)
    assert len(set(versions)) == 4
