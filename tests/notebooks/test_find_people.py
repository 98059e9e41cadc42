"""The notebook runs from its first cell to its last, on less data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "find_people.ipynb"
SMALL = "PEOPLE, TEST_PEOPLE, EPOCHS = 12, 3, 1"


@pytest.mark.filterwarnings("ignore:a sentence of")  # a dozen people make a small vocabulary
def test_every_cell_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells), "kept without outputs"
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            exec(SMALL, names)
    assert len(names["answers"]) == 8
    assert names["sheet"].is_file()
    assert "'R1': " in capsys.readouterr().out
