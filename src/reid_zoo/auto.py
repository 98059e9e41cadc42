"""Auto classes of the zoo, and its registration with transformers' own."""

from __future__ import annotations

import os
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from .errors import CheckpointError
from .models.registry import METHODS, Method

__all__ = ["ReIDConfig", "ReIDModel", "ReIDModelForTraining", "load_config", "register_models"]

_models_registered = False


def register_models() -> None:
    """Make configurations and inference models known to transformers' Auto classes. Does nothing the second time.

    Called when a configuration is created, which happens before anything looks a model class up; at import time some of
    transformers' modules may still be half loaded.
    """
    global _models_registered
    if not _models_registered:
        _models_registered = True
        from transformers import AutoModel

        for method in METHODS.values():
            AutoConfig.register(method.model_type, method.config_class, exist_ok=True)
            AutoModel.register(method.config_class, method.model_class, exist_ok=True)


def load_config(name: str | os.PathLike[str], **kwargs: Any) -> PreTrainedConfig:
    """Read a configuration of the zoo from a folder or the Hub.

    Args:
        name: Folder or Hub id.
        kwargs: As in transformers: `revision`, `token`, `cache_dir`, `local_files_only`, ...

    Raises:
        CheckpointError: If nothing is found there, or what is there is not a model of ours.
    """
    known = ", ".join(METHODS)
    if not os.path.isdir(name) and (os.path.isabs(name) or str(name).count("/") != 1 or str(name).startswith(".")):
        raise CheckpointError(f"{name} is neither a folder nor a Hub id of the form 'organisation/name'.")
    if os.path.isdir(name) and not os.path.isfile(os.path.join(name, "config.json")):
        raise CheckpointError(f"{name} is not a model folder: it has no config.json.")
    try:
        values, _ = PreTrainedConfig.get_config_dict(name, **kwargs)
    except OSError as error:
        reason = " ".join(str(error).split())
        where = "" if os.path.isdir(name) else "there is no such folder, and on the Hub: "
        raise CheckpointError(f"cannot read a model from {name!r}: {where}{reason}") from error
    model_type = values.get("model_type")
    if model_type not in METHODS:
        described = f"a {model_type!r} model" if model_type else "a config.json without a model_type"
        raise CheckpointError(f"{name} holds {described}, which is none of the methods of reid_zoo ({known}).")
    return METHODS[model_type].config_class.from_pretrained(name, **kwargs)


class ReIDConfig:
    """Configurations of all methods: `ReIDConfig.from_pretrained(name)` picks the class by `model_type`."""

    @staticmethod
    def from_pretrained(name: str | os.PathLike[str], **kwargs: Any) -> PreTrainedConfig:
        """See [`load_config`]."""
        return load_config(name, **kwargs)


class _AutoReIDModel:
    """Shared by the two model auto classes; `_class_of` says which class of a method they stand for."""

    @classmethod
    def _class_of(cls, method: Method) -> Any:
        raise TypeError(f"{cls.__name__} stands for no class of a method")

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Load a model from a folder or the Hub; `config.model_type` picks the class.

        Args:
            name: Folder or Hub id, e.g. `"org/cfine-cuhk"`.
            kwargs: As in transformers (`revision`, `token`, `local_files_only`, `dtype`, ...), and `image_size=(height,
                width)` for another image size than the checkpoint's.

        Raises:
            CheckpointError: If the folder or repository does not hold a model of the zoo.
        """
        from .models.base import hub_arguments

        config = kwargs.pop("config", None) or load_config(name, **hub_arguments(kwargs))
        return cls._class_of(METHODS[config.model_type]).from_pretrained(name, config=config, **kwargs)

    @classmethod
    def from_config(cls, config: PreTrainedConfig, **kwargs: Any) -> Any:
        """A newly initialised model of that configuration."""
        return cls._class_of(METHODS[config.model_type])._from_config(config, **kwargs)


class ReIDModel(_AutoReIDModel):
    """Inference models of all methods.

    Example:
        >>> model = ReIDModel.from_pretrained("org/cfine-cuhk")
    """

    @classmethod
    def _class_of(cls, method: Method) -> Any:
        return method.model_class


class ReIDModelForTraining(_AutoReIDModel):
    """Training models of all methods: the inference model, training-only heads and the loss."""

    @classmethod
    def _class_of(cls, method: Method) -> Any:
        return method.training_class
