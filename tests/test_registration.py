"""What importing the package arranges with other libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# What torchvision does on import, as seen from outside: ask whether its compiled operators are there, and declare fake
# kernels for some of them whatever the answer was.
TORCHVISION = {
    "extension.py": "def _has_ops():\n    return False\n",
    "__init__.py": (
        "import torch\nfrom . import extension\n\n\n"
        "@torch.library.register_fake('torchvision::nms')\n"
        "def meta_nms(dets, scores, iou_threshold):\n    return dets\n"
    ),
}


@pytest.fixture
def mismatched_torchvision(tmp_path: Path) -> Path:
    """A directory with a torchvision whose compiled operators do not fit the installed torch."""
    (tmp_path / "torchvision").mkdir()
    for name, source in TORCHVISION.items():
        (tmp_path / "torchvision" / name).write_text(source)
    return tmp_path


def run(directory: Path, code: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_torchvision_of_another_torch_can_be_imported(mismatched_torchvision: Path) -> None:
    alone = run(mismatched_torchvision, "import torchvision")
    assert "torchvision::nms does not exist" in alone.stderr
    together = run(mismatched_torchvision, "import reid_zoo, torchvision; print(torchvision.__file__)")
    assert together.returncode == 0, together.stderr
    assert together.stdout.startswith(str(mismatched_torchvision))
