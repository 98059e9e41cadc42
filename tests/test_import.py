"""Importing the package is cheap, and every public name is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import reid_zoo

HEAVY = ("torch", "transformers", "lancedb", "pyarrow", "torchvision", "matplotlib", "open_clip", "pandas")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["reid_zoo", "reid_zoo.errors", "reid_zoo.models.registry"])
def test_importing_is_cheap(module):
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.parametrize("name", reid_zoo.__all__)
def test_every_public_name_resolves(name):
    value = getattr(reid_zoo, name)
    assert getattr(value, "__name__", name) == name or isinstance(value, str)
    assert name in dir(reid_zoo)


def test_a_name_that_does_not_exist():
    with pytest.raises(AttributeError, match="no attribute 'ReIDModle'"):
        _ = reid_zoo.ReIDModle


def test_pipeline_is_the_one_of_transformers():
    import transformers

    assert reid_zoo.pipeline is transformers.pipeline
    assert reid_zoo.__version__
