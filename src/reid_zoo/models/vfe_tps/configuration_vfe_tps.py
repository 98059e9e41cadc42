"""Configuration of VFE-TPS."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ...errors import ConfigurationError
from ...validation import check_choice
from ..configuration_base import checked_config
from ..configuration_clip_dual_encoder import CrossModalDualEncoderConfig
from .presets import VFE_TPS_PRESETS

__all__ = ["LOSS_TERMS", "VFETPSConfig"]

LOSS_TERMS = (
    "matching",
    "gvfc",
    "mim",
    "id",
    "gi2id",
    "g2id",
    "itc",
    "cmpm",
    "triplet",
    "sampled_triplet",
    "gtm",
    "patch",
)
"""Terms that the total can be made of; the first three are the paper's."""

_IDS_BEHIND_THE_WORDS = 3  # mask, start, end


@checked_config
class VFETPSConfig(CrossModalDualEncoderConfig):
    r"""Configuration of [`VFETPSModel`] and [`VFETPSForTraining`].

    The release as left by its authors does not train what the paper describes; the defaults here are the paper's terms
    with the release's details (spec section 3.10, "recommended"). Numbers in brackets are rows of the spec's
    paper-versus-release table. As released: `loss_terms=["matching", "gi2id", "mim"]`, `mim_guidance="image"`,
    `caption_mask_prob=0.15`.

    Args:
        vision_config (`ReIDVisionConfig`): The image tower; by default CLIP ViT-B/16 at 384×128.
        text_config (`ReIDCLIPTextConfig`): The text tower; by default that of CLIP ViT-B/16.
        projection_dim (`int`, defaults to 512): Joint dimension D, also the width of TG-MIM [9].
        max_text_length (`int`, *optional*): Length T sentences are padded to, start and end included; by default the text
            tower's 77 [12].
        temperature (`float`, defaults to 0.02): τ of every loss, fixed.
        label_epsilon (`float`, defaults to 1e-8): ε inside the logarithm of label distributions; the paper's equations
            have none and would be infinite [7].
        num_classes (`int`, defaults to 11003): Training identities K (only the training class uses it).
        cross_modal_num_layers (`int`, defaults to 4): Blocks of TG-MIM behind its cross attention.
        cross_modal_num_attention_heads (`int`, *optional*): Its heads; D / 64 by default.
        loss_terms (`list[str]`, defaults to `["matching", "gvfc", "mim"]`): Terms of the total [1], Table 6 (the baselines
            of Table 5 are configurations of `DualEncoderConfig`):

            - `"matching"`: image-text matching, see `matching_loss`;
            - `"gvfc"`: IS-GVFC (Eqs. 4-5); `"mim"`: TG-MIM (Eqs. 1-3);
            - `"gi2id"`: identity of the image (Fig. 7, "ID", and the release's default); `"id"`: of both modalities;
              `"g2id"`: of both features side by side;
            - `"triplet"`: batch-hard image-image triplets (Fig. 7); `"sampled_triplet"`: the release's image-text ones;
            - `"itc"`: InfoNCE; `"cmpm"`: projection matching, unnormalised;
            - `"gtm"`, `"patch"`: experiments left in the release.
        matching_loss (`str`, defaults to `"sdm"`): What `"matching"` is [8]: `"sdm"` (Eqs. 6-9), `"cmpm_projection"` (the
            function the release calls cmpm) or `"itc"`.
        extra_batch_mean (`bool`, defaults to `False`): Divide SDM by B once more, as Eq. 7 says [8].
        sdm_soft_label_factor (`float`, *optional*): Weight of same-person pairs of different images in SDM's labels (0.3
            in the release, where it is off); training then needs `image_ids`.
        gvfc_mode (`str`, defaults to `"sample"`): Set of features of IS-GVFC [6]: `"sample"`, `"batch"` or `"history"`.
        gvfc_num_samples (`int`, defaults to 20): C, size of a sampled set.
        mim_guidance (`str`, defaults to `"text"`): How masked images are reconstructed [2], Fig. 5: with the `"text"` as
            keys and values (TG-MIM), with the masked `"image"` itself (as released), straight from the encoder, `"none"`
            (SimMIM), or from the visible patches alone, `"mae"`.
        mim_loss_weight (`float`, defaults to 10.0): Weight of `"mim"`; 3.0 is Eq. 3 taken literally [3].
        mim_loss_form (`str`, defaults to `"l1"`): `"l1"`, or `"normalized_mse"` as in the original MAE.
        mask_ratio (`float`, defaults to 0.6): Share of masked units [5].
        mask_patch_size (`int`, defaults to 32): Edge of a masked unit in pixels [5]; `"mae"` always masks single patches.
        mask_mode (`str`, defaults to `"token"`): A learned `"token"` in place of masked patches, or `"zero_pixels"` [4].
        mask_text_padding (`bool`, defaults to `False`): Hide padding from TG-MIM's cross attention [11].
        id_loss_weight (`float`, defaults to 1.0): Weight of `"id"`, `"gi2id"` and `"g2id"`.
        triplet_margin (`float`, defaults to 0.3): Margin of `"triplet"`.
        caption_mask_prob (`float`, defaults to 0.0): Probability that a word of a training caption is disturbed as in
            IRRA; the release always does (0.15) [14].
        mask_token_id (`int`, *optional*): Id of the word mask; by default the third last of the vocabulary (49405).
    """

    model_type: ClassVar[str] = "vfe_tps"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = VFE_TPS_PRESETS

    loss_terms: list[str] | tuple[str, ...] = ("matching", "gvfc", "mim")
    matching_loss: str = "sdm"
    extra_batch_mean: bool = False
    sdm_soft_label_factor: float | int | None = None
    gvfc_mode: str = "sample"
    gvfc_num_samples: int = 20
    mim_guidance: str = "text"
    mim_loss_weight: float | int = 10.0
    mim_loss_form: str = "l1"
    mask_ratio: float | int = 0.6
    mask_patch_size: int = 32
    mask_mode: str = "token"
    mask_text_padding: bool = False
    id_loss_weight: float | int = 1.0
    triplet_margin: float | int = 0.3
    caption_mask_prob: float | int = 0.0
    mask_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.loss_terms = list(self.loss_terms)
        super().__post_init__(**kwargs)

    def fill_defaults(self) -> None:
        """Values that follow from others when they are not given."""
        super().fill_defaults()
        if self.mask_token_id is None:
            self.mask_token_id = self.text_config.vocab_size - _IDS_BEHIND_THE_WORDS

    def validate_fields(self) -> None:
        """Choices, ranges, and an image that holds whole masked units."""
        super().validate_fields()
        for name, choices in {
            "matching_loss": ("sdm", "cmpm_projection", "itc"),
            "gvfc_mode": ("sample", "batch", "history"),
            "mim_guidance": ("text", "image", "none", "mae"),
            "mim_loss_form": ("l1", "normalized_mse"),
            "mask_mode": ("token", "zero_pixels"),
        }.items():
            check_choice("VFETPSConfig", name, getattr(self, name), choices)
        self.check_loss_terms(LOSS_TERMS)
        self.check_positive("gvfc_num_samples")
        self.check_not_negative("mim_loss_weight", "id_loss_weight", "triplet_margin")
        self.check_probability("caption_mask_prob", "mask_ratio")
        if self.sdm_soft_label_factor is not None:
            self.check_probability("sdm_soft_label_factor")
        assert self.mask_token_id is not None
        if not 1 < self.mask_token_id < self.text_config.vocab_size:
            raise ConfigurationError(
                f"VFETPSConfig.mask_token_id is {self.mask_token_id}, but must lie between 2 and text_config.vocab_size - "
                f"1 = {self.text_config.vocab_size - 1}."
            )
        if "mim" in self.loss_terms:
            self._validate_masking()

    def _validate_masking(self) -> None:
        patch, (height, width) = self.vision_config.patch_size, self.vision_config.image_size
        if self.vision_config.stride != patch:
            raise ConfigurationError(
                f"VFETPSConfig: masked image modelling needs vision_config.patch_stride = patch_size = {patch} (it is "
                f"{self.vision_config.stride}); leave 'mim' out of loss_terms."
            )
        unit = self.mask_unit_size
        if unit < patch or unit % patch or height % unit or width % unit:
            raise ConfigurationError(
                f"VFETPSConfig.mask_patch_size is {unit}, but must be a multiple of the patch size {patch} that divides "
                f"the image of {height}×{width} pixels."
            )

    @property
    def mask_unit_size(self) -> int:
        """Edge of a masked unit in pixels."""
        return int(self.vision_config.patch_size) if self.mim_guidance == "mae" else self.mask_patch_size
