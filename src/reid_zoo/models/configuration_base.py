"""What every configuration of the zoo shares: declared fields only, checked across fields, errors that name the field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import fields
from typing import Any, ClassVar, Self, TypeVar

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import PreTrainedConfig

from ..errors import ConfigurationError
from ..validation import unknown_name_message
from .processor_defaults import ProcessorDefaults

__all__ = ["ReIDPreTrainedConfig", "check_fields", "checked_config", "own_field_names"]

ConfigClass = TypeVar("ConfigClass", bound=type)

# Keys that transformers itself writes into config.json or passes along while loading, besides dataclass fields.
_TRANSFORMERS_KEYS = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_internal",
        "_commit_hash",
        "_experts_implementation",
        "_experts_implementation_internal",
        "_name_or_path",
        "attn_implementation",
        "bos_token_id",  # the Trainer sets these three
        "dtype",
        "eos_token_id",
        "experts_implementation",
        "model_type",
        "name_or_path",
        "num_labels",
        "output_attentions",
        "pad_token_id",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "transformers_weights",
        "use_cache",  # the Trainer sets it
    }
)


def own_field_names(config_class: type[PreTrainedConfig]) -> set[str]:
    """Fields that a configuration class adds to those of every transformers configuration."""
    return {field.name for field in fields(config_class)} - {field.name for field in fields(PreTrainedConfig)}


def check_fields(owner: str, config_class: type[PreTrainedConfig], names: Iterable[str]) -> None:
    """Raise `ConfigurationError` for a name that `config_class` does not declare (transformers would keep a typo)."""
    declared = {field.name for field in fields(config_class)}
    for name in names:
        if name not in declared and name not in _TRANSFORMERS_KEYS:
            raise ConfigurationError(f"{owner}: {unknown_name_message('field', name, own_field_names(config_class))}")


def checked_config(cls: ConfigClass) -> ConfigClass:
    """Class decorator: every field is checked against its declared type whenever it is set.

    The module of such a class must not postpone its annotations (`from __future__ import annotations`): types that are
    only known as text cannot be checked, and are silently not.
    """
    checked: Any = strict(cls)
    set_checked = checked.__setattr__

    def set_or_explain(self: Any, name: str, value: Any) -> None:
        try:
            set_checked(self, name, value)
        except StrictDataclassFieldValidationError as error:
            reason = " ".join(str(error.__cause__).split())
            raise ConfigurationError(f"{cls.__name__}.{name} is {value!r}: {reason}.") from error

    checked.__setattr__ = set_or_explain
    return checked


class ReIDPreTrainedConfig(PreTrainedConfig):
    """Base of the zoo's configurations.

    Unknown fields are refused with the nearest known name, sub-configurations are checked the same way, and
    `validate_fields` holds the checks across fields. Creating a configuration also makes sure that the model classes
    are known to transformers' Auto classes.

    Raises:
        ConfigurationError: For an unknown field or a value that does not fit the others.
    """

    model_type: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def preset_fields(cls, name: str) -> dict[str, Any]:
        """Fields of the preset `name` that differ from the defaults; sub-configurations as dictionaries.

        Raises:
            ConfigurationError: If there is no such preset; the message suggests the nearest name.
        """
        if name not in cls.presets:
            raise ConfigurationError(f"{cls.__name__}: {unknown_name_message('preset', name, cls.presets)}")
        return deepcopy(dict(cls.presets[name]))

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """The configuration of a named size, e.g. `"tiny"`.

        Args:
            name: Preset; one of `presets`.
            overrides: Fields that differ from the preset's. A dictionary for a sub-configuration changes only the
                fields it names; a configuration object replaces the preset's.

        Raises:
            ConfigurationError: For an unknown preset or field.
        """
        fields = cls.preset_fields(name)
        for field, value in overrides.items():
            merge = isinstance(value, Mapping) and isinstance(fields.get(field), dict)
            fields[field] = {**fields[field], **value} if merge else value
        return cls(**fields)

    def __post_init__(self, **kwargs: Any) -> None:
        owner = type(self).__name__
        check_fields(owner, type(self), kwargs)
        for name in self.sub_configs_defaults:
            value, config_class = getattr(self, name, None), self.sub_config_class(name)
            if isinstance(value, dict):
                check_fields(f"{owner}.{name}", config_class, value)
            elif value is not None and not isinstance(value, config_class):
                raise ConfigurationError(
                    f"{owner}.{name} is a {type(value).__name__}, but must be a dictionary or a {config_class.__name__}."
                )
        try:
            for name, specification in self.sub_configs_defaults.items():
                value, config_class = getattr(self, name, None), self.sub_config_class(name)
                if config_class is not specification.config_class and not isinstance(value, config_class):
                    setattr(self, name, config_class(**(value or {})))
            super().__post_init__(**kwargs)
        except StrictDataclassFieldValidationError as error:  # from a sub-configuration of transformers
            raise ConfigurationError(f"{owner}: {' '.join(str(error).split())}") from error
        self.fill_defaults()
        self.validate_fields()
        from ..auto import register_models

        register_models()

    @property
    def processor_defaults(self) -> ProcessorDefaults:
        """How the authors prepare images and sentences; by default as CFine's."""
        return ProcessorDefaults()

    @property
    def num_training_stages(self) -> int:
        """Stages that training has; see `set_training_stage` of a model with more than one."""
        return 1

    @property
    def uses_camera_ids(self) -> bool:
        """Whether `get_image_features` takes `camera_ids`, zero-based and below the configuration's `num_cameras`."""
        return False

    @property
    def uses_view_ids(self) -> bool:
        """Whether `get_image_features` takes `view_ids`, zero-based and below the configuration's `num_views`."""
        return False

    def sub_config_class(self, name: str) -> type[PreTrainedConfig]:
        """Class of the sub-configuration `name`; a method that lets a field choose it extends this."""
        return self.sub_configs_defaults[name].config_class

    def fill_defaults(self) -> None:
        """Values that follow from others when they are not given; a method's configuration extends it."""

    def validate_fields(self) -> None:
        """Checks across fields; a method's configuration extends it."""
