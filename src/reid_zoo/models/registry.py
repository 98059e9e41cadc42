"""The methods of the zoo, as data: one entry per method, read without importing any of them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError
from ..validation import unknown_name_message

__all__ = ["METHODS", "Method", "get_method"]


@dataclass(frozen=True, slots=True)
class Method:
    """Where a method's classes live and what it is.

    Attributes:
        model_type: Name in `config.json`, in recipes and on the command line.
        title: Name in the literature.
        package: Module path of its folder.
        class_prefix: `X` in `XConfig`, `XModel`, `XForTraining`.
        reference: Paper.
        official_licence: Licence of the authors' release.
    """

    model_type: str
    title: str
    package: str
    class_prefix: str
    reference: str
    official_licence: str

    def module(self, file: str) -> str:
        """Full name of `configuration_x`, `modeling_x` or `conversion_x`."""
        return f"{self.package}.{file}_{self.model_type}"

    def class_name(self, suffix: str) -> str:
        """`XConfig`, `XModel` or `XForTraining`."""
        return f"{self.class_prefix}{suffix}"

    def _load(self, file: str, suffix: str) -> Any:
        return getattr(importlib.import_module(self.module(file)), self.class_name(suffix))

    @property
    def config_class(self) -> Any:
        """`XConfig`."""
        return self._load("configuration", "Config")

    @property
    def model_class(self) -> Any:
        """`XModel`, for inference."""
        return self._load("modeling", "Model")

    @property
    def training_class(self) -> Any:
        """`XForTraining`."""
        return self._load("modeling", "ForTraining")

    @property
    def conversion(self) -> Any:
        """`conversion_x`, the module that reads the official checkpoint."""
        return importlib.import_module(self.module("conversion"))


METHODS: dict[str, Method] = {
    method.model_type: method
    for method in (
        Method(
            model_type="cfine",
            title="CFine",
            package="reid_zoo.models.cfine",
            class_prefix="CFine",
            reference="Yan et al., CLIP-Driven Fine-Grained Text-Image Person Re-Identification, IEEE TIP 2023",
            official_licence="MIT",
        ),
        Method(
            model_type="irra",
            title="IRRA",
            package="reid_zoo.models.irra",
            class_prefix="IRRA",
            reference="Jiang and Ye, Cross-Modal Implicit Relation Reasoning and Aligning for Text-to-Image Person "
            "Retrieval, CVPR 2023",
            official_licence="MIT",
        ),
        Method(
            model_type="vfe_tps",
            title="VFE-TPS",
            package="reid_zoo.models.vfe_tps",
            class_prefix="VFETPS",
            reference="Shen et al., Enhancing Visual Representation for Text-based Person Searching, 2024",
            official_licence="not stated",
        ),
        Method(
            model_type="mgcc",
            title="MGCC",
            package="reid_zoo.models.mgcc",
            class_prefix="MGCC",
            reference="Wu et al., Text-based Occluded Person Re-identification via Multi-Granularity Contrastive Consistency "
            "Learning, AAAI 2024",
            official_licence="not stated",
        ),
    )
}


def get_method(name: str) -> Method:
    """The method of that model type.

    Raises:
        ConfigurationError: If there is none; the message suggests the nearest name.
    """
    if name not in METHODS:
        raise ConfigurationError(unknown_name_message("method", name, METHODS))
    return METHODS[name]
