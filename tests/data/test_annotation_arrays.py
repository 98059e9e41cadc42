"""Reading a JSON array element by element gives what reading it at once gives, and refuses what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.data.annotation_arrays import iterate_json_array
from reid_zoo.errors import DatasetError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(elements=st.lists(VALUES, min_size=1, max_size=5), indent=st.sampled_from([None, 0, 2]), ascii=st.booleans())
def test_elements_are_those_of_the_whole_array(
    tmp_path_factory: pytest.TempPathFactory, elements: list[object], indent: int | None, ascii: bool
) -> None:
    path = tmp_path_factory.mktemp("array") / "records.json"
    path.write_text(f" {json.dumps(elements, indent=indent, ensure_ascii=ascii)}\n", encoding="utf-8-sig")
    assert list(iterate_json_array(path)) == elements


@settings(max_examples=60, deadline=None, derandomize=True)
@given(keep=st.integers(0, 10_000))
def test_every_cut_is_noticed(tmp_path_factory: pytest.TempPathFactory, keep: int) -> None:
    text = json.dumps([{"id": number, "captions": ["One, [two] {three}.", 'A "quote".']} for number in range(4)])
    path = tmp_path_factory.mktemp("cut") / "records.json"
    path.write_text(text[: keep % len(text)])
    with pytest.raises(DatasetError, match=r"is not JSON \(line 1, column \d+: .*is the file complete\?") as caught:
        list(iterate_json_array(path))
    assert "\n" not in str(caught.value)


def test_trailing_comma(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    path.write_text("[1,\n 2,\n]")
    with pytest.raises(DatasetError, match=r"line 3, column 1: Expecting value\), in or after record 2"):
        list(iterate_json_array(path))
