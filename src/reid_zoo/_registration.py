"""Registration with transformers without importing it: `import reid_zoo` stays cheap.

Hooks run when a module of transformers has been imported (at once if it already was). Such a module is often imported
in the middle of another one, so nothing of ours is loaded then: configurations are registered as lazy proxies, and the
rest as soon as neither side is half loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import wrapt

from .models.registry import METHODS

__all__ = ["install_import_hooks"]


def _is_loading(name: str) -> bool:
    return bool(getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False))


def _call_when_loaded(theirs: str, ours: Sequence[str], call: Callable[[], None]) -> None:
    """Call once, when `theirs` has been imported and none of `ours` is in the middle of being imported."""
    called = False

    def was_imported(module: ModuleType) -> None:
        nonlocal called
        unfinished = [name for name in (theirs, *ours) if name != module.__name__ and _is_loading(name)]
        if not called and theirs in sys.modules and not unfinished:
            called = True
            call()

    for name in (theirs, *ours):
        wrapt.register_post_import_hook(was_imported, name)


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
    _call_when_loaded("transformers.models.auto.processing_auto", ["reid_zoo.processing"], _register_processor)
    modules = ("person_retrieval", "text_person_retrieval", "image_person_retrieval")
    _call_when_loaded("transformers.pipelines", [f"reid_zoo.pipelines.{name}" for name in modules], _register_pipelines)
    wrapt.register_post_import_hook(_declare_missing_torchvision_operators, "torchvision.extension")
