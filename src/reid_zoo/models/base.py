"""What every model of the zoo shares: loading and saving manners, and the scoring contract."""

from __future__ import annotations

import os
from copy import deepcopy
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import BertModel, PreTrainedModel
from transformers.models.bert.modeling_bert import BertLayer

from ..errors import CheckpointError, ConfigurationError
from ..outputs import RetrievalFeatures
from ..precision import in_full_precision
from .configuration_base import ReIDPreTrainedConfig
from .encoders.attention import MultiHeadAttention, init_fused_attention
from .encoders.clip_text_transformer import CLIPTextTransformer, CLIPTextTransformerLayer
from .encoders.configuration_vision_transformer import ReIDVisionConfig
from .encoders.tower_loading import load_image_tower, load_text_tower
from .encoders.vision_transformer import VisionTransformer, VisionTransformerLayer

__all__ = ["ReIDPreTrainedModel"]


class ReIDPreTrainedModel(PreTrainedModel):
    """Base class of the zoo's models, inference and training alike.

    A checkpoint of a method's training class loads in its inference class (training-only heads are dropped silently) and
    the other way round (heads are newly initialised, which is said once).
    """

    config: ReIDPreTrainedConfig
    main_input_name = "pixel_values"
    input_modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    supports_gradient_checkpointing = True
    # Identity labels are no per-token labels: the Trainer must divide the loss when it accumulates gradients.
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules: ClassVar[list[str]] = [
        VisionTransformerLayer.__name__,
        CLIPTextTransformerLayer.__name__,
        BertLayer.__name__,
    ]
    # Whether `similarity` compares tokens: its order is then not that of the dot products of `embeds`, and a gallery keeps
    # the tokens as well.
    scores_by_late_interaction: ClassVar[bool] = False
    # Whether the inference model reads sentences; if not, it has no `get_text_features`, and its processor no tokenizer.
    supports_text: ClassVar[bool] = True
    # How `resize_image_grid` interpolates the position grid: corner to corner (CFine's release) or not.
    position_grid_align_corners: ClassVar[bool] = True
    # Beginnings of names of weights that embeddings pass through and that a checkpoint need not have: new ones change nothing.
    may_be_new: ClassVar[tuple[str, ...]] = ()
    # Whether tokens of both towers meet before any projection, so that they must be equally wide.
    towers_share_width: ClassVar[bool] = True

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """Called by transformers for every module; never as "custom code", which would pass over containers.

        A module without parameters of its own (an attention made of two linear layers) would then keep the initialisation
        of its parts instead of its own. All initialisation here leaves loaded weights alone, so nothing is lost.
        """
        super()._initialize_weights(module, False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise a module that no checkpoint filled; called by transformers, also for modules built on meta."""
        if isinstance(module, MultiHeadAttention):
            init_fused_attention(module)
            return
        super()._init_weights(module)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> Self:
        """Load a model saved by the zoo from a folder or the Hub; the same arguments as in transformers.

        Weights are loaded in float32 unless `dtype` says otherwise: half precision collapses retrieval scores.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            model_args: Passed on.
            kwargs: Passed on. `image_size=(height, width)` resamples the position grid to another image size. Whoever asks for
                `output_loading_info` is told what is missing instead of being refused.

        Raises:
            CheckpointError: If the folder holds a model of another method, is not a model of ours, or lacks weights that
                embeddings need. Heads that are only used in training may be missing; they are newly initialised.
        """
        image_size = kwargs.pop("image_size", None)
        wants_information = kwargs.pop("output_loading_info", False)
        if kwargs.get("config") is None:
            kwargs["config"] = cls._own_config(pretrained_model_name_or_path, kwargs)
        kwargs.setdefault("dtype", torch.float32)
        try:
            model, information = super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
            )
        except (OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"cannot read the weights of {pretrained_model_name_or_path}: {reason}") from error
        if not wants_information:
            model.refuse_missing_weights(pretrained_model_name_or_path, information)
        model.freeze_constants()
        if image_size is not None:
            model.resize_image_grid(image_size)
        return (model, information) if wants_information else model  # type: ignore[return-value]  # as in transformers

    def refuse_missing_weights(self, name: str | os.PathLike[str], information: dict[str, Any]) -> None:
        """Refuse a checkpoint without all weights of the embeddings: those of a half new model would look like any others.

        Args:
            name: Folder or Hub id that was loaded.
            information: `output_loading_info` of `from_pretrained`.

        Raises:
            CheckpointError: If there are such weights; it names them.
        """
        own = "" if self.base_model is self else f"{self.base_model_prefix}."
        missing = sorted(
            key
            for key in information["missing_keys"]
            if key.startswith(own) and not key.removeprefix(own).startswith(self.may_be_new)
        )
        if not missing:
            return
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        advice = "the file is not complete, or config.json is another model's"
        if any(".lora_A." in key for key in information["unexpected_keys"]):
            advice = (
                "it is a checkpoint within a run with low-rank adapters; load the run's folder, where they are merged"
            )
        raise CheckpointError(f"{name} lacks the weights {named}: {advice}.")

    @classmethod
    def from_towers(
        cls,
        image_tower: str | os.PathLike[str],
        text_tower: str | os.PathLike[str] | None = None,
        *,
        image_size: int | tuple[int, int] | None = None,
        preset: str | None = None,
        **config_fields: Any,
    ) -> Self:
        """A model whose towers come from published checkpoints; everything else is newly initialised.

        Args:
            image_tower: CLIP, OpenCLIP or ImageNet ViT; folder, file or Hub id, see [`load_image_tower`].
            text_tower: BERT; folder or Hub id, see [`load_text_tower`]. `None`: newly initialised, with
                the image tower's width and heads unless `text_config` says otherwise.
            image_size: `(height, width)` in pixels, or one number for a square; the position grid is resampled to it.
                By default the image tower's own.
            preset: Named preset for the fields that the towers leave open.
            config_fields: Fields of the configuration. `vision_config` and `text_config` as dictionaries change single
                fields of a tower, such as a dropout.

        Raises:
            CheckpointError: If a tower cannot be read, or the two have different widths and the method needs equal ones.
            ConfigurationError: For a field that is unknown or does not fit the others.
        """
        fields = cls.config_class.preset_fields(preset) if preset is not None else {}
        fields.pop("vision_config", None)
        preset_text, text_fields = fields.pop("text_config", {}), config_fields.pop("text_config", {})
        vision_fields = dict(config_fields.pop("vision_config", {}))
        if image_size is not None:
            if "image_size" in vision_fields:
                raise ConfigurationError("give image_size once: as an argument or in vision_config, not both.")
            vision_fields["image_size"] = image_size
        image = load_image_tower(image_tower, align_corners=cls.position_grid_align_corners, **vision_fields)
        if text_tower is None:
            like_image = {name: getattr(image.config, name) for name in ("hidden_size", "num_attention_heads")}
            text, text_config = None, {**preset_text, **like_image, **text_fields}
        else:
            text = load_text_tower(text_tower, **text_fields)
            text_config = text.config
            if cls.towers_share_width and text.config.hidden_size != image.config.hidden_size:
                raise CheckpointError(
                    f"the towers have different widths: {image_tower} {image.config.hidden_size}, {text_tower} "
                    f"{text.config.hidden_size}; take two of the same width."
                )
        fields |= cls._fields_for_towers(image.config) | config_fields
        model = cls(cls.config_class(vision_config=image.config, text_config=text_config, **fields))
        model.vision_tower.load_state_dict(image.state)
        if text is not None:
            model.text_tower.load_state_dict(text.state)
        return model.eval()

    @classmethod
    def _fields_for_towers(cls, vision_config: ReIDVisionConfig) -> dict[str, Any]:
        """Fields of a method's configuration that follow from the towers it is built on."""
        return {}

    @classmethod
    def _own_config(cls, name: str | os.PathLike[str], kwargs: dict[str, Any]) -> ReIDPreTrainedConfig:
        """Read the configuration and refuse that of another method before any weight is read."""
        from ..auto import load_config

        config = load_config(name, **hub_arguments(kwargs))
        if not isinstance(config, cls.config_class):
            raise CheckpointError(
                f"{name} holds a {config.model_type!r} model, but {cls.__name__} loads {cls.config_class.model_type!r} "
                "models; use ReIDModel.from_pretrained to load any method."
            )
        return config

    @property
    def vision_tower(self) -> VisionTransformer:
        """The image tower."""
        return next(module for module in self.modules() if isinstance(module, VisionTransformer))

    @property
    def text_tower(self) -> BertModel | CLIPTextTransformer:
        """The text tower."""
        return next(module for module in self.modules() if isinstance(module, BertModel | CLIPTextTransformer))

    def begin_epoch(self) -> None:
        """Called by the trainer before every epoch; a method that remembers things of an epoch forgets them here."""

    def freeze_constants(self) -> None:
        """Switch off gradients of parameters that the method never trains.

        Called after loading, which replaces every parameter by a new, trainable one.
        """

    def resize_image_grid(self, image_size: tuple[int, int]) -> None:
        """Take images of `image_size` = `(height, width)` pixels from now on; resamples the position grid in place.

        Raises:
            ConfigurationError: If the size holds no patch, or too few for the token selection; nothing is changed then.
        """
        changed = deepcopy(self.config)
        changed.vision_config.image_size = list(image_size)
        changed.vision_config.validate_fields()
        changed.validate_fields()
        self.vision_tower.resize_image_grid(image_size, align_corners=self.position_grid_align_corners)
        self.config.vision_config.image_size = list(image_size)

    @in_full_precision
    def similarity(
        self, text_features: RetrievalFeatures | Tensor, image_features: RetrievalFeatures | Tensor
    ) -> Tensor:
        """The method's score of every sentence with every image.

        Args:
            text_features: Output of `get_text_features`, or its `embeds` `(T, E)`.
            image_features: Output of `get_image_features`, or its `embeds` `(I, E)`.

        Returns:
            `(T, I)` scores in float32, larger is better; here the dot product of the embeddings.
        """
        return _embeds(text_features) @ _embeds(image_features).T


def _embeds(features: RetrievalFeatures | Tensor) -> Tensor:
    embeds = features if isinstance(features, Tensor) else features.embeds
    assert embeds is not None
    return embeds.float()  # half precision would create thousands of ties


def hub_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a `from_pretrained` call that say where to look, to be used for the configuration as well."""
    names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")
    return {name: kwargs[name] for name in names if name in kwargs}
