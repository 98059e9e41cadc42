"""Configuration of MGCC."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from ...errors import ConfigurationError
from ...validation import check_choice
from ..configuration_base import ReIDPreTrainedConfig, checked_config
from ..encoders.configuration_clip_text_transformer import ReIDCLIPTextConfig
from ..encoders.configuration_vision_transformer import ReIDVisionConfig
from ..processor_defaults import HALF_PIXELS, ProcessorDefaults
from .presets import MGCC_PRESETS

__all__ = ["AGGREGATIONS", "SIMILARITIES", "MGCCConfig"]

SIMILARITIES = ("it", "pw", "pt", "iw")
"""Image-text, patch-word, patch-text and image-word similarity (Eqs. 1-4)."""

AGGREGATIONS = ("attention", "max_max", "max_mean", "mean_mean", "mean_max")
"""Fusions of the patch-word similarities: how the first and the second axis are reduced (Table 6)."""

_RELEASED_PATCH_SIZE = 32
_CLIP_LOGIT_SCALE = math.log(100)


@checked_config
class MGCCConfig(ReIDPreTrainedConfig):
    r"""Configuration of [`MGCCModel`] and [`MGCCForTraining`].

    The defaults are the authors' released code with the ratios for CUHK-PEDES; where the paper's text says something
    else, the option for it is named. Numbers in brackets are rows of the spec's paper-versus-official table.

    Args:
        vision_config (`ReIDVisionConfig`): The image tower; by default CLIP ViT-B/32 at 224×224. Its width is the joint
            dimension D.
        text_config (`ReIDCLIPTextConfig`): The text tower; by default that of CLIP ViT-B/32.
        max_text_length (`int`, *optional*): Length N sentences are cut and padded to, start and end included; by default
            the text tower's 77.
        token_selection (`bool`, defaults to `True`): Keep the informative tokens only; `False`: all patches and all
            N - 1 positions after the start token, padding included, take part (Table 4, first rows) [14].
        rho_image (`float`, defaults to 0.3): ρ_i, share of the patches that is kept (Tables 4 and 5).
        rho_text (`float`, defaults to 0.4): ρ_t, share of `max_words` that is kept (Tables 4 and 5).
        max_words (`int`, defaults to 25): m, the number of words behind ρ_t, whatever the sentence's length [6].
        num_selected_patches (`int`, *optional*): Z_i; by default ρ_i times the patches, rounded half to even [7]. The
            count, not the ratio, fixes the sizes of the fusion matrices; it stays when the image size changes.
        num_selected_words (`int`, *optional*): Z_t; by default ρ_t·m, rounded half to even [7].
        use_it (`bool`, defaults to `True`): Image-text similarity (Table 3).
        use_pw (`bool`, defaults to `True`): Patch-word similarity (Table 3).
        use_pt (`bool`, defaults to `True`): Patch-text similarity (Table 3).
        use_iw (`bool`, defaults to `True`): Image-word similarity (Table 3). At least one of the four.
        aggregation (`str`, defaults to `"attention"`): Fusion of the patch-word similarities: `"attention"`, `"max_max"`,
            `"max_mean"`, `"mean_mean"` or `"mean_max"` (Table 6). Only `"attention"` uses M_l and τ there.
        softmax_temperature (`float`, defaults to 0.01): τ of every fusion softmax.
        learnable_fusion (`bool`, defaults to `True`): Trainable matrices M and U, identities at the start; `False`: none,
            as in the paper's formulas [8, 9].
        text_word_alignment (`str`, defaults to `"shifted"`): The attention score of a position ranks the embedding one
            position later, as in the release; `"aligned"`: that of the same position [3].
        text_padding (`str`, defaults to `"zero"`): The slots that a short sentence leaves empty take part in the fusion
            with similarity 0; `"mask"`: they do not take part [5]. Without token selection padding takes part as the end
            token it is, or is masked.
        patch_post_layernorm (`bool`, defaults to `False`): Layer-normalise the patches as the class token is [15].
        logit_scale_init (`float`, defaults to ln 100): Logarithm of the factor s on every similarity at the start; 0
            together with `logit_scale_trainable=False` for none, as in the paper [10].
        logit_scale_trainable (`bool`, defaults to `True`): Whether s is trained [10].
        loss_type (`str`, defaults to `"infonce"`): Contrastive loss on the fused similarity (Eqs. 13-15), or `"rank"`, a
            ranking loss on the global features (spec section 6.3).
        loss_reduction (`str`, defaults to `"mean"`): Mean of the two directions of the contrastive loss, or their `"sum"`
            (Eq. 15) [11].
        rank_margin (`float`, defaults to 0.2): α of the ranking loss.
        use_id_loss (`bool`, defaults to `False`): Add the identity loss (spec section 6.2).
        num_classes (`int`, defaults to 0): Training identities; needed for the identity loss only.
        id_loss_weight (`float`, defaults to 1.0): Its weight.
        freeze_image (`bool`, defaults to `False`): Do not train the image tower.
        freeze_text (`bool`, defaults to `False`): Do not train the text tower.
    """

    model_type: ClassVar[str] = "mgcc"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = MGCC_PRESETS
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": ReIDVisionConfig,
        "text_config": ReIDCLIPTextConfig,
    }

    vision_config: Any = None  # a dictionary becomes a ReIDVisionConfig
    text_config: Any = None  # a dictionary becomes a ReIDCLIPTextConfig
    max_text_length: int | None = None
    token_selection: bool = True
    rho_image: float | int = 0.3
    rho_text: float | int = 0.4
    max_words: int = 25
    num_selected_patches: int | None = None
    num_selected_words: int | None = None
    use_it: bool = True
    use_pw: bool = True
    use_pt: bool = True
    use_iw: bool = True
    aggregation: str = "attention"
    softmax_temperature: float | int = 0.01
    learnable_fusion: bool = True
    text_word_alignment: str = "shifted"
    text_padding: str = "zero"
    patch_post_layernorm: bool = False
    logit_scale_init: float | int = _CLIP_LOGIT_SCALE
    logit_scale_trainable: bool = True
    loss_type: str = "infonce"
    loss_reduction: str = "mean"
    rank_margin: float | int = 0.2
    use_id_loss: bool = False
    num_classes: int = 0
    id_loss_weight: float | int = 1.0
    freeze_image: bool = False
    freeze_text: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if self.vision_config is None or isinstance(self.vision_config, dict):
            self.vision_config = {"patch_size": _RELEASED_PATCH_SIZE, **(self.vision_config or {})}
        super().__post_init__(**kwargs)

    @property
    def processor_defaults(self) -> ProcessorDefaults:
        """Not CLIP's constants; sentences are padded with the end token (spec sections 2.2 and 8)."""
        return ProcessorDefaults(
            pixels=HALF_PIXELS, tokenizer="clip", truncation_keeps_sep=True, caption_cleaning="eval"
        )

    def fill_defaults(self) -> None:
        """Values that follow from others when they are not given."""
        if self.max_text_length is None:
            self.max_text_length = self.text_config.max_position_embeddings
        # Python rounds half to even, which is what the release does: 24.5 → 24, 7.5 → 8 (spec section 3).
        if self.num_selected_patches is None:
            self.num_selected_patches = (
                round(self.rho_image * self.num_patches) if self.token_selection else self.num_patches
            )
        if self.num_selected_words is None:
            self.num_selected_words = (
                round(self.rho_text * self.max_words) if self.token_selection else self.max_text_length - 1
            )

    def validate_fields(self) -> None:
        """Choices, and token counts that towers and fusion can work with."""
        for name, choices in {
            "aggregation": AGGREGATIONS,
            "text_word_alignment": ("shifted", "aligned"),
            "text_padding": ("zero", "mask"),
            "loss_type": ("infonce", "rank"),
            "loss_reduction": ("mean", "sum"),
        }.items():
            check_choice("MGCCConfig", name, getattr(self, name), choices)
        for name in ("softmax_temperature", "rank_margin"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"MGCCConfig.{name} is {getattr(self, name)}, but must be positive.")
        if self.id_loss_weight < 0:
            raise ConfigurationError(f"MGCCConfig.id_loss_weight is {self.id_loss_weight}, but cannot be negative.")
        for name in ("rho_image", "rho_text"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigurationError(
                    f"MGCCConfig.{name} is {getattr(self, name)}, but must be above 0 and at most 1."
                )
        if not self.similarities:
            raise ConfigurationError(
                "MGCCConfig: all of use_it, use_pw, use_pt and use_iw are False; enable at least one."
            )
        if self.use_id_loss and self.num_classes < 1:
            raise ConfigurationError(
                f"MGCCConfig.num_classes is {self.num_classes}, but use_id_loss needs the number of training identities."
            )
        assert self.max_text_length is not None
        if not 3 <= self.max_text_length <= self.text_config.max_position_embeddings:
            raise ConfigurationError(
                f"MGCCConfig.max_text_length is {self.max_text_length}, but must lie between 3 and "
                f"text_config.max_position_embeddings = {self.text_config.max_position_embeddings}."
            )
        self._validate_counts()

    def _validate_counts(self) -> None:
        limits = {"num_selected_patches": self.num_patches, "num_selected_words": self.max_words}
        if not self.token_selection:
            assert self.max_text_length is not None
            limits["num_selected_words"] = self.max_text_length - 1
        for name, limit in limits.items():
            count = getattr(self, name)
            if not self.token_selection and self.learnable_fusion and count != limit:
                raise ConfigurationError(
                    f"MGCCConfig.{name} is {count}, but without token selection the fusion matrices are for all {limit} "
                    "tokens; leave the count out, and keep image size and max_text_length."
                )
            if self.token_selection and not 1 <= count <= limit:
                ratio = "rho_image" if name == "num_selected_patches" else "rho_text"
                raise ConfigurationError(
                    f"MGCCConfig.{name} (from {ratio} unless given) is {count}, but must lie between 1 and {limit}."
                )

    @property
    def hidden_size(self) -> int:
        """Joint dimension D, the width of the image tower."""
        return int(self.vision_config.hidden_size)

    @property
    def embedding_size(self) -> int:
        """Size of the coarse vector."""
        return self.hidden_size

    @property
    def num_patches(self) -> int:
        """Patches n of an image."""
        return int(self.vision_config.num_tokens) - 1

    @property
    def num_image_tokens(self) -> int:
        """Z_i, or n without token selection."""
        assert self.num_selected_patches is not None
        return self.num_selected_patches if self.token_selection else self.num_patches

    @property
    def num_text_tokens(self) -> int:
        """Z_t, or N - 1 without token selection."""
        assert self.num_selected_words is not None and self.max_text_length is not None
        return self.num_selected_words if self.token_selection else self.max_text_length - 1

    @property
    def similarities(self) -> list[str]:
        """The enabled similarities, a sub-list of `["it", "pw", "pt", "iw"]`; the score is their mean."""
        return [name for name in SIMILARITIES if getattr(self, f"use_{name}")]

    @property
    def uses_local_matrix(self) -> bool:
        """Whether the patch-word similarity goes through M_l and U3 to U6."""
        return self.use_pw and self.aggregation == "attention" and self.learnable_fusion
