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
        queries: What it can search with: `"text"`, `"image"`.
        optional_inputs: What it takes beside images and sentences, if trained so.
        num_parameters: Parameters of the inference model at the size of the default configuration.
    """

    model_type: str
    title: str
    package: str
    class_prefix: str
    reference: str
    official_licence: str
    queries: tuple[str, ...]
    num_parameters: int
    optional_inputs: tuple[str, ...] = ()

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
            queries=("text", "image"),
            num_parameters=204_145_920,
        ),
        Method(
            model_type="irra",
            title="IRRA",
            package="reid_zoo.models.irra",
            class_prefix="IRRA",
            reference="Jiang and Ye, Cross-Modal Implicit Relation Reasoning and Aligning for Text-to-Image Person "
            "Retrieval, CVPR 2023",
            official_licence="MIT",
            queries=("text", "image"),
            num_parameters=149_617_664,
        ),
        Method(
            model_type="vfe_tps",
            title="VFE-TPS",
            package="reid_zoo.models.vfe_tps",
            class_prefix="VFETPS",
            reference="Shen et al., Enhancing Visual Representation for Text-based Person Searching, 2024",
            official_licence="none given",
            queries=("text", "image"),
            num_parameters=149_617_664,
        ),
        Method(
            model_type="mgcc",
            title="MGCC",
            package="reid_zoo.models.mgcc",
            class_prefix="MGCC",
            reference="Wu et al., Text-based Occluded Person Re-identification via Multi-Granularity Contrastive Consistency "
            "Learning, AAAI 2024",
            official_licence="none given",
            queries=("text", "image"),
            num_parameters=152_196_816,
        ),
        Method(
            model_type="clip_reid",
            title="CLIP-ReID",
            package="reid_zoo.models.clip_reid",
            class_prefix="CLIPReID",
            reference="Li, Sun and Li, CLIP-ReID: Exploiting Vision-Language Model for Image Re-identification without "
            "Concrete Text Labels, AAAI 2023",
            official_licence="MIT",
            queries=("image",),
            num_parameters=86_142_976,
            optional_inputs=("camera_ids", "view_ids"),
        ),
        Method(
            model_type="dual_encoder",
            title="Dual encoder",
            package="reid_zoo.models.dual_encoder",
            class_prefix="DualEncoder",
            reference="Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021; the "
            "plain baselines (zero-shot, linear probe, fine-tuned; ViT and BERT) of VFE-TPS and IRRA",
            official_licence="MIT (CLIP); Apache-2.0 (ViT, BERT)",
            queries=("text", "image"),
            num_parameters=149_617_664,
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
