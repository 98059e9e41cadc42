"""Registration with transformers without importing it: `import reid_zoo` stays cheap.

Hooks run when a module of transformers has been imported (at once if it already was). Such a module is often imported
in the middle of another one, so nothing of ours is loaded then: configurations are registered as lazy proxies, and the
rest as soon as neither side is half loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import wrapt

from .models.registry import METHODS

__all__ = ["install_import_hooks"]


def _is_loading(name: str) -> bool:
    return bool(getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False))


def _call_when_loaded(theirs: str, ours: str, call: Callable[[], None]) -> None:
    """Call once `theirs` has been imported and `ours` is not in the middle of being imported."""

    def theirs_was_imported(module: ModuleType) -> None:
        if not _is_loading(ours):
            call()

    def ours_was_imported(module: ModuleType) -> None:
        if theirs in sys.modules and not _is_loading(theirs):
            call()

    wrapt.register_post_import_hook(theirs_was_imported, theirs)
    wrapt.register_post_import_hook(ours_was_imported, ours)


def _register_lazy_configs(module: ModuleType) -> None:
    for method in METHODS.values():
        proxy = wrapt.lazy_import(method.module("configuration"), method.class_name("Config"))
        module.CONFIG_MAPPING.register(method.model_type, proxy, exist_ok=True)


def _register_processor() -> None:
    from .processing import register_processor

    register_processor()


def _register_pipelines() -> None:
    from .pipelines import register_pipelines

    register_pipelines()


def _declare_missing_torchvision_operators(module: ModuleType) -> None:
    """Keep torchvision importable beside a torch it was not compiled for.

    The package index has torchvision for Linux only as a CUDA build. Beside a CPU build of torch its compiled operators
    cannot be loaded, and importing it then fails on declaring fake kernels for two of them. Nothing here needs these
    (they belong to object detection), so their schemas are declared and the rest of torchvision works.
    """
    if module._has_ops():
        return
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        library.define(schema)
    module._reid_zoo_declared_operators = library  # type: ignore[attr-defined]  # keeps the declarations alive


def install_import_hooks() -> None:
    """Arrange for everything to be registered when it is first needed."""
    wrapt.register_post_import_hook(_register_lazy_configs, "transformers.models.auto.configuration_auto")
    _call_when_loaded("transformers.models.auto.processing_auto", "reid_zoo.processing", _register_processor)
    _call_when_loaded("transformers.pipelines", "reid_zoo.pipelines.text_person_retrieval", _register_pipelines)
    wrapt.register_post_import_hook(_declare_missing_torchvision_operators, "torchvision.extension")
