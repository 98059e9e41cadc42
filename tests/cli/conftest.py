"""The command line quiets libraries for the whole process; tests that run it in this process undo that."""

from __future__ import annotations

import sys

import pytest

from reid_zoo.cli.main import main


@pytest.fixture(autouse=True)
def _restore_library_logging(monkeypatch):
    import warnings

    from transformers.utils import logging

    verbosity, show = logging.get_verbosity(), warnings.showwarning
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "")  # remembered, so that it is put back
        monkeypatch.delenv(name)
    yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()
    warnings.showwarning = show


@pytest.fixture
def run(monkeypatch, capfd):
    """Run the command line in this process: `run("search", ...)` → (exit status, stdout, stderr lines)."""

    def call(*arguments: object) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["reid-zoo", *map(str, arguments)])
        capfd.readouterr()
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capfd.readouterr()
        return status, out, err.strip().splitlines()

    return call
