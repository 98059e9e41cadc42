"""What the configurations of the methods on CLIP's two towers share."""

from typing import Any, ClassVar

from ..errors import ConfigurationError
from .configuration_base import ReIDPreTrainedConfig, checked_config
from .encoders.configuration_clip_text_transformer import ReIDCLIPTextConfig
from .encoders.configuration_vision_transformer import ReIDVisionConfig
from .processor_defaults import CLIP_PIXELS, ProcessorDefaults

__all__ = ["CLIPDualEncoderConfig", "CrossModalDualEncoderConfig"]

_HEAD_WIDTH = 64


@checked_config
class CLIPDualEncoderConfig(ReIDPreTrainedConfig):
    r"""Base of the configurations of the methods whose inference models are CLIP's two towers.

    Args:
        vision_config (`ReIDVisionConfig`): The image tower; by default CLIP ViT-B/16 at 384×128.
        text_config (`ReIDCLIPTextConfig`): The text tower; by default that of CLIP ViT-B/16.
        projection_dim (`int`, defaults to 512): Joint dimension D that every token of both towers is projected to.
        max_text_length (`int`, *optional*): Length sentences are cut and padded to, start and end included; by default
            `text_config.max_position_embeddings`.
        temperature (`float`, defaults to 0.02): τ, fixed.
        label_epsilon (`float`, defaults to 1e-8): ε inside the logarithm of label distributions.
        num_classes (`int`, defaults to 11003): Training identities K (only the training class uses it).
    """

    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": ReIDVisionConfig,
        "text_config": ReIDCLIPTextConfig,
    }
    default_image_size: ClassVar[tuple[int, int]] = (384, 128)

    vision_config: Any = None  # a dictionary becomes a ReIDVisionConfig
    text_config: Any = None  # a dictionary becomes a ReIDCLIPTextConfig
    projection_dim: int = 512
    max_text_length: int | None = None
    temperature: float | int = 0.02
    label_epsilon: float | int = 1e-8
    num_classes: int = 11003

    def __post_init__(self, **kwargs: Any) -> None:
        if self.vision_config is None or isinstance(self.vision_config, dict):
            self.vision_config = {"image_size": list(self.default_image_size), **(self.vision_config or {})}
        super().__post_init__(**kwargs)

    @property
    def processor_defaults(self) -> ProcessorDefaults:
        """CLIP's constants, bilinear; padding is 0, and the end token stays (VFE-TPS spec sections 5.2 and 5.3)."""
        return ProcessorDefaults(
            pixels=CLIP_PIXELS,
            interpolation="bilinear",
            tokenizer="clip_with_mask" if hasattr(self, "mask_token_id") else "clip",
            truncation_keeps_sep=True,
            clean_text=True,
            pad_token_id=0,
        )

    def fill_defaults(self) -> None:
        """Values that follow from others when they are not given."""
        if self.max_text_length is None:
            self.max_text_length = self.text_config.max_position_embeddings

    def check_positive(self, *names: str) -> None:
        """Raise `ConfigurationError` for a field of `names` that is not above 0."""
        for name in names:
            if not getattr(self, name) > 0:
                raise ConfigurationError(
                    f"{type(self).__name__}.{name} is {getattr(self, name)}, but must be positive."
                )

    def check_not_negative(self, *names: str) -> None:
        """Raise `ConfigurationError` for a field of `names` that is below 0."""
        for name in names:
            if not getattr(self, name) >= 0:
                raise ConfigurationError(
                    f"{type(self).__name__}.{name} is {getattr(self, name)}, but cannot be negative."
                )

    def check_probability(self, *names: str) -> None:
        """Raise `ConfigurationError` for a field of `names` outside of 0…1."""
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(
                    f"{type(self).__name__}.{name} is {getattr(self, name)}, but must lie between 0 and 1."
                )

    def check_loss_terms(self, known: tuple[str, ...]) -> None:
        """Raise `ConfigurationError` unless `loss_terms` names some of `known`, each once."""
        terms = getattr(self, "loss_terms", [])
        unknown = [name for name in terms if name not in known]
        if unknown or not terms or len(set(terms)) != len(terms):
            raise ConfigurationError(
                f"{type(self).__name__}.loss_terms is {terms}, but must name some of {', '.join(known)}, each once."
            )

    def validate_fields(self) -> None:
        """Sizes that must fit each other."""
        owner = type(self).__name__
        self.check_positive("temperature", "label_epsilon", "num_classes", "projection_dim", "max_text_length")
        assert self.max_text_length is not None
        if self.max_text_length > self.text_config.max_position_embeddings:
            raise ConfigurationError(
                f"{owner}.max_text_length = {self.max_text_length} exceeds text_config.max_position_embeddings = "
                f"{self.text_config.max_position_embeddings}."
            )

    @property
    def embedding_size(self) -> int:
        """Size of the retrieval vector."""
        return self.projection_dim


@checked_config
class CrossModalDualEncoderConfig(CLIPDualEncoderConfig):
    r"""Base of the configurations of IRRA and VFE-TPS, which train with a cross-modal branch beside CLIP's two towers.

    Args:
        cross_modal_num_layers (`int`, defaults to 4): Blocks after the cross attention (training only).
        cross_modal_num_attention_heads (`int`, *optional*): Heads of the cross attention and these blocks;
            by default D / 64 (at least one).
    """

    cross_modal_num_layers: int = 4
    cross_modal_num_attention_heads: int | None = None

    def fill_defaults(self) -> None:
        """Values that follow from others when they are not given."""
        super().fill_defaults()
        if self.cross_modal_num_attention_heads is None:
            self.cross_modal_num_attention_heads = max(self.projection_dim // _HEAD_WIDTH, 1)

    def validate_fields(self) -> None:
        """Heads that divide the width of the branch."""
        super().validate_fields()
        self.check_not_negative("cross_modal_num_layers")
        assert self.cross_modal_num_attention_heads is not None
        heads = self.cross_modal_num_attention_heads
        if heads < 1 or self.projection_dim % heads:
            raise ConfigurationError(
                f"{type(self).__name__}.cross_modal_num_attention_heads = {heads} does not divide projection_dim = "
                f"{self.projection_dim}."
            )
