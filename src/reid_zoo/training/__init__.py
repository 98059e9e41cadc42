"""Recipes and the trainer; the names load their module on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arguments import ReIDTrainingArguments
    from .recipe import Recipe, list_recipes, load_recipe
    from .running import TrainingSummary, build_model, train
    from .trainer import ReIDTrainer

__all__ = [
    "ReIDTrainer",
    "ReIDTrainingArguments",
    "Recipe",
    "TrainingSummary",
    "build_model",
    "list_recipes",
    "load_recipe",
    "train",
]

_MODULES = {
    "ReIDTrainer": "trainer",
    "ReIDTrainingArguments": "arguments",
    "Recipe": "recipe",
    "TrainingSummary": "running",
    "build_model": "running",
    "list_recipes": "recipe",
    "load_recipe": "recipe",
    "train": "running",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
