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
