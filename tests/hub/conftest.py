"""Fixtures of the tests that talk to a Hub: one on the loopback (`hub`), and this process turned to it (`hub_client`).

The client of ``huggingface_hub`` reads its endpoint, its cache folder and its offline switch when it is imported, which
has long happened. So a test either starts a subprocess with ``env=hub.environment()``, or asks for ``hub_client``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    """A running, empty hub. Its clients' ``HF_HOME`` is a temporary folder, `hub.home`."""
    with LoopbackHub(home=tmp_path / "hf-home") as server:
        yield server


@pytest.fixture
def hub_client(hub: LoopbackHub) -> Iterator[LoopbackHub]:
    """The same hub, with the ``huggingface_hub`` and ``transformers`` of this process turned to it, token included."""
    from huggingface_hub import close_session

    with pytest.MonkeyPatch.context() as patch:
        hub.attach(patch)
        yield hub
    close_session()
