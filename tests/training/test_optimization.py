"""Parameter groups and schedules are the ones the authors ran."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from reid_zoo.errors import ConfigurationError, RecipeError
from reid_zoo.models.irra.modeling_irra import IRRAForTraining
from reid_zoo.models.vfe_tps.modeling_vfe_tps import VFETPSForTraining
from reid_zoo.training.optimization import (
    LearningRateSchedule,
    ParameterGroup,
    build_optimizer,
    group_parameters,
    learning_rate_factor,
)
from reid_zoo.training.recipe import load_recipe
from tiny_clip_models import build


def test_cosine_warms_up_and_ends_at_its_final_factor():
    schedule = LearningRateSchedule(kind="cosine", warmup_epochs=1, final_factor=0.1)
    factor = learning_rate_factor(schedule, steps_per_epoch=10, num_epochs=5)
    values = [factor(step) for step in range(51)]
    assert values[:10] == sorted(values[:10])
    assert values[10] == pytest.approx(1.0)
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[50] == pytest.approx(0.1)


PER_EPOCH = ("epoch_cosine", "epoch_linear", "epoch_exponential", "epoch_poly")


def rates(steps_per_epoch: int = 4, num_epochs: int = 20, **settings) -> list[float]:
    """Factor of every step."""
    factor = learning_rate_factor(LearningRateSchedule(**settings), steps_per_epoch, num_epochs)
    return [factor(step) for step in range(steps_per_epoch * num_epochs)]


@pytest.mark.parametrize("kind", PER_EPOCH)
def test_schedules_in_epochs_are_constant_inside_one_and_share_their_warmup(kind):
    found = rates(kind=kind, warmup_epochs=5, warmup_factor=0.1)
    epochs = found[::4]
    assert found == [value for value in epochs for _ in range(4)]
    assert epochs[:5] == pytest.approx([0.1, 0.28, 0.46, 0.64, 0.82])
    rest = epochs[5:]
    assert rest == sorted(rest, reverse=kind != "epoch_poly"), "the release's poly rises"
    assert len(set(rest)) == 15


def test_shapes_of_the_schedules_in_epochs():
    """With r the share of the epochs that are over: 0, 0.05, ... 0.95."""
    shares = [epoch / 20 for epoch in range(20)]
    expected = {
        "epoch_cosine": [(1 + math.cos(math.pi * r)) / 2 for r in shares],
        "epoch_linear": [1 - r for r in shares],
        "epoch_exponential": [0.5**r for r in shares],
        "epoch_poly": [0.5 ** (1 - r) for r in shares],
    }
    for kind, values in expected.items():
        assert rates(1, kind=kind, power=0.5) == pytest.approx(values)
        floored = rates(1, kind=kind, power=0.5, final_factor=0.2)
        assert floored == pytest.approx([0.2 + 0.8 * value for value in values])


def test_milestones_multiply_once_each():
    assert rates(1, kind="multistep", milestones=(5, 10), gamma=0.1) == pytest.approx(
        [1.0] * 5 + [0.1] * 5 + [0.01] * 10
    )


def test_epochs_may_differ_in_length():
    schedule = LearningRateSchedule(kind="multistep", milestones=(1, 2), gamma=0.1)
    factor = learning_rate_factor(schedule, 3, 3, epoch_ends=(2, 6, 7))
    assert [factor(step) for step in range(8)] == pytest.approx([1.0] * 2 + [0.1] * 4 + [0.01] * 2)


def adam_groups(recipe: str, model: nn.Module) -> dict[str, tuple[float, float]]:
    """Parameter → (rate relative to the towers', weight decay) as the recipe optimises it."""
    settings = load_recipe(recipe).optimization
    optimizer = build_optimizer(model, settings.optimizer, settings.parameter_groups, (0.9, 0.999), settings.eps)
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {
        names[parameter]: (group["lr"] / 1e-5, group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return found


def test_rates_follow_the_names_of_parameters():
    """Rates and decay that the release of IRRA and VFE-TPS gives (VFE-TPS spec, section 6)."""
    irra = adam_groups("irra-cuhk-pedes", build(IRRAForTraining))
    vfe_tps = adam_groups(
        "vfe_tps-cuhk-pedes", build(VFETPSForTraining, loss_terms=["matching", "gi2id", "g2id", "mim"])
    )
    for found, model, branch in (
        (irra, "irra", "implicit_relation_reasoning"),
        (vfe_tps, "vfe_tps", "masked_image_modeling"),
    ):
        for name, expected in {
            f"{model}.vision_model.layers.0.mlp.fc1.weight": (1.0, 4e-5),
            f"{model}.vision_model.pre_layernorm.weight": (1.0, 4e-5),
            f"{model}.text_model.position_embedding": (1.0, 4e-5),
            f"{model}.vision_model.layers.0.mlp.fc1.bias": (2.0, 0.0),
            f"{branch}.encoder.cross_attn.in_proj.weight": (5.0, 4e-5),
            f"{branch}.encoder.layers.0.mlp.fc2.weight": (5.0, 4e-5),
            f"{branch}.encoder.cross_attn.in_proj.bias": (2.0, 0.0),
            f"{branch}.encoder.query_layer_norm.weight": (1.0, 4e-5),
            "identity_loss.classifier.weight": (5.0, 4e-5),
            "identity_loss.classifier.bias": (5.0, 0.0),
        }.items():
            assert found[name] == pytest.approx(expected), name
    assert irra["implicit_relation_reasoning.head.dense.weight"] == pytest.approx((5.0, 4e-5))
    assert irra["implicit_relation_reasoning.head.dense.bias"] == pytest.approx((5.0, 0.0))
    for name, expected in {
        "masked_image_modeling.mask_token": (1.0, 4e-5),
        "masked_image_modeling.decoder.projection.weight": (1.0, 4e-5),
        "masked_image_modeling.decoder.projection.bias": (2.0, 0.0),
        "joint_identity_loss.classifier.weight": (1.0, 4e-5),
        "joint_identity_loss.classifier.bias": (2.0, 0.0),
    }.items():
        assert vfe_tps[name] == pytest.approx(expected), name


@pytest.mark.parametrize(
    ("recipe", "model_class", "terms"),
    [
        ("irra-cuhk-pedes", IRRAForTraining, ["sdm"]),
        ("irra-cuhk-pedes", IRRAForTraining, ["sdm", "mlm"]),
        ("vfe_tps-cuhk-pedes", VFETPSForTraining, ["matching", "gvfc", "mim"]),  # the recipe's own: no classifier
        ("vfe_tps-cuhk-pedes", VFETPSForTraining, ["matching"]),
    ],
)
def test_a_recipe_trains_without_the_heads_that_a_switch_takes_away(recipe, model_class, terms):
    assert adam_groups(recipe, build(model_class, loss_terms=terms))


def test_an_optional_group_may_match_nothing():
    groups = (
        ParameterGroup(name="heads", pattern="head", learning_rate=1.0, optional=True),
        ParameterGroup(name="rest", learning_rate=0.5),
    )
    (group,) = group_parameters(nn.Linear(2, 2), groups)
    assert (group["name"], len(group["params"])) == ("rest", 2)
    both = nn.ModuleDict({"head": nn.Linear(2, 2), "body": nn.Linear(2, 2)})
    assert [group["name"] for group in group_parameters(both, groups)] == ["heads", "rest"]


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
    optimizer = build_optimizer(nn.Linear(1, 1), kind, groups, (0.9, 0.999), 1e-8)
    assert type(optimizer) is expected
    assert optimizer.defaults["fused"] is True
    with torch.device("meta"):  # what fused kernels do not know is left to torch
        assert build_optimizer(nn.Linear(1, 1), kind, groups, (0.9, 0.999), 1e-8).defaults["fused"] is None


def test_unknown_kinds_are_refused():
    with pytest.raises(ConfigurationError, match="optimizer"):
        build_optimizer(nn.Linear(1, 1), "sgdd", (), (0.9, 0.999), 1e-8)
    with pytest.raises(RecipeError, match="kind"):
        LearningRateSchedule(kind="linear")
