"""What the zoo says about its methods is true of their classes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from reid_zoo.errors import ConfigurationError
from reid_zoo.models.registry import METHODS, get_method
from reid_zoo.models.reported_results import REPORTED_RESULTS


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_queries_and_parameters_are_those_of_the_model(method):
    config = method.config_class()
    with torch.device("meta"):
        model = method.model_class(config)
    assert method.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert ("text" in method.queries) == model.supports_text
    assert "image" in method.queries
    assert ("camera_ids" in method.optional_inputs) == hasattr(config, "sie_camera")
    assert config.model_type == method.model_type


def test_every_method_has_reported_figures_in_per_cent_with_a_source():
    assert set(REPORTED_RESULTS) == set(METHODS)
    for results in REPORTED_RESULTS.values():
        for result in results:
            assert "R1" in result.metrics
            assert all(0 < value <= (300 if name == "Rsum" else 100) for name, value in result.metrics.items())
            assert result.source
            if "R5" in result.metrics:
                assert result.metrics["R1"] < result.metrics["R5"]


def test_the_registry_loads_neither_torch_nor_transformers():
    code = (
        "import sys; import reid_zoo.models.registry, reid_zoo.models.reported_results; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_an_unknown_method_is_answered_with_the_nearest_name():
    with pytest.raises(ConfigurationError, match="did you mean 'vfe_tps'"):
        get_method("vfe-tps")
