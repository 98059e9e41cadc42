"""The command line quiets libraries for the whole process; tests that run it in this process undo that."""

from __future__ import annotations

import pytest


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
