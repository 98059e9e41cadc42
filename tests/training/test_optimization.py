"""Parameter groups and schedules are the ones the authors ran."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from reid_zoo.errors import ConfigurationError, RecipeError
from reid_zoo.training.optimization import (
    LearningRateSchedule,
    ParameterGroup,
    build_optimizer,
    group_parameters,
    learning_rate_factor,
)
from reid_zoo.training.recipe import load_recipe

UNIT = Path(__file__).parents[1] / "golden" / "cases" / "cfine" / "unit" / "cases.json"


def test_cfine_recipe_follows_the_official_learning_rates_of_every_epoch():
    golden = json.loads(UNIT.read_text())["lr_schedule"]
    settings = load_recipe("cfine-cuhk-pedes").optimization
    rates = {group.name: group.learning_rate for group in settings.parameter_groups}
    steps_per_epoch = 7
    factor = learning_rate_factor(settings.schedule, steps_per_epoch, settings.num_epochs)
    assert len(golden["rows"]) == settings.num_epochs
    for epoch, new_modules, backbone in golden["rows"]:
        for step in ((epoch - 1) * steps_per_epoch, epoch * steps_per_epoch - 1):  # constant inside an epoch
            assert rates["new_modules"] * factor(step) == pytest.approx(new_modules, rel=1e-9)
            assert rates["image_encoder"] * factor(step) == pytest.approx(backbone, rel=1e-9)
            assert rates["text_encoder"] * factor(step) == pytest.approx(backbone, rel=1e-9)


def test_cosine_warms_up_and_ends_at_its_final_factor():
    schedule = LearningRateSchedule(kind="cosine", warmup_epochs=1, final_factor=0.1)
    factor = learning_rate_factor(schedule, steps_per_epoch=10, num_epochs=5)
    values = [factor(step) for step in range(51)]
    assert values[:10] == sorted(values[:10])
    assert values[10] == pytest.approx(1.0)
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[50] == pytest.approx(0.1)


def test_first_matching_group_takes_a_parameter_and_vectors_may_be_spared():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    groups = (
        ParameterGroup(name="first", pattern=r"^0\.", learning_rate=0.1, weight_decay=0.5, decay_vectors=False),
        ParameterGroup(name="rest", learning_rate=0.2),
    )
    found = {group["name"]: group for group in group_parameters(model, groups)}
    assert found["first"]["params"] == [model[0].weight]
    assert found["first"]["weight_decay"] == 0.5
    assert found["first (no decay)"]["params"] == [model[0].bias]
    assert found["first (no decay)"]["weight_decay"] == 0.0
    assert found["rest"]["lr"] == 0.2
    assert len(found["rest"]["params"]) == 2


def test_frozen_parameters_are_left_alone():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    (group,) = group_parameters(model, (ParameterGroup(name="all", learning_rate=1.0),))
    assert group["params"] == [model.weight]


def test_a_parameter_without_a_group_and_a_group_without_parameters_are_errors():
    model = nn.Linear(2, 2)
    with pytest.raises(RecipeError, match="no parameter group takes 'bias'"):
        group_parameters(model, (ParameterGroup(name="weights", pattern="weight", learning_rate=1.0),))
    with pytest.raises(RecipeError, match=r"'heads' .* matches no parameter"):
        group_parameters(
            model,
            (
                ParameterGroup(name="heads", pattern="head", learning_rate=1.0),
                ParameterGroup(name="rest", learning_rate=1.0),
            ),
        )


@pytest.mark.parametrize(("kind", "expected"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_optimizer_kinds(kind, expected):
    groups = (ParameterGroup(name="all", learning_rate=1.0),)
    assert type(build_optimizer(nn.Linear(1, 1), kind, groups, (0.9, 0.999), 1e-8)) is expected


def test_unknown_kinds_are_refused():
    with pytest.raises(ConfigurationError, match="optimizer"):
        build_optimizer(nn.Linear(1, 1), "sgdd", (), (0.9, 0.999), 1e-8)
    with pytest.raises(ConfigurationError, match="kind"):
        LearningRateSchedule(kind="linear")
