"""reid_zoo: find a person in images from a description or from another photo.

Importing the package loads neither torch nor transformers; every public name is loaded when it is first used. Importing
it also makes the zoo's models, processors and pipelines known to transformers' own Auto classes and `pipeline`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._registration import install_import_hooks
from ._version import __version__
from .models.registry import METHODS

_PUBLIC_NAMES = {
    "Gallery": ".gallery",
    "ImagePersonRetrievalPipeline": ".pipelines",
    "OcclusionGenerator": ".data",
    "PersonDataset": ".data",
    "PersonEncoder": ".encoding",
    "PersonRecord": ".data",
    "ReIDConfig": ".auto",
    "ReIDModel": ".auto",
    "ReIDModelForTraining": ".auto",
    "ReIDProcessor": ".processing",
    "ReIDTrainer": ".training",
    "ReIDTrainingArguments": ".training",
    "ReIDTrainingOutput": ".outputs",
    "RetrievalFeatures": ".outputs",
    "RetrievalMetrics": ".evaluation",
    "SyntheticPedestrians": ".data",
    "TextPersonRetrievalPipeline": ".pipelines",
    "convert_official_checkpoint": ".conversion",
    "evaluate_model": ".evaluation",
    "evaluate_retrieval": ".evaluation",
    "k_reciprocal_rerank": ".evaluation",
    "load_dataset": ".data",
    "load_recipe": ".training",
}

for _method in METHODS.values():
    for _file, _suffix in (("configuration", "Config"), ("modeling", "Model"), ("modeling", "ForTraining")):
        _PUBLIC_NAMES[_method.class_name(_suffix)] = _method.module(_file)

__all__ = ["__version__", "pipeline", *_PUBLIC_NAMES]


def __getattr__(name: str) -> Any:
    if name == "pipeline":
        from transformers import pipeline as value
    elif name in _PUBLIC_NAMES:
        value = getattr(importlib.import_module(_PUBLIC_NAMES[name], __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from transformers import pipeline as pipeline

    from .auto import ReIDConfig as ReIDConfig
    from .auto import ReIDModel as ReIDModel
    from .auto import ReIDModelForTraining as ReIDModelForTraining
    from .conversion import convert_official_checkpoint as convert_official_checkpoint
    from .data import OcclusionGenerator as OcclusionGenerator
    from .data import PersonDataset as PersonDataset
    from .data import PersonRecord as PersonRecord
    from .data import SyntheticPedestrians as SyntheticPedestrians
    from .data import load_dataset as load_dataset
    from .encoding import PersonEncoder as PersonEncoder
    from .evaluation import RetrievalMetrics as RetrievalMetrics
    from .evaluation import evaluate_model as evaluate_model
    from .evaluation import evaluate_retrieval as evaluate_retrieval
    from .evaluation import k_reciprocal_rerank as k_reciprocal_rerank
    from .gallery import Gallery as Gallery
    from .models.cfine.configuration_cfine import CFineConfig as CFineConfig
    from .models.cfine.modeling_cfine import CFineForTraining as CFineForTraining
    from .models.cfine.modeling_cfine import CFineModel as CFineModel
    from .models.clip_reid.configuration_clip_reid import CLIPReIDConfig as CLIPReIDConfig
    from .models.clip_reid.modeling_clip_reid import CLIPReIDForTraining as CLIPReIDForTraining
    from .models.clip_reid.modeling_clip_reid import CLIPReIDModel as CLIPReIDModel
    from .models.dual_encoder.configuration_dual_encoder import DualEncoderConfig as DualEncoderConfig
    from .models.dual_encoder.modeling_dual_encoder import DualEncoderForTraining as DualEncoderForTraining
    from .models.dual_encoder.modeling_dual_encoder import DualEncoderModel as DualEncoderModel
    from .models.irra.configuration_irra import IRRAConfig as IRRAConfig
    from .models.irra.modeling_irra import IRRAForTraining as IRRAForTraining
    from .models.irra.modeling_irra import IRRAModel as IRRAModel
    from .models.mgcc.configuration_mgcc import MGCCConfig as MGCCConfig
    from .models.mgcc.modeling_mgcc import MGCCForTraining as MGCCForTraining
    from .models.mgcc.modeling_mgcc import MGCCModel as MGCCModel
    from .models.vfe_tps.configuration_vfe_tps import VFETPSConfig as VFETPSConfig
    from .models.vfe_tps.modeling_vfe_tps import VFETPSForTraining as VFETPSForTraining
    from .models.vfe_tps.modeling_vfe_tps import VFETPSModel as VFETPSModel
    from .outputs import ReIDTrainingOutput as ReIDTrainingOutput
    from .outputs import RetrievalFeatures as RetrievalFeatures
    from .pipelines import ImagePersonRetrievalPipeline as ImagePersonRetrievalPipeline
    from .pipelines import TextPersonRetrievalPipeline as TextPersonRetrievalPipeline
    from .processing import ReIDProcessor as ReIDProcessor
    from .training import ReIDTrainer as ReIDTrainer
    from .training import ReIDTrainingArguments as ReIDTrainingArguments
    from .training import load_recipe as load_recipe

install_import_hooks()
