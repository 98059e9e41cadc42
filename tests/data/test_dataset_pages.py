"""Every benchmark has a page in the documentation that agrees with what the loader knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from reid_zoo.data.dataset_info import BENCHMARKS, DatasetInfo

PAGES = Path(__file__).parents[2] / "docs" / "datasets"


@pytest.mark.parametrize("info", BENCHMARKS.values(), ids=BENCHMARKS)
def test_page_of_a_benchmark(info: DatasetInfo) -> None:
    page = (PAGES / f"{info.name}.md").read_text(encoding="utf-8")
    for heading in ("Getting it", "Allowed use", "Layout", "Published sizes", "Caveats"):
        assert f"\n## {heading}\n" in page
    assert f"Licence: {info.licence}." in page
    for folder in info.folders:
        assert f"{folder.rsplit('/', 1)[-1]}/" in page
    for split, counts in info.counts.items():
        cells = [split, counts.identities, counts.images, *([counts.captions] if info.modality == "text" else [])]
        row = " | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
        assert f"| {row} |" in page
    assert ("Retracted" in page) == bool(info.retracted)


def test_index_links_every_page_and_no_page_is_left_over() -> None:
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in PAGES.glob("*.md")} == {*BENCHMARKS, "README"}
    for name in BENCHMARKS:
        assert f"[`{name}`]({name}.md)" in index
