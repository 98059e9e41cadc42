"""Recipes are typed: a typo or a wrong value is an error that says what to write instead."""

from __future__ import annotations

import re

import pytest

from reid_zoo.data import BENCHMARKS
from reid_zoo.errors import RecipeError
from reid_zoo.models.registry import get_method
from reid_zoo.models.reported_results import REPORTED_RESULTS
from reid_zoo.training.recipe import Recipe, list_recipes, load_recipe


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_of_the_package_loads_and_bears_its_name(name):
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    assert recipe.name == name
    assert name.startswith(f"{recipe.method}-")
    assert recipe.description
    assert bool(recipe.aims_at) == ("-tiny" not in name)


@pytest.mark.parametrize("name", [name for name in list_recipes() if load_recipe(name).evaluation.select_best])
def test_a_recipe_says_by_which_images_its_epoch_is_chosen(name):
    """Several releases choose it on test; ICFG-PEDES has nothing else."""
    recipe = load_recipe(name)
    assert recipe.evaluation.split == "val"
    assert ("last epoch" in recipe.description) == ("icfg" in recipe.dataset)
    assert ("selected on val" in recipe.description) == ("icfg" not in recipe.dataset)


def test_published_cfine_recipe_is_the_official_one():
    recipe = load_recipe("cfine-cuhk-pedes")
    assert recipe.optimization.batch_size == 32
    assert recipe.optimization.num_epochs == 50
    assert recipe.optimization.optimizer == "adam"
    assert recipe.optimization.parameter_groups[0].weight_decay == 4e-5
    assert [group.weight_decay for group in recipe.optimization.parameter_groups[1:]] == [0.0, 0.0]
    assert recipe.optimization.max_grad_norm == 0.0
    assert recipe.optimization.drop_last
    assert recipe.augmentation.horizontal_flip == 0.5
    assert recipe.augmentation.erase_probability == recipe.augmentation.crop_padding == 0


def test_overrides_reach_nested_fields_by_path_or_by_unique_name():
    recipe = load_recipe(
        "cfine-tiny",
        [
            "optimization.num_epochs=2",
            "optimizer=adam",
            "model.config.triplet_weight=1",
            "optimization.schedule.warmup_epochs=1",
            "processor.image_size=[96, 32]",
            "max_grad_norm=1e-1",
            "seed=7",
        ],
    )
    assert recipe.optimization.num_epochs == 2
    assert recipe.optimization.optimizer == "adam"
    assert recipe.model.config["triplet_weight"] == 1
    assert recipe.optimization.schedule.warmup_epochs == 1
    assert recipe.processor.image_size == (96, 32)
    assert recipe.optimization.max_grad_norm == pytest.approx(0.1)
    assert recipe.seed == 7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_epoch=3", "did you mean 'num_epochs'"),
        ("optimization.num_epoch=3", "did you mean 'optimization.num_epochs'"),
        ("batch_size=3", "several sections have that field; write optimization.batch_size or evaluation.batch_size"),
        ("num_epochs", "write field=value"),
        ("num_epochs=many", "optimization.num_epochs must be of type float"),
        ("optimization.batch_size=2.5", "optimization.batch_size must be of type int"),
        ("optimization.batch_size=true", "optimization.batch_size must be of type int"),
        ("image_size=96", "processor.image_size must be a list"),
        ("optimization=3", "optimization must be a mapping"),
        ("seed.value=3", "seed must be of type int"),
        ("horizontal_flip=2", "horizontal_flip is 2, but must lie between 0 and 1"),
        ("num_epochs=[1", "not valid YAML"),
    ],
)
def test_bad_overrides_say_what_is_wrong(override, message):
    with pytest.raises(RecipeError, match=message.replace("[", r"\[")):
        load_recipe("cfine-tiny", [override])


def test_unknown_recipe_suggests_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'cfine-tiny'"):
        load_recipe("cfine-tyni")


def test_a_recipe_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ndescription: mine\nmethod: cfine\n")
    assert load_recipe(path).name == "mine"
    path.write_text("name: mine\nmethod: cfine\n")
    with pytest.raises(RecipeError, match="description is missing"):
        load_recipe(path)
    path.write_text("[")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(path)
    path.write_text("3")
    with pytest.raises(RecipeError, match="mapping"):
        load_recipe(path)
    with pytest.raises(RecipeError, match="no recipe file"):
        load_recipe(tmp_path / "other.yaml")


def write(folder, name, text):
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_a_recipe_holds_only_what_differs_from_the_one_it_extends(tmp_path):
    write(
        tmp_path,
        "base",
        """
name: base
description: base
method: clip_reid
aims_at: figures
dataset_options: {check_images: false}
model: {config: {sie_coef: 2.0, neck_feature: after}}
stage_one: {num_epochs: 3}
optimization:
  batch_size: 64
  schedule: {kind: multistep, milestones: [1, 2]}
""",
    )
    path = write(
        tmp_path,
        "child",
        """
extends: base.yaml
name: child
description: child
dataset_options: null
model: {config: {neck_feature: before}}
stage_one: null
optimization:
  schedule: {milestones: [5]}
""",
    )
    recipe = load_recipe(path, ["optimization.batch_size=8"])
    assert (recipe.name, recipe.method, recipe.aims_at) == ("child", "clip_reid", "figures")
    assert recipe.model.config == {"sie_coef": 2.0, "neck_feature": "before"}
    assert recipe.stage_one is None
    assert recipe.dataset_options == {}
    assert recipe.optimization.batch_size == 8
    assert (recipe.optimization.schedule.kind, recipe.optimization.schedule.milestones) == ("multistep", (5,))


def test_a_recipe_of_ones_own_may_extend_one_of_the_package(tmp_path):
    path = write(tmp_path, "mine", "extends: cfine-tiny\nname: mine\ndescription: mine\nseed: 3\n")
    mine, theirs = load_recipe(path), load_recipe("cfine-tiny")
    assert mine.seed == 3
    assert mine.optimization == theirs.optimization
    write(tmp_path, "mine", "extends: cfine-tiny\nname: mine\n")
    with pytest.raises(RecipeError, match="description is missing"):
        load_recipe(path)


def test_recipes_that_extend_each_other_or_nothing_are_refused(tmp_path):
    first = write(tmp_path, "first", "extends: second.yaml\nname: first\ndescription: d\n")
    write(tmp_path, "second", "extends: first.yaml\nname: second\ndescription: d\n")
    with pytest.raises(RecipeError, match=r"in a circle: .*first\.yaml → .*second\.yaml → .*first\.yaml"):
        load_recipe(first)
    for parent, message in (
        ("cfine-tyni", "did you mean 'cfine-tiny'"),
        ("other.yaml", "there is no recipe file .*other.yaml"),
        ("[1]", r"extends must be the name of a recipe, not \[1\]"),
    ):
        write(tmp_path, "first", f"extends: {parent}\nname: first\ndescription: d\n")
        with pytest.raises(RecipeError, match=message):
            load_recipe(first)
    write(tmp_path, "first", "extends: cfine-tiny\nname: first\ndescription: d\noptimisation: {batch_size: 3}\n")
    with pytest.raises(RecipeError, match="did you mean 'optimization'"):
        load_recipe(first)
    with pytest.raises(RecipeError, match="unknown field 'extends'"):
        load_recipe("cfine-tiny", ["extends=cfine-cuhk-pedes"])


def test_hyphens_in_the_name_of_a_data_set_may_be_left_out():
    assert load_recipe("clip_reid-market-1501-vit").name == "clip_reid-market1501-vit"
    assert load_recipe("clip_reid-veri-776-vit-sie-olp").name == "clip_reid-veri776-vit-sie-olp"


def test_there_is_a_recipe_for_every_published_row():
    names = set(list_recipes())
    texts = ("cuhk-pedes", "icfg-pedes", "rstpreid")
    wanted = {f"cfine-{text}{variant}" for text in texts for variant in ("", "-imagenet-vit")}
    wanted |= {f"{method}-{text}" for method in ("vfe_tps", "irra", "mgcc-occluded") for text in texts}
    sets = ("market1501", "msmt17", "occluded-duke", "veri776", "vehicleid")
    variants = ("vit", "rn50", "vit-baseline", "rn50-baseline")
    wanted |= {f"clip_reid-{dataset}-{variant}" for dataset in sets for variant in variants}
    wanted |= {f"clip_reid-{dataset}-vit-{'olp' if dataset == 'vehicleid' else 'sie-olp'}" for dataset in sets}
    assert wanted <= names
    for name in wanted:
        recipe = load_recipe(name)
        assert recipe.optimization.num_workers == 4
        assert recipe.stage_one is None or recipe.stage_one.num_workers == 4
        assert "(Table" in recipe.aims_at or "repository" in recipe.aims_at
        assert get_method(recipe.method)
        assert recipe.dataset in BENCHMARKS


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        (name, result.metrics)
        for method, variants in {
            "irra": {"CLIP ViT-B/16": ""},
            "vfe_tps": {"CLIP ViT-B/16": ""},
            "mgcc": {"CLIP ViT-B/32": ""},
            "cfine": {"CLIP ViT-B/16 + BERT": "", "ImageNet ViT-B/16 + BERT": "-imagenet-vit"},
            "clip_reid": {
                "ViT-B/16": "-vit",
                "RN50": "-rn50",
                "ViT-B/16 + SIE + OLP": "-vit-sie-olp",
                "ViT-B/16 + OLP": "-vit-olp",
                "ViT-B/16 baseline": "-vit-baseline",
                "RN50 baseline": "-rn50-baseline",
            },
        }.items()
        for result in REPORTED_RESULTS[method]
        if result.variant in variants and result.dataset != "dukemtmc-reid"
        for name in [f"{method}-{result.dataset}{variants[result.variant]}"]
    ],
)
def test_the_figures_aimed_at_are_the_reported_ones(name, figures):
    aims = load_recipe(name).aims_at
    for value in figures.values():
        assert re.search(rf"(?<![\d.]){value}0*(?!\d)", aims), (value, aims)
