"""Filters compiled for Lance select exactly the rows on which the tree is true."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from reid_zoo.gallery import ModelIdentity
from reid_zoo.gallery.engines.base import ColumnType, StoreSchema, column_values
from reid_zoo.gallery.engines.lance import LanceStore
from reid_zoo.gallery.filters import And, Eq, Filter, In, Not, Or, Range, evaluate

TEXTS = [
    "",
    "red",
    "Red",
    "it's",
    '"',
    "a\\b",
    "x\ny",
    "'; DROP TABLE t; --",
    "' OR '1'='1",
    "émile",
    "赤",
    "%",
    "\U0001f600",
]
INTS = [0, 1, -1, 3, 2**53, 2**53 + 1, -(2**63), 2**63 - 1]
FLOATS = [0.0, -0.0, 0.1, -2.5, 3.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan")]
COLUMNS = {
    "camera id": ColumnType.INT,
    "height": ColumnType.FLOAT,
    'it\'s "odd"': ColumnType.STRING,
    "indoor": ColumnType.BOOL,
    "captions": ColumnType.STRINGS,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanceStore, list[dict[str, Any]]]:
    """A store whose rows hold every pair of awkward values, and the rows as dictionaries."""
    generator = np.random.default_rng(0)
    choices: dict[str, list[Any]] = {
        "camera id": [None, *INTS],
        "height": [None, *FLOATS],
        'it\'s "odd"': [None, *TEXTS],
        "indoor": [None, True, False],
        "captions": [None, (), ("red", "it's")],
    }
    count = 150
    columns = {
        name: [pool[position] for position in generator.integers(0, len(pool), count)] for name, pool in choices.items()
    }
    folder = tmp_path_factory.mktemp("filters")
    store = LanceStore.create(str(folder), StoreSchema(ModelIdentity("m", None, "fake", 8, "f"), COLUMNS))
    store.upsert(np.arange(count), np.ones((count, 8)), columns)
    plain = {name: column_values(name, COLUMNS[name], values) for name, values in columns.items()}
    return store, [{"id": row, **{name: values[row] for name, values in plain.items()}} for row in range(count)]


numbers = st.one_of(
    st.sampled_from(INTS),
    st.sampled_from([value for value in FLOATS if np.isfinite(value)]),
    st.sampled_from([0.5, -0.5, 1e19, -1e19, 9.3e18, -9.3e18, 2.0**63, -(2.0**63)]),
    st.integers(-5, 160),
)


def comparisons(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Filter]:
    column = st.just(name)
    return st.one_of(
        st.builds(Eq, column, st.one_of(st.none(), values)),
        st.builds(In, column, st.lists(values, min_size=1, max_size=4).map(tuple)),
        st.builds(lambda low, include: Range(name, low=low, include_low=include), values, st.booleans()),
        st.builds(lambda high, include: Range(name, high=high, include_high=include), values, st.booleans()),
        st.builds(Range, column, values, values),
    )


leaves = st.one_of(
    comparisons("camera id", numbers),
    comparisons("height", numbers),
    comparisons('it\'s "odd"', st.sampled_from(TEXTS)),
    comparisons("id", numbers),
    st.builds(Eq, st.just("indoor"), st.sampled_from([None, True, False])),
    st.builds(In, st.just("indoor"), st.lists(st.booleans(), min_size=1, max_size=2).map(tuple)),
    st.just(Eq("captions", None)),
)
trees = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.builds(And, st.lists(parts, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(parts, min_size=2, max_size=3).map(tuple)),
        st.builds(Not, parts),
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees)
@example(tree=Not(And((In("camera id", (0,)), In("camera id", (1,))))))
@example(tree=Not(Or((Not(In("camera id", (0, 3))), Not(In("camera id", (1, -1)))))))
@example(tree=Or((Not(In("height", (0.1, 3.0))), Not(In("height", (-2.5, 1e300))))))
def test_the_compiled_filter_selects_the_rows_on_which_the_tree_is_true(
    table: tuple[LanceStore, list[dict[str, Any]]], tree: Filter
) -> None:
    store, rows = table
    expected = [row["id"] for row in rows if evaluate(tree, row) is True]
    found = sorted(int(i) for batch in store.scan(where=tree, columns=[]) for i in batch.ids)
    assert found == expected


@pytest.mark.parametrize("text", TEXTS)
def test_an_injection_is_just_a_string(table: tuple[LanceStore, list[dict[str, Any]]], text: str) -> None:
    store, rows = table
    assert store.count(Eq('it\'s "odd"', text)) == sum(row['it\'s "odd"'] == text for row in rows)
    assert store.count() == len(rows)
