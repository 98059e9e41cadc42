"""The derived matrix: always what the table says, whatever happens to its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from reid_zoo.errors import GalleryError
from reid_zoo.gallery.engines import exact_matrix
from reid_zoo.gallery.engines.exact_matrix import ExactMatrix, TableReader

SIZE = 8


class Table:
    """Rows by id, with a revision that changes with the vector."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[int, np.ndarray]] = {}
        self.version = 0
        self.reads: list[int] = []

    def put(self, ids: Iterator[int] | list[int] | range, seed: int) -> None:
        self.version += 1
        generator = np.random.default_rng(seed)
        for i in ids:
            self.rows[i] = (1000 * self.version + i, generator.normal(size=SIZE).astype(np.float16))

    def remove(self, ids: list[int]) -> None:
        self.version += 1
        for i in ids:
            del self.rows[i]

    def reader(self) -> TableReader:
        def pairs() -> np.ndarray:
            return np.array([(i, revision) for i, (revision, _) in self.rows.items()], np.int64).reshape(-1, 2)

        def vectors(ids: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            chosen = [i for i in self.rows if ids is None or i in set(ids.tolist())]
            self.reads.append(len(chosen))
            for start in range(0, len(chosen), 3):
                part = chosen[start : start + 3]
                yield np.array(part, np.int64), np.stack([self.rows[i][1] for i in part])

        return TableReader(f"version {self.version}", pairs, vectors)

    def check(self, matrix: ExactMatrix) -> None:
        ids = sorted(self.rows)
        assert matrix.ids.tolist() == ids
        expected = np.array([self.rows[i][1] for i in ids], np.float16).reshape(-1, SIZE)
        np.testing.assert_array_equal(matrix.vectors, expected)
        lengths = np.linalg.norm(expected.astype(np.float64), axis=1)
        assert matrix.largest_norm >= lengths.max(initial=0) * (1 - 1e-12)


@pytest.fixture
def table() -> Table:
    table = Table()
    table.put([5, 3, 9, 1], seed=0)
    return table


@pytest.fixture
def matrix(tmp_path: Path, table: Table) -> ExactMatrix:
    matrix = ExactMatrix(tmp_path / "matrix", SIZE)
    matrix.update(table.reader())
    assert matrix.last_update == "rebuilt"
    return matrix


def test_it_follows_the_table(matrix: ExactMatrix, table: Table) -> None:
    table.check(matrix)
    matrix.update(table.reader())
    assert matrix.last_update == "current"
    table.put([20, 12], seed=1)
    matrix.update(table.reader())
    assert matrix.last_update == "appended"
    assert table.reads[-1] == 2, "only the new rows are read"
    table.check(matrix)
    for change in (
        lambda: table.put([3], seed=2),  # replaced
        lambda: table.remove([9, 20]),
        lambda: table.put([4], seed=3),  # new, but in between
    ):
        change()
        matrix.update(table.reader())
        assert matrix.last_update == "rebuilt"
        table.check(matrix)
    table.remove(list(table.rows))
    matrix.update(table.reader())
    table.check(matrix)
    table.put([0], seed=4)
    matrix.update(table.reader())
    table.check(matrix)


def test_a_new_version_with_the_same_rows_reads_no_vectors(matrix: ExactMatrix, table: Table) -> None:
    reads = len(table.reads)
    table.version += 1
    matrix.update(table.reader())
    assert len(table.reads) == reads
    table.check(matrix)


def test_another_process_finds_it_ready(matrix: ExactMatrix, table: Table, tmp_path: Path) -> None:
    other = ExactMatrix(tmp_path / "matrix", SIZE)
    other.update(table.reader())
    assert other.last_update == "loaded"
    table.check(other)
    table.put([30], seed=5)
    other.update(table.reader())
    assert other.last_update == "appended"
    matrix.update(table.reader())
    assert matrix.last_update == "loaded"
    table.check(matrix)


def damage_nothing_left(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def damage_vectors(folder: Path) -> None:
    path = next(folder.glob("*.f16"))
    data = bytearray(path.read_bytes())
    data[11] ^= 1
    path.write_bytes(data)


def damage_rows(folder: Path) -> None:
    path = next(folder.glob("*.i64"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_length(folder: Path) -> None:
    path = next(folder.glob("*.f16"))
    path.write_bytes(path.read_bytes()[:-2])


def damage_missing_file(folder: Path) -> None:
    next(folder.glob("*.f16")).unlink()


def damage_description(folder: Path) -> None:
    (folder / "matrix.json").write_text('{"format": 1, "tok')


def damage_format(folder: Path) -> None:
    description = json.loads((folder / "matrix.json").read_text())
    (folder / "matrix.json").write_text(json.dumps({**description, "format": 0}))


@pytest.mark.parametrize(
    "damage",
    [
        damage_nothing_left,
        damage_vectors,
        damage_rows,
        damage_length,
        damage_missing_file,
        damage_description,
        damage_format,
    ],
)
def test_whatever_is_damaged_it_comes_back(
    matrix: ExactMatrix, table: Table, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    matrix.close()
    damage(tmp_path / "matrix")
    again = ExactMatrix(tmp_path / "matrix", SIZE)
    again.update(table.reader())
    assert again.last_update == "rebuilt"
    table.check(again)
    assert len(list((tmp_path / "matrix").glob("*.f16"))) == 1, "the damaged files are gone"


def test_an_append_that_was_cut_off_leaves_no_trace(matrix: ExactMatrix, table: Table, tmp_path: Path) -> None:
    for path in [*(tmp_path / "matrix").glob("*.f16"), *(tmp_path / "matrix").glob("*.i64")]:
        with open(path, "ab") as file:
            file.write(b"\xff" * 21)
    again = ExactMatrix(tmp_path / "matrix", SIZE)
    again.update(table.reader())
    assert again.last_update == "loaded"
    table.put([40, 41], seed=6)
    again.update(table.reader())
    assert again.last_update == "appended"
    table.check(again)
    third = ExactMatrix(tmp_path / "matrix", SIZE)
    third.update(table.reader())
    assert third.last_update == "loaded"
    table.check(third)


@pytest.mark.parametrize("broken", ["directory", "writing"])
def test_where_files_cannot_be_written_it_lives_in_memory(
    table: Table, tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken == "directory":
        (tmp_path / "matrix").write_text("a file where the directory should be")
    else:

        def full(path: Path, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(exact_matrix, "write_durably", full)
    matrix = ExactMatrix(tmp_path / "matrix", SIZE)
    matrix.update(table.reader())
    assert matrix.last_update == "in memory"
    table.check(matrix)
    table.put([50], seed=7)
    matrix.update(table.reader())
    table.check(matrix)


def test_a_table_that_changes_while_it_is_read_is_an_error(table: Table, tmp_path: Path) -> None:
    reader = table.reader()
    table.remove([3])
    rows = np.array([(i, 0) for i in (1, 3, 5, 9)], np.int64)
    with pytest.raises(GalleryError, match="3 of 4"):
        ExactMatrix(tmp_path / "matrix", SIZE).update(TableReader("version", lambda: rows, reader.vectors))
    assert not list((tmp_path / "matrix").glob("*.f16"))


def test_blocks_of_chosen_rows(matrix: ExactMatrix, table: Table) -> None:
    ids = np.array([3, 9])
    parts = list(matrix.blocks(ids))
    assert np.concatenate([part[0] for part in parts]).tolist() == [3, 9]
    np.testing.assert_array_equal(
        np.concatenate([part[1] for part in parts]), np.stack([table.rows[i][1] for i in (3, 9)])
    )
