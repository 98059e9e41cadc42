"""Configuration of IRRA."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ...errors import ConfigurationError
from ..configuration_base import checked_config
from ..configuration_clip_dual_encoder import CrossModalDualEncoderConfig
from .presets import IRRA_PRESETS

__all__ = ["IRRAConfig"]

LOSS_TERMS = ("sdm", "id", "mlm", "itc", "cmpm")
"""Terms that the total can be made of; the first three are the paper's."""

_IDS_BEHIND_THE_WORDS = 3  # mask, start, end


@checked_config
class IRRAConfig(CrossModalDualEncoderConfig):
    r"""Configuration of [`IRRAModel`] and [`IRRAForTraining`]; the defaults are the authors' released recipe.

    Args:
        vision_config (`ReIDVisionConfig`): The image tower; by default CLIP ViT-B/16 at 384×128.
        text_config (`ReIDCLIPTextConfig`): The text tower; by default that of CLIP ViT-B/16.
        projection_dim (`int`, defaults to 512): Joint dimension D.
        max_text_length (`int`, *optional*): Length T sentences are padded to, start and end included; by default the text
            tower's 77.
        temperature (`float`, defaults to 0.02): τ of `sdm` and `itc`, fixed.
        label_epsilon (`float`, defaults to 1e-8): ε inside the logarithm of label distributions.
        num_classes (`int`, defaults to 11003): Training identities K (only the training class uses it).
        cross_modal_num_layers (`int`, defaults to 4): Blocks of the interaction encoder.
        cross_modal_num_attention_heads (`int`, *optional*): Its heads; D / 64 by default.
        loss_terms (`list[str]`, defaults to `["sdm", "id", "mlm"]`): Terms of the total: similarity distribution matching,
            identity classification, masked language modelling; also `"itc"` (InfoNCE) and `"cmpm"` (projection matching).
        id_loss_weight (`float`, defaults to 1.0): Weight of `id`.
        mlm_loss_weight (`float`, defaults to 1.0): Weight of `mlm`.
        mask_token_id (`int`, *optional*): Id of the mask token; by default the third last of the vocabulary (49405).
        mask_probability (`float`, defaults to 0.15): Probability that a word is chosen for prediction.
        mask_share (`float`, defaults to 0.8): Share of the chosen words that become the mask token.
        random_share (`float`, defaults to 0.1): Share of the chosen words that become a random one.
        mask_matching_captions (`bool`, defaults to `True`): Let the matching and identity losses see the masked caption
            too, as the release does (its masking works in place); `False`: they see the clean caption.
    """

    model_type: ClassVar[str] = "irra"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = IRRA_PRESETS

    loss_terms: list[str] | tuple[str, ...] = ("sdm", "id", "mlm")
    id_loss_weight: float | int = 1.0
    mlm_loss_weight: float | int = 1.0
    mask_token_id: int | None = None
    mask_probability: float | int = 0.15
    mask_share: float | int = 0.8
    random_share: float | int = 0.1
    mask_matching_captions: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        self.loss_terms = list(self.loss_terms)
        super().__post_init__(**kwargs)

    def fill_defaults(self) -> None:
        """Values that follow from others when they are not given."""
        super().fill_defaults()
        if self.mask_token_id is None:
            self.mask_token_id = self.text_config.vocab_size - _IDS_BEHIND_THE_WORDS

    def validate_fields(self) -> None:
        """Known loss terms, probabilities, and a mask token inside the vocabulary."""
        super().validate_fields()
        self.check_loss_terms(LOSS_TERMS)
        self.check_not_negative("id_loss_weight", "mlm_loss_weight")
        self.check_probability("mask_probability", "mask_share", "random_share")
        if self.mask_share + self.random_share > 1:
            raise ConfigurationError(
                f"IRRAConfig.mask_share = {self.mask_share} and random_share = {self.random_share} exceed 1 together."
            )
        assert self.mask_token_id is not None
        if not 1 < self.mask_token_id < self.text_config.vocab_size:
            raise ConfigurationError(
                f"IRRAConfig.mask_token_id is {self.mask_token_id}, but must lie between 2 and text_config.vocab_size - 1 "
                f"= {self.text_config.vocab_size - 1}."
            )
