"""reid_zoo: find a person in images from a description or from another photo.

Importing the package loads neither torch nor transformers; every public name is loaded when it is first used. Importing
it also makes the zoo's models, processors and pipelines known to transformers' own Auto classes and `pipeline`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._registration import install_import_hooks
from ._version import __version__

_PUBLIC_NAMES = {
    "CFineConfig": ".models.cfine.configuration_cfine",
    "CFineForTraining": ".models.cfine.modeling_cfine",
    "CFineModel": ".models.cfine.modeling_cfine",
    "Gallery": ".gallery",
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
    "load_dataset": ".data",
    "load_recipe": ".training",
}

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
    from .data import PersonDataset as PersonDataset
    from .data import PersonRecord as PersonRecord
    from .data import SyntheticPedestrians as SyntheticPedestrians
    from .data import load_dataset as load_dataset
    from .encoding import PersonEncoder as PersonEncoder
    from .evaluation import RetrievalMetrics as RetrievalMetrics
    from .evaluation import evaluate_model as evaluate_model
    from .evaluation import evaluate_retrieval as evaluate_retrieval
    from .gallery import Gallery as Gallery
    from .models.cfine.configuration_cfine import CFineConfig as CFineConfig
    from .models.cfine.modeling_cfine import CFineForTraining as CFineForTraining
    from .models.cfine.modeling_cfine import CFineModel as CFineModel
    from .outputs import ReIDTrainingOutput as ReIDTrainingOutput
    from .outputs import RetrievalFeatures as RetrievalFeatures
    from .pipelines import TextPersonRetrievalPipeline as TextPersonRetrievalPipeline
    from .processing import ReIDProcessor as ReIDProcessor
    from .training import ReIDTrainer as ReIDTrainer
    from .training import ReIDTrainingArguments as ReIDTrainingArguments
    from .training import load_recipe as load_recipe

install_import_hooks()
