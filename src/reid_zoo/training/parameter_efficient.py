"""Parameter-efficient tuning of the towers: low-rank adapters (LoRA) of the `peft` package beside their linear layers.

E. Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022: a frozen weight W becomes W + α/r·BA, with B zero at
the start. What is outside of the towers (projections, classifiers, decoders) is trained in full, as without adapters.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import ConfigurationError, MissingPackageError, RecipeError
from ..validation import RegularExpression, Within, check_settings

__all__ = ["LowRankSettings", "add_low_rank_adapters", "has_adapters", "merged_state_dict", "save_adapter"]

ADAPTER_FOLDER = "adapter"
_ADAPTER = "default"
_PEFT_PREFIX = "base_model.model."  # of the names in an adapter's file


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankSettings:
    """Low-rank adapters in the towers.

    Attributes:
        rank: r, numbers of rows of A and columns of B.
        alpha: α; the adapter is scaled by α/r.
        dropout: Dropout of the adapter's input.
        patterns: Regular expressions searched in the names of the towers' linear layers; a layer that one of them finds gets
            an adapter. By default all of them do.
    """

    rank: Annotated[int, Within(1)] = 8
    alpha: Annotated[float, Within(0, open_low=True)] = 16.0
    dropout: Annotated[float, Within(0, 1, open_high=True)] = 0.0
    patterns: tuple[Annotated[str, RegularExpression()], ...] = ()

    def __post_init__(self) -> None:
        check_settings(self, "recipe field optimization.lora.", RecipeError)


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise MissingPackageError(
            "low-rank adapters need the package peft; install it with: pip install 'reid-zoo[peft]'"
        ) from error


def has_adapters(model: nn.Module) -> bool:
    """Whether a model has low-rank adapters."""
    return any(hasattr(module, "lora_A") for module in model.modules())


def add_low_rank_adapters(model: Any, settings: LowRankSettings) -> list[str]:
    """Put adapters beside the towers' linear layers, in place, and freeze everything else in the towers.

    A model that has adapters already keeps them.

    Args:
        model: A training model of the zoo.
        settings: Their size and place.

    Returns:
        Names of the layers with an adapter.

    Raises:
        MissingPackageError: If `peft` is not installed.
        ConfigurationError: If the patterns find no linear layer.
    """
    peft = _peft()
    if has_adapters(model):
        return [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    towers = _tower_prefixes(model)
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(towers) and module.weight.requires_grad
    ]
    compiled = [re.compile(pattern) for pattern in settings.patterns]
    chosen = [name for name in linear if not compiled or any(pattern.search(name) for pattern in compiled)]
    if not chosen:
        raise ConfigurationError(
            f"no linear layer that is trained in the towers has a name with {' or '.join(settings.patterns) or 'any pattern'}"
            + (f"; there are, for example, {', '.join(linear[:3])}." if linear else ".")
        )
    trained = {name for name, value in model.named_parameters() if value.requires_grad and not name.startswith(towers)}
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=chosen,
        bias="none",
    )
    peft.inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    for name, value in model.named_parameters():  # peft froze everything
        if name in trained:
            value.requires_grad_(True)
    return chosen


def _tower_prefixes(model: Any) -> tuple[str, ...]:
    towers = [model.vision_tower]
    if any("text" in name for name, _ in model.named_children()) or model.supports_text:
        towers.append(model.text_tower)
    names = {id(module): name for name, module in model.named_modules()}
    return tuple(f"{names[id(tower)]}." for tower in towers)


@torch.no_grad()
def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Weights of the model without adapters that computes the same: W + α/r·BA, under the names they had before.

    Args:
        model: With adapters; it is not changed.
    """
    state = {
        name.replace(".base_layer.", "."): value for name, value in model.state_dict().items() if ".lora_" not in name
    }
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            layer: Any = module
            base = state[f"{name}.weight"]
            state[f"{name}.weight"] = base + layer.get_delta_weight(_ADAPTER).to(base)
    return state


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapters alone, as `peft.PeftModel.from_pretrained` and transformers' `load_adapter` read them.

    Args:
        model: With adapters.
        folder: Is made; gets `adapter_config.json` and `adapter_model.safetensors`.
    """
    peft = _peft()
    folder.mkdir(parents=True, exist_ok=True)
    weights = peft.get_peft_model_state_dict(model, adapter_name=_ADAPTER)
    save_file(
        {f"{_PEFT_PREFIX}{name.removeprefix(_PEFT_PREFIX)}": value.contiguous() for name, value in weights.items()},
        folder / "adapter_model.safetensors",
    )
    model.peft_config[_ADAPTER].save_pretrained(str(folder))
