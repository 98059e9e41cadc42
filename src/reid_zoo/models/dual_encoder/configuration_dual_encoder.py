"""Configuration of the dual encoder."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from transformers import BertConfig, PreTrainedConfig

from ...errors import ConfigurationError
from ...validation import check_choice
from ..configuration_base import checked_config
from ..configuration_clip_dual_encoder import CLIPDualEncoderConfig
from ..processor_defaults import ProcessorDefaults
from .presets import DUAL_ENCODER_PRESETS

__all__ = ["LOSS_TERMS", "DualEncoderConfig"]

LOSS_TERMS = ("sdm", "cmpm", "itc", "id")
"""Terms that the total can be made of."""

_CLIP_TEXT_LENGTH = 77


@checked_config
class DualEncoderConfig(CLIPDualEncoderConfig):
    r"""Configuration of [`DualEncoderModel`] and [`DualEncoderForTraining`], the plain baselines.

    The default is CLIP ViT-B/16 fine-tuned with the matching loss. Rows of the published tables:

    | row | fields |
    |---|---|
    | VFE-TPS Table 5, zero-shot CLIP | `training="zero_shot"` |
    | VFE-TPS Table 5, linear-probe CLIP | `training="linear_probe"` |
    | VFE-TPS Table 5, CLIP; IRRA, CLIP ViT-B/16 fine-tuned | the defaults |
    | VFE-TPS Tables 1-3, baseline (ViT and BERT) | preset `"base-bert"` |

    Args:
        vision_config (`ReIDVisionConfig`): The image tower; by default CLIP ViT-B/16 at 384×128.
        text_config (`ReIDCLIPTextConfig` or `BertConfig`): The text tower, of the class that `text_encoder` says; by
            default that of CLIP ViT-B/16, or BERT-base uncased.
        text_encoder (`str`, defaults to `"clip"`): `"clip"`: CLIP's text transformer, the global feature is the
            end-of-text token. `"bert"`: BERT, the global feature is the class token. Either tower is followed by a linear
            layer to D without bias, applied to every token.
        training (`str`, defaults to `"fine_tuned"`): What is trained: everything; with `"linear_probe"` not the towers:
            behind CLIP's frozen towers and projections one more linear layer D → D with bias each, which starts as the
            identity, and with BERT the two linear layers to D; `"zero_shot"`: nothing, CLIP as it is.
        projection_dim (`int`, defaults to 512): Joint dimension D.
        max_text_length (`int`, *optional*): Length sentences are cut and padded to, special tokens included; by default
            `text_config.max_position_embeddings` (77 in CLIP), with BERT at most 77.
        temperature (`float`, defaults to 0.02): τ of `sdm` and `itc`, fixed.
        label_epsilon (`float`, defaults to 1e-8): ε inside the logarithm of label distributions.
        num_classes (`int`, defaults to 11003): Training identities K (only the training class uses it).
        loss_terms (`list[str]`, defaults to `["sdm"]`): Terms of the total: similarity distribution matching (`"sdm"`),
            projection matching (`"cmpm"`), InfoNCE (`"itc"`), identity classification (`"id"`).
        sdm_loss_weight (`float`, defaults to 1.0): Weight of `sdm`.
        cmpm_loss_weight (`float`, defaults to 1.0): Weight of `cmpm`.
        itc_loss_weight (`float`, defaults to 1.0): Weight of `itc`.
        id_loss_weight (`float`, defaults to 1.0): Weight of `id`.
    """

    model_type: ClassVar[str] = "dual_encoder"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = DUAL_ENCODER_PRESETS

    text_encoder: str = "clip"
    training: str = "fine_tuned"
    loss_terms: list[str] | tuple[str, ...] = ("sdm",)
    sdm_loss_weight: float | int = 1.0
    cmpm_loss_weight: float | int = 1.0
    itc_loss_weight: float | int = 1.0
    id_loss_weight: float | int = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        self.loss_terms = list(self.loss_terms)
        check_choice("DualEncoderConfig", "text_encoder", self.text_encoder, ("clip", "bert"))
        super().__post_init__(**kwargs)

    def sub_config_class(self, name: str) -> type[PreTrainedConfig]:
        """BERT's for the text tower, if that is what `text_encoder` says."""
        return BertConfig if name == "text_config" and self.text_encoder == "bert" else super().sub_config_class(name)

    @property
    def processor_defaults(self) -> ProcessorDefaults:
        """CLIP's; BERT reads word pieces."""
        defaults = super().processor_defaults
        if self.text_encoder == "clip":
            return defaults
        return replace(defaults, tokenizer="wordpiece", clean_text=False, pad_token_id=None)

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        """`text_config`; transformers would take the field `text_encoder` for another one."""
        config: PreTrainedConfig = self.text_config
        return config

    def fill_defaults(self) -> None:
        """Values that follow from others when they are not given."""
        if self.max_text_length is None and self.text_encoder == "bert":
            self.max_text_length = min(_CLIP_TEXT_LENGTH, self.text_config.max_position_embeddings)
        super().fill_defaults()

    def validate_fields(self) -> None:
        """Choices, known loss terms, and text towers that their training fits."""
        super().validate_fields()
        check_choice("DualEncoderConfig", "training", self.training, ("fine_tuned", "linear_probe", "zero_shot"))
        self.check_loss_terms(LOSS_TERMS)
        self.check_not_negative(*(f"{name}_loss_weight" for name in LOSS_TERMS))
        if self.training == "zero_shot" and self.text_encoder != "clip":
            raise ConfigurationError(
                "DualEncoderConfig.training='zero_shot' needs towers that were trained together: text_encoder='clip' (it "
                f"is {self.text_encoder!r})."
            )
        if self.text_config.hidden_size % self.text_config.num_attention_heads:
            raise ConfigurationError(
                f"DualEncoderConfig.text_config.num_attention_heads = {self.text_config.num_attention_heads} does not "
                f"divide the width {self.text_config.hidden_size}."
            )

    @property
    def has_probes(self) -> bool:
        """Whether a linear layer D → D stands behind each projection."""
        return self.training == "linear_probe" and self.text_encoder == "clip"
