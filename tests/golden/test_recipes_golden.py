"""Every published recipe optimises as the authors' code does: each parameter's rate and decay, and each epoch's rate."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from cfine_unit_case import cfine_schedule
from clip_dual_encoder_case import assert_optimizer_groups
from golden_case import KEPT, GoldenCase, find_cases, side_files
from test_clip_reid_golden import overrides_of
from test_vfe_tps_golden import stated_schedule

from reid_zoo.conversion import convert_official_checkpoint
from reid_zoo.models.clip_reid.conversion_clip_reid import convert_state_dict
from reid_zoo.models.conversion_report import ConversionReport
from reid_zoo.models.irra import conversion_irra
from reid_zoo.models.registry import get_method
from reid_zoo.models.vfe_tps import conversion_vfe_tps
from reid_zoo.training.building import build_config
from reid_zoo.training.optimization import LearningRateSchedule, group_parameters, learning_rate_factor
from reid_zoo.training.recipe import OptimizationSettings, Recipe, list_recipes, load_recipe

PUBLISHED = [name for name in list_recipes() if load_recipe(name).aims_at]
CONVERSIONS = {"irra": conversion_irra, "vfe_tps": conversion_vfe_tps}
STEPS = 7  # per epoch


def of_method(method: str) -> list[str]:
    return [name for name in PUBLISHED if load_recipe(name).method == method]


def rates(settings: OptimizationSettings) -> list[float]:
    """Factor of every epoch; it must not change inside of one."""
    factor = learning_rate_factor(settings.schedule, STEPS, settings.num_epochs)
    found = [[factor(epoch * STEPS + step) for step in range(STEPS)] for epoch in range(int(settings.num_epochs))]
    assert all(len(set(epoch)) == 1 for epoch in found)
    return [epoch[0] for epoch in found]


def meta_model(recipe: Recipe) -> Any:
    method = get_method(recipe.method)
    fields = {"num_classes": 10, **({"num_cameras": 6, "num_views": 8} if method.optional_inputs else {})}
    with torch.device("meta"):
        return method.training_class(build_config(recipe, fields))


@pytest.mark.parametrize("name", list_recipes())
def test_every_parameter_of_every_recipe_has_a_group(name):
    recipe = load_recipe(name)
    model = meta_model(recipe)
    for stage, settings in ((1, recipe.stage_one), (2, recipe.optimization)):
        if settings is None:
            continue
        if stage == 1:
            model.set_training_stage(1)
        elif recipe.stage_one is not None:
            model.set_training_stage(2)
        grouped = [
            id(value) for group in group_parameters(model, settings.parameter_groups) for value in group["params"]
        ]
        assert sorted(grouped) == sorted(id(value) for value in model.parameters() if value.requires_grad)


@pytest.mark.parametrize("name", of_method("irra") + of_method("vfe_tps"))
def test_groups_of_the_irra_family(name, request):
    method = load_recipe(name).method
    conversion = CONVERSIONS[method]
    for file in side_files(request.config.getoption("--golden-root"), f"{method}/optimizer_groups_full.json"):
        assert_optimizer_groups(
            file,
            method,
            conversion.infer_config,
            conversion.convert_state_dict,
            get_method(method).training_class,
            name,
        )


@pytest.mark.parametrize("name", of_method("irra") + of_method("vfe_tps"))
def test_rates_of_the_irra_family(name, request):
    """As tabulated by the official code, where the table has the recipe's settings; the kept one has to."""
    settings = load_recipe(name).optimization

    def compared(schedule: LearningRateSchedule, epochs: float) -> tuple[Any, ...]:
        return schedule.kind, schedule.warmup_epochs, schedule.warmup_factor, schedule.final_factor, epochs

    for file in side_files(request.config.getoption("--golden-root"), "vfe_tps/lr_schedule.json"):
        content = json.loads(file.read_text())
        expected = content["multipliers"].get("cosine", [])
        stated = compared(stated_schedule(content["description"], "cosine"), len(expected))
        if stated == compared(settings.schedule, settings.num_epochs):
            assert rates(settings) == pytest.approx(expected)
        else:
            assert KEPT not in file.parents


@pytest.mark.parametrize("name", of_method("cfine"))
def test_groups_and_rates_of_cfine(name, request):
    recipe = load_recipe(name)
    settings = recipe.optimization
    model = meta_model(recipe)
    names = {id(value): parameter for parameter, value in model.named_parameters()}
    for group in group_parameters(model, settings.parameter_groups):
        for value in group["params"]:
            parameter = names[id(value)]
            is_image, is_text = parameter.startswith("cfine.vision_model."), parameter.startswith("cfine.text_model.")
            assert group["weight_decay"] == (4e-5 if is_image else 0.0), parameter  # CFine spec, section 11
            assert group["lr"] == (1e-5 if is_image or is_text else 1e-4), parameter
    for file in side_files(request.config.getoption("--golden-root"), "cfine/unit/cases.json"):
        table = json.loads(file.read_text()).get("lr_schedule")
        if table is None and KEPT not in file.parents:
            continue
        stated = (cfine_schedule(table), table["base_lrs"], len(table["rows"]))
        if stated != (settings.schedule, [1e-4, 1e-5], settings.num_epochs):
            assert KEPT not in file.parents  # the kept table is the recipe's
            continue
        for factor, (_, new_modules, backbone) in zip(rates(settings), table["rows"], strict=True):
            assert 1e-4 * factor == pytest.approx(new_modules, rel=1e-9)
            assert 1e-5 * factor == pytest.approx(backbone, rel=1e-9)


@pytest.mark.parametrize("name", of_method("mgcc"))
def test_groups_and_rates_of_mgcc(name):
    """MGCC spec, section 9."""
    recipe = load_recipe(name)
    model = meta_model(recipe)
    names = {id(value): parameter for parameter, value in model.named_parameters()}
    for group in group_parameters(model, recipe.optimization.parameter_groups):
        for value in group["params"]:
            towers = names[id(value)].startswith(("mgcc.vision_model.", "mgcc.text_model."))
            assert (group["lr"], group["weight_decay"]) == (1e-5 if towers else 1e-4, 0.0)
    assert rates(recipe.optimization) == pytest.approx([1.0] * 20 + [0.1] * 20 + [0.01] * 20)


def clip_reid_cases(root: Path) -> list[GoldenCase]:
    return [GoldenCase(folder) for folder in find_cases(root, "clip_reid")]


def backbone_of(recipe: Recipe) -> str:
    return str(recipe.model.config.get("backbone", "vit_b16"))


# Base rate, weight decay, epochs of stage two and of stage one (CLIP-ReID spec, section 12).
CLIP_REID = {
    ("vit_b16", "person"): (5e-6, 1e-4, 60, 120),
    ("vit_b16", "veri-776"): (5e-6, 1e-4, 60, 60),
    ("vit_b16", "vehicleid"): (5e-5, 1e-4, 60, 60),
    ("rn50", "person"): (3.5e-4, 5e-4, 120, 60),
    ("rn50", "veri-776"): (3.5e-4, 5e-4, 120, 60),
    ("rn50", "vehicleid"): (3.5e-4, 5e-4, 120, 60),
}


def settings_of(recipe: Recipe) -> tuple[float, float, int, int]:
    objects = recipe.dataset if recipe.dataset in ("veri-776", "vehicleid") else "person"
    return CLIP_REID[backbone_of(recipe), objects]


@pytest.mark.parametrize("name", of_method("clip_reid"))
def test_rates_of_clip_reid(name, request):
    recipe = load_recipe(name)
    base, _, epochs, first_epochs = settings_of(recipe)
    second = [base * factor for factor in rates(recipe.optimization)]
    start, milestones = (0.1, (30, 50)) if backbone_of(recipe) == "vit_b16" else (0.01, (40, 70))
    spec = [
        base * (start * (1 - t / 10) + t / 10 if t < 10 else 1) * 0.1 ** sum(m <= t for m in milestones)
        for t in range(1, epochs + 1)
    ]
    assert second == pytest.approx(spec, rel=1e-6)
    first = []
    if recipe.stage_one is not None:
        (group,) = recipe.stage_one.parameter_groups
        assert (group.learning_rate, group.weight_decay) == (3.5e-4, 1e-4)
        first = [group.learning_rate * factor for factor in rates(recipe.stage_one)]
        low, high, count = 1e-6, 3.5e-4, first_epochs
        spec = [
            1e-5 + t * (high - 1e-5) / 5 if t < 5 else low + (high - low) * (1 + math.cos(math.pi * t / count)) / 2
            for t in range(1, count + 1)
        ]
        assert first == pytest.approx(spec, rel=1e-6)
    second_settings = {"max_epochs": epochs, "base_lr": base, "warmup_iters": 10, "warmup_factor": start}
    second_settings |= {"steps": list(milestones), "gamma": 0.1}
    first_settings = {"max_epochs": len(first), "base_lr": 3.5e-4, "warmup_lr_init": 1e-5, "lr_min": 1e-6}
    first_settings |= {"warmup_epochs": 5}
    for case in clip_reid_cases(request.config.getoption("--golden-root")):
        if second_settings.items() <= case.config["stage2_schedule"].items():
            assert second == pytest.approx(case.expected["lr.stage2"].tolist(), rel=1e-6)
        if first_settings.items() <= case.config["stage1_schedule"].items():
            assert first == pytest.approx(case.expected["lr.stage1"].tolist(), rel=1e-6)


def test_groups_of_clip_reid(request):
    """Every group of every recipe, on the cases' models: rates relative to the base rate, which one recipe changes.

    Only on cases with the decays and the factor of biases that the recipe has; of the kept ones each recipe has some.
    """
    seen = set()
    root = request.config.getoption("--golden-root")
    for case in clip_reid_cases(root):
        official = dict(case.config["stage2_param_groups"]["groups"])
        case_rate = case.config["stage2_schedule"]["base_lr"]
        keys = [key.removeprefix("module.") for key in case.checkpoint]
        marked = {key: torch.full((1,) * max(1, case.checkpoint[key].ndim), float(i)) for i, key in enumerate(keys)}
        model = convert_official_checkpoint("clip_reid", case.checkpoint, **overrides_of(case.config))
        converted = convert_state_dict(marked, ConversionReport("clip_reid"), config=model.config)
        official_key = {ours: keys[int(value.flatten()[0])] for ours, value in converted.items()}
        names = {id(value): name for name, value in model.named_parameters()}
        recipes = [load_recipe(name) for name in of_method("clip_reid")]
        for recipe in (recipe for recipe in recipes if backbone_of(recipe) == model.config.backbone):
            base, decay, _, _ = settings_of(recipe)
            wanted = {"weight_decay": decay, "weight_decay_bias": decay, "bias_lr_factor": 2}
            if not wanted.items() <= case.config["stage2_schedule"].items():
                continue
            seen.add(recipe.name)
            compared = set()
            for group in group_parameters(model, recipe.optimization.parameter_groups):
                for value in group["params"]:
                    key = official_key[names[id(value)]]
                    rate, official_decay = official[key]
                    assert group["lr"] / base == pytest.approx(rate / case_rate, rel=1e-9), (recipe.name, key)
                    assert group["weight_decay"] == decay == official_decay, (recipe.name, key)
                    compared.add(key)
            assert compared == set(official), recipe.name
    assert root != KEPT or seen == set(of_method("clip_reid"))


@pytest.mark.parametrize("name", of_method("clip_reid"))
def test_settings_of_clip_reid(name):
    """CLIP-ReID spec, section 12."""
    recipe = load_recipe(name)
    config = meta_model(recipe).config
    vit, vehicle = config.backbone == "vit_b16", recipe.dataset in ("veri-776", "vehicleid")
    assert tuple(config.vision_config.image_size) == ((256, 256) if vehicle else (256, 128))
    assert config.prompt_object == ("vehicle" if vehicle else "person")
    assert config.id_loss_weight == (0.25 if vit and config.uses_text else 1.0)
    assert (config.triplet_loss_weight, config.i2t_loss_weight, config.triplet_margin) == (1.0, 1.0, 0.3)
    smoothed = recipe.dataset != "vehicleid" or (vit and config.uses_text)
    assert config.label_smoothing == (0.1 if smoothed else 0.0)
    assert (recipe.sampler.kind, recipe.sampler.images_per_identity) == ("identity", 4)
    _, _, epochs, first_epochs = settings_of(recipe)
    assert (recipe.optimization.batch_size, recipe.optimization.num_epochs) == (64, epochs)
    assert (recipe.stage_one is not None) == (config.training_mode == "two_stage")
    if recipe.stage_one is not None:
        batch = 256 if recipe.dataset == "vehicleid" else 64
        assert (recipe.stage_one.batch_size, recipe.stage_one.num_epochs) == (batch, first_epochs)
        assert not recipe.stage_one.drop_last
    overlapping, informed = "olp" in name, "sie" in name
    if vit:
        stride = config.vision_config.patch_stride or config.vision_config.patch_size
        assert stride == (12 if overlapping else 16)
    assert (config.sie_camera, config.sie_view) == (informed, informed and recipe.dataset == "veri-776")
    if config.uses_side_information:
        assert config.sie_coef == 1.0
    assert recipe.dataset_options.get("accept_retracted") is None
