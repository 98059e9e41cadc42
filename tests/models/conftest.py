"""Fixtures of the contract that every model type keeps: the cases of `contract_cases`, each built once."""

from __future__ import annotations

import pytest
import torch

from contract_cases import CASES, BuiltCase, build_case

torch.set_num_threads(1)


@pytest.fixture(scope="session", params=CASES, ids=str)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BuiltCase:
    """Every case; tests change copies only."""
    return _build(request.param, tmp_path_factory)


@pytest.fixture(scope="session", params=[case for case in CASES if case.has_text], ids=str)
def built_with_text(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BuiltCase:
    """Every case of a method that takes sentences."""
    return _build(request.param, tmp_path_factory)


@pytest.fixture(scope="session", params=[case for case in CASES if not case.has_text], ids=str)
def built_without_text(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BuiltCase:
    """Every case of a method that takes images only."""
    return _build(request.param, tmp_path_factory)


_BUILT: dict[str, BuiltCase] = {}


def _build(case, tmp_path_factory: pytest.TempPathFactory) -> BuiltCase:
    name = str(case)
    if name not in _BUILT:
        _BUILT[name] = build_case(case, tmp_path_factory.mktemp("model"))
    return _BUILT[name]


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device of this machine."""
    return torch.device(request.param)


@pytest.fixture
def log(caplog):
    """Records of transformers' log."""
    from transformers.utils import logging

    logging.enable_propagation()
    yield caplog
    logging.disable_propagation()
