"""The filter language: what is written, what it means, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_zoo.errors import FilterError
from reid_zoo.gallery.filters import (
    And,
    Eq,
    Filter,
    In,
    Not,
    Or,
    Range,
    evaluate,
    field_names,
    format_filter,
    parse_filter,
)

names = st.one_of(
    st.sampled_from(["camera_id", "time", "größe", "and", "Not", "x y", "a'b", '"', "1st", "(", "--"]),
    st.text(st.characters(exclude_characters="`", exclude_categories=["Cs"]), min_size=1, max_size=6),
)
values = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["it's", '"', "''", "'; DROP TABLE people; --", "1 OR 1=1", "\\", "NULL", "\n"]),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)
comparisons: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Eq, names, st.one_of(st.none(), values)),
    st.builds(In, names, st.lists(values, min_size=1, max_size=4).map(tuple)),
    st.builds(lambda name, low, include: Range(name, low=low, include_low=include), names, values, st.booleans()),
    st.builds(lambda name, high, include: Range(name, high=high, include_high=include), names, values, st.booleans()),
    st.builds(Range, names, values, values),
)
trees = st.recursive(
    comparisons,
    lambda parts: st.one_of(
        st.builds(And, st.lists(parts, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(parts, min_size=2, max_size=3).map(tuple)),
        st.builds(Not, parts),
    ),
    max_leaves=8,
)


@given(trees)
def test_a_written_filter_is_read_back_as_the_same_tree(tree: Filter) -> None:
    again = parse_filter(format_filter(tree))
    assert again == tree
    assert repr(again) == repr(tree)  # 1, 1.0 and TRUE are equal in Python, but not the same filter


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("camera_id = 3", Eq("camera_id", 3)),
        ("camera_id == 3", Eq("camera_id", 3)),
        ("camera_id != -3", Not(Eq("camera_id", -3))),
        ("camera_id <> 3", Not(Eq("camera_id", 3))),
        ("height<1.5e0", Range("height", high=1.5, include_high=False)),
        ("height <= .5", Range("height", high=0.5)),
        ("height > 5.", Range("height", low=5.0, include_low=False)),
        ("height >= +5", Range("height", low=5)),
        ("time BETWEEN '2024-05-01' and \"2024-06-01\"", Range("time", "2024-05-01", "2024-06-01")),
        ("time not between 1 and 2", Not(Range("time", 1, 2))),
        ("camera_id in (1, 2,3)", In("camera_id", (1, 2, 3))),
        ("camera_id NOT IN ('a')", Not(In("camera_id", ("a",)))),
        ("indoor = true", Eq("indoor", True)),
        ("indoor = False", Eq("indoor", False)),
        ("captions IS NULL", Eq("captions", None)),
        ("captions is not null", Not(Eq("captions", None))),
        ("name = 'O''Neil'", Eq("name", "O'Neil")),
        ('name = "a ""b"""', Eq("name", 'a "b"')),
        ("`camera id` = 3", Eq("camera id", 3)),
        ("a = 1 AND b = 2 or c = 3", Or((And((Eq("a", 1), Eq("b", 2))), Eq("c", 3)))),
        ("a = 1 AND (b = 2 or c = 3)", And((Eq("a", 1), Or((Eq("b", 2), Eq("c", 3)))))),
        ("not a = 1 and b = 2", And((Not(Eq("a", 1)), Eq("b", 2)))),
        ("  ( ( a = 1 ) )\n", Eq("a", 1)),
    ],
)
def test_every_form_of_the_grammar(text: str, tree: Filter) -> None:
    assert repr(parse_filter(text)) == repr(tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expression is empty"),
        ("   ", "expression is empty"),
        ("camera_id", r"expected a comparison .* at position 10, but the expression ends"),
        ("camera_id =", r"expected a number, a quoted string, TRUE or FALSE at position 12, but the expression ends"),
        ("camera_id = red", r"expected a number, .* at position 13, but there is 'red'"),
        ("= 3", r"expected a field name, NOT or \( at position 1, but there is '='"),
        (
            "camera_id = 3 time = 4",
            r"expected AND, OR or the end of the expression at position 15, but there is 'time'",
        ),
        ("(camera_id = 3", r"expected AND, OR or \) at position 15, but the expression ends"),
        ("camera_id = 3)", r"expected AND, OR or the end of the expression at position 14, but there is '\)'"),
        ("camera_id IN 3", r"expected \( at position 14"),
        ("camera_id IN ()", r"expected a number.* at position 15"),
        ("camera_id IN (1 2)", r"expected , or \) at position 17"),
        ("camera_id NOT 3", r"expected IN or BETWEEN at position 15"),
        ("camera_id BETWEEN 1, 2", r"expected AND at position 20"),
        ("camera_id IS 3", r"expected NULL at position 14"),
        ("camera_id = NULL", r"expected a number.* at position 13, but there is 'NULL'"),
        ("camera_id LIKE 'a'", r"expected a comparison .* at position 11, but there is 'LIKE'"),
        ("name = 'open", r"the quote ' at position 8 is never closed"),
        ("`open = 3", r"the quote ` at position 1 is never closed"),
        ("camera_id = 3; DROP TABLE x", r"unexpected '; DROP TABLE x' at position 14"),
        ("camera_id = 3abc", r"unexpected '3abc' at position 13"),
        ("camera_id = 99999999999999999999", r"does not fit a 64-bit integer"),
        ("height = 1e999", r"not a string, a finite number"),
        ("height = " + "9" * 5000, r"at position 10 has more than 400 characters"),
        ("(" * 70 + "a = 1" + ")" * 70, r"nested"),
        ("NOT " * 5000 + "a = 1", r"nested"),
    ],
)
def test_a_wrong_expression_says_where_and_what_is_expected(text: str, message: str) -> None:
    with pytest.raises(FilterError, match=message) as caught:
        parse_filter(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_either_a_filter_or_a_filter_error(text: str) -> None:
    try:
        tree = parse_filter(text)
    except FilterError:
        return
    assert parse_filter(format_filter(tree)) == tree


@pytest.mark.parametrize(
    "build",
    [
        lambda: Eq("", 3),
        lambda: Eq("a`b", 3),
        lambda: Eq("a", math.nan),
        lambda: Eq("a", 2**63),
        lambda: Eq("a", [1]),  # type: ignore[arg-type]
        lambda: Eq("a", "\ud800"),
        lambda: In("a", ()),
        lambda: In("a", [1]),  # type: ignore[arg-type]
        lambda: In("a", (1, None)),  # type: ignore[arg-type]
        lambda: Range("a"),
        lambda: Range("a", 1, 2, include_low=False),
        lambda: Range("a", high=2, include_low=False),
        lambda: And((Eq("a", 1),)),
        lambda: Or((Eq("a", 1), "b = 2")),  # type: ignore[arg-type]
        lambda: Not("a = 1"),  # type: ignore[arg-type]
    ],
)
def test_a_tree_that_cannot_be_written_cannot_be_built(build: Any) -> None:
    with pytest.raises(FilterError):
        build()


@pytest.mark.parametrize(
    ("text", "row", "result"),
    [
        ("camera = 3", {"camera": 3}, True),
        ("camera = 3", {"camera": 4}, False),
        ("camera = 3", {"camera": None}, None),
        ("camera = 3", {}, None),
        ("camera != 3", {"camera": None}, None),
        ("NOT camera = 3", {"camera": None}, None),
        ("camera IS NULL", {"camera": None}, True),
        ("camera IS NOT NULL", {"camera": None}, False),
        ("camera = 3 OR day = 1", {"camera": None, "day": 1}, True),
        ("camera = 3 OR day = 1", {"camera": None, "day": 2}, None),
        ("camera = 3 AND day = 1", {"camera": None, "day": 2}, False),
        ("camera = 3 AND day = 1", {"camera": None, "day": 1}, None),
        ("camera IN (1, 3)", {"camera": 3}, True),
        ("camera BETWEEN 1 AND 3", {"camera": 3}, True),
        ("camera < 3", {"camera": 3}, False),
        ("camera > 2.5", {"camera": 3}, True),
        ("time >= '2024-05-01'", {"time": "2024-05-01T08:00"}, True),
    ],
)
def test_missing_values_are_unknown_as_in_sql(text: str, row: dict[str, Any], result: bool | None) -> None:
    assert evaluate(parse_filter(text), row) is result


def test_the_fields_of_a_filter_are_known() -> None:
    assert field_names(parse_filter("a = 1 AND (NOT b IN (2) OR `c d` IS NULL)")) == {"a", "b", "c d"}
