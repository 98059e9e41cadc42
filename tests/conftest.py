"""Options and surroundings shared by all tests: one thread, no network, nothing outside of temporary folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import reid_zoo  # noqa: F401  # before anything imports torchvision: see reid_zoo._registration


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-root",
        type=Path,
        default=Path(__file__).parent / "golden" / "cases",
        help="folder of golden cases, <method>/<case>/config.json (default: the ones kept with the tests)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A golden root may lack cases or files that a test is about: there is then nothing to test, which is no skip."""
    empty = [
        item
        for item in items
        if any(
            str(mark.kwargs.get("reason", "")).startswith("got empty parameter set")
            for mark in item.iter_markers("skip")
        )
    ]
    if empty and config.getoption("--golden-root") != Path(__file__).parent / "golden" / "cases":
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]
