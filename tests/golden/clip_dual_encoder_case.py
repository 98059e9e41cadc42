"""What the golden tests of IRRA and VFE-TPS share: settings of a case, gradients and names under official keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from golden_case import KEPT
from torch import Tensor, nn

from reid_zoo.models.conversion_report import ConversionReport
from reid_zoo.training.optimization import group_parameters
from reid_zoo.training.recipe import load_recipe

# Facts about a case that are no settings of ours, or that `clip_overrides` checks.
FAMILY_NOT_SETTINGS = {
    "batch_size",
    "clip",
    "grad_keys",
    "grid",
    "head_rule",
    "image_size",
    "model",
    "notes",
    "store_first_n",
    "stride_size",
}


def clip_overrides(config: dict) -> dict[str, Any]:
    """Sizes that shapes do not tell; those that they tell are passed too, so that a wrong one would not load."""
    assert config["head_rule"] == "attention heads = width // 64 everywhere"
    clip = config["clip"]
    return {
        "image_size": config["image_size"],
        "stride_size": config["stride_size"],
        "vision_num_attention_heads": clip["vision_width"] // 64,
        "text_num_attention_heads": clip["text_width"] // 64,
        "projection_dim": clip["embed_dim"],
        "max_text_length": clip["context_length"],
        "vision_config": {
            "patch_size": clip["patch_size"],
            "hidden_size": clip["vision_width"],
            "num_hidden_layers": clip["vision_layers"],
        },
        "text_config": {
            "vocab_size": clip["vocab_size"],
            "hidden_size": clip["text_width"],
            "num_hidden_layers": clip["text_layers"],
            "max_position_embeddings": clip["context_length"],
        },
    }


def _numbered(shapes: dict[str, Any]) -> dict[str, Tensor]:
    numbered, count = {}, 0
    for name, shape in shapes.items():
        size = torch.Size(shape).numel()
        numbered[name] = torch.arange(count, count + size).reshape(torch.Size(shape))
        count += size
    return numbered


def official_gradients(
    convert: Callable[..., dict[str, Tensor]],
    method: str,
    checkpoint: dict[str, Tensor],
    model: nn.Module,
    **options: Any,
) -> dict[str, Tensor]:
    """Gradients of our parameters under the official keys.

    Conversion only moves numbers around, so converting a checkpoint of running numbers tells where each one went.
    `options` are what `convert` wants beside a report, by default the model's loss terms.
    """
    numbered = _numbered({key.removeprefix("module."): value.shape for key, value in checkpoint.items()})
    parameters = dict(model.named_parameters())
    flat = torch.zeros(sum(value.numel() for value in numbered.values()))
    options = options or {"loss_terms": tuple(model.config.loss_terms)}
    for name, numbers in convert(numbered, ConversionReport(method), **options).items():
        if name in parameters and (gradient := parameters[name].grad) is not None:
            flat[numbers.flatten()] = gradient.flatten()
    return {name: flat[numbers.flatten()].reshape(numbers.shape) for name, numbers in numbered.items()}


def assert_manifest_is_consumed(
    manifest: Path, method: str, infer_config: Callable, convert: Callable, model_class: type
) -> tuple[Any, nn.Module]:
    shapes = json.loads(manifest.read_text())
    with torch.device("meta"):
        state = {key.removeprefix("module."): torch.empty(shape) for key, shape in shapes.items()}
        report = ConversionReport(method)
        config = infer_config(state)
        converted = convert(state, report, loss_terms=tuple(config.loss_terms))
        model = model_class(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in converted.items()} == wanted
    assert not report.left_out
    return config, model


def assert_optimizer_groups(
    groups_file: Path,
    method: str,
    infer_config: Callable,
    convert: Callable,
    model_class: type,
    recipe_name: str | None = None,
) -> None:
    """A recipe of the method gives every parameter the learning-rate factor and weight decay of the official code.

    Where the file states another base rate or other constants of Adam than the recipe has, which the kept one must not,
    decays are compared as shares of the largest one.
    """
    expected = json.loads(groups_file.read_text())
    manifest = groups_file.with_name(groups_file.name.replace("optimizer_groups_full", "manifest_full"))
    manifest = manifest if manifest.is_file() else KEPT / method / "manifest_full.json"
    shapes = json.loads(manifest.read_text())
    recipe = load_recipe(recipe_name or f"{method}-cuhk-pedes")
    settings = recipe.optimization
    assert settings.optimizer == "adam"  # decay added to the gradient
    base_rate = next(group.learning_rate for group in settings.parameter_groups if not group.pattern)
    adam = expected["adam"]
    same = (base_rate, list(settings.betas), settings.eps) == (expected["base_lr"], adam["betas"], adam["eps"])
    assert same or KEPT not in groups_file.parents
    with torch.device("meta"):
        state = {key.removeprefix("module."): torch.empty(shape) for key, shape in shapes.items()}
        config = infer_config(state)
        model = model_class(config)
        names_of = dict(model.named_parameters())
        options = group_parameters(model, settings.parameter_groups)
    found = {
        id(parameter): (group["lr"] / base_rate, group["weight_decay"])
        for group in options
        for parameter in group["params"]
    }
    largest = max(decay for _, decay in found.values()), max(decay for _, decay in expected["groups"].values())
    # The official name of each parameter, from a conversion that keeps track of where tensors go.
    compared = 0
    for official, ours in official_names(convert, method, state, tuple(config.loss_terms)).items():
        factor, decay = expected["groups"][official]
        ours_factor, ours_decay = found[id(names_of[ours])]
        assert abs(ours_factor - factor) < 1e-9, (official, ours_factor)
        if same:
            assert ours_decay == decay, (official, ours_decay)
        assert abs(ours_decay * largest[1] - decay * largest[0]) <= 1e-9 * largest[0] * largest[1], official
        compared += 1
    assert compared == len(expected["groups"]) == len(found)


def official_names(convert: Callable, method: str, state: dict[str, Tensor], terms: tuple[str, ...]) -> dict[str, str]:
    """Official key → our key, by converting one key of each number in turn: scalars instead of full-size tensors."""
    marked = {key: torch.full((1,) * value.ndim, float(index)) for index, (key, value) in enumerate(state.items())}
    keys = list(state)
    converted = convert(marked, ConversionReport(method), loss_terms=terms)
    return {keys[int(value.flatten()[0])]: ours for ours, value in converted.items()}
