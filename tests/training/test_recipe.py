"""Recipes are typed: a typo or a wrong value is an error that says what to write instead."""

from __future__ import annotations

import pytest

from reid_zoo.errors import RecipeError
from reid_zoo.training.recipe import Recipe, list_recipes, load_recipe


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_of_the_package_loads_and_bears_its_name(name):
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    assert recipe.name == name
    assert name.startswith(f"{recipe.method}-")
    assert recipe.description
    assert bool(recipe.aims_at) == (not name.endswith("-tiny"))


def test_published_cfine_recipe_is_the_official_one():
    recipe = load_recipe("cfine-cuhk-pedes")
    assert recipe.optimization.batch_size == 32
    assert recipe.optimization.num_epochs == 50
    assert recipe.optimization.optimizer == "adam"
    assert recipe.optimization.parameter_groups[0].weight_decay == 4e-5
    assert [group.weight_decay for group in recipe.optimization.parameter_groups[1:]] == [0.0, 0.0]
    assert recipe.optimization.max_grad_norm == 0.0
    assert recipe.processor.image_size == (224, 224)
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
