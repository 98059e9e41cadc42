"""Whatever root of golden cases is given: every folder in it belongs to a harness."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

HARNESSES = {
    path.name.removeprefix("test_").removesuffix("_golden.py")
    for path in Path(__file__).parent.glob("test_*_golden.py")
}


def test_every_folder_of_the_root_has_a_harness(request):
    root = request.config.getoption("--golden-root")
    folders = {path.name for path in root.iterdir() if path.is_dir()}
    assert folders, f"{root} holds no cases"
    assert folders <= HARNESSES - {"ogor", "recipes"}, f"{root}: nothing reads {sorted(folders - HARNESSES)}"
