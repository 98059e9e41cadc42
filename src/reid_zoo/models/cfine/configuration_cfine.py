"""Configuration of CFine."""

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import BertConfig

from ...errors import ConfigurationError
from ...validation import check_choice
from ..configuration_base import ReIDPreTrainedConfig, checked_config
from ..encoders.configuration_vision_transformer import ReIDVisionConfig
from ..token_selection import selection_count
from .presets import CFINE_PRESETS

__all__ = ["CFineConfig"]

GRANULARITIES = ("low", "high", "middle")
"""All granularities, in the order of embeddings and loss weights (spec section 0): low, **high**, middle."""


@checked_config
class CFineConfig(ReIDPreTrainedConfig):
    r"""Configuration of [`CFineModel`] and [`CFineForTraining`].

    The defaults are the authors' released code, which produced the published figures; where the paper's text says
    something else, the option for it is named. Numbers in brackets are rows of the spec's paper-versus-official table.

    Args:
        vision_config (`ReIDVisionConfig`): The image tower; by default CLIP ViT-B/16 at 224×224.
        text_config (`BertConfig`): The text tower; by default BERT-base uncased. Both towers have the same width.
        max_text_length (`int`, defaults to 100): Length L_t every sentence is padded to, special tokens included [12].
        image_token_ratio (`float`, defaults to 0.1): R_v; K_v = trunc(L_v·R_v), L_v counts the class token [11].
        text_token_ratio (`float`, defaults to 0.2): R_t; K_t = trunc(L_t·R_t), L_t counts padding [11].
        granularities (`list[str]`, defaults to `["low", "high", "middle"]`): Global features in use, a sub-list of the
            default in that order that starts with `"low"` (Table IV).
        mgf_split (`bool`, defaults to `True`): Two groups of K tokens; `False`: the high group holds all 2K tokens and
            there is no middle one (Table V, MGF-2K). Then `granularities` must be `["low", "high"]`.
        gld_num_layers (`int`, defaults to 1): M, decoder blocks (Fig. 5c).
        gld_num_attention_heads (`int`, defaults to 12): Heads of the decoder.
        gld_intermediate_size (`int`, *optional*): MLP width of the decoder; 4·D by default.
        gld_layer_norm_eps (`float`, defaults to 1e-5): Epsilon of the decoder's layer norms.
        gld_attention_type (`str`, defaults to `"cross"`): `"cross"` (Eqs. 1-3) or `"self"` (Table V).
        gld_tie_layers (`bool`, defaults to `True`): One block applied M times; `False`: M independent blocks [15].
        gld_cls_init (`str`, defaults to `"encoder"`): Class token put before each group: the encoder's, the `"mean"` of
            the group's tokens, or a learned vector per group, `"random"` (Table V).
        use_bottleneck (`bool`, defaults to `True`): A batch norm per modality behind the granularities [10].
        bottleneck_eps (`float`, defaults to 1e-5): Its epsilon.
        bottleneck_momentum (`float`, defaults to 0.1): Its momentum; three updates a step, one per granularity.
        mask_padded_selection (`bool`, defaults to `False`): Exclude padded words that were selected from the decoder's
            self-attention, CFR and FCD; ours, not official [13].
        score_before_dropout (`bool`, defaults to `False`): In training, select words by the attention before dropout [21].
        similarity (`str`, defaults to `"concat"`): Cosine of the concatenated granularities, or the `"sum"` of the three
            cosines as in the paper [1].
        num_classes (`int`, defaults to 11003): Training identities C (only the training class uses it).
        use_cfr (`bool`, defaults to `True`): Cross-grained feature refinement (Eqs. 4-8, Table IV).
        use_fcd (`bool`, defaults to `True`): Fine-grained correspondence discovery (Eqs. 9-10, Table IV).
        cfr_normalize (`bool`, defaults to `True`): Cosines in CFR; `False`: inner products, with `cfr_temperature` 1 the
            paper's form [2].
        cfr_temperature (`float`, defaults to 0.07): τ_c, divides inside the softmax and in the summed score.
        cfr_aggregation (`str`, defaults to `"softmax"`): `"softmax"`, `"sum"`, `"mean"` or `"max"` (Table VI).
        num_positive_words (`int`, defaults to 3): k_w, positives per patch in FCD (Fig. 5d).
        num_positive_patches (`int`, defaults to 3): k_p, positives per word in FCD (Fig. 5d).
        fcd_temperature (`float`, defaults to 0.01): τ_f.
        fcd_reduction (`str`, defaults to `"mean"`): Mean of each side and of both, or the paper's `"sum"` (Eq. 10) [3].
        fcd_softmax (`str`, defaults to `"words"`): One softmax over the words for both directions, or
            `"per_direction"` (Eq. 9) [4].
        cmpm_epsilon (`float`, defaults to 1e-8): ε inside CMPM's logarithm.
        cmpm_target_norm (`str`, defaults to `"l2"`): `"l2"` or `"l1"` [8].
        cmpm_granularity_weights (`list[float]`, defaults to `[1, 1, 0.1]`): CMPM weight of the first, second and third
            granularity in use; the paper has ones [7].
        cmpc_granularity_weights (`list[float]`, defaults to `[1, 1, 1]`): The same for CMPC.
        triplet_margin (`float`, defaults to 0.2): α (Eq. 12).
        triplet_weight (`float`, defaults to 10.0): λ_c (Eq. 14).
        triplet_mining (`str`, defaults to `"violating"`): or `"hardest"` (Eq. 12) [5].
        triplet_reduction (`str`, defaults to `"sum"`): or `"mean"` [6].
        diversity_weight (`float`, defaults to 0.2): λ_d (Eq. 14).
        diversity_form (`str`, defaults to `"gram"`): or `"paper"` (Eq. 13) [9].
    """

    model_type: ClassVar[str] = "cfine"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = CFINE_PRESETS
    sub_configs_defaults: ClassVar[dict[str, Any]] = {"vision_config": ReIDVisionConfig, "text_config": BertConfig}

    vision_config: Any = None  # a dictionary becomes a ReIDVisionConfig
    text_config: Any = None  # a dictionary becomes a BertConfig
    max_text_length: int = 100
    image_token_ratio: float | int = 0.1
    text_token_ratio: float | int = 0.2
    granularities: list[str] | tuple[str, ...] = GRANULARITIES
    mgf_split: bool = True
    gld_num_layers: int = 1
    gld_num_attention_heads: int = 12
    gld_intermediate_size: int | None = None
    gld_layer_norm_eps: float | int = 1e-5
    gld_attention_type: str = "cross"
    gld_tie_layers: bool = True
    gld_cls_init: str = "encoder"
    use_bottleneck: bool = True
    bottleneck_eps: float | int = 1e-5
    bottleneck_momentum: float | int = 0.1
    mask_padded_selection: bool = False
    score_before_dropout: bool = False
    similarity: str = "concat"
    num_classes: int = 11003
    use_cfr: bool = True
    use_fcd: bool = True
    cfr_normalize: bool = True
    cfr_temperature: float | int = 0.07
    cfr_aggregation: str = "softmax"
    num_positive_words: int = 3
    num_positive_patches: int = 3
    fcd_temperature: float | int = 0.01
    fcd_reduction: str = "mean"
    fcd_softmax: str = "words"
    cmpm_epsilon: float | int = 1e-8
    cmpm_target_norm: str = "l2"
    cmpm_granularity_weights: list[float | int] | tuple[float | int, ...] = (1.0, 1.0, 0.1)
    cmpc_granularity_weights: list[float | int] | tuple[float | int, ...] = (1.0, 1.0, 1.0)
    triplet_margin: float | int = 0.2
    triplet_weight: float | int = 10.0
    triplet_mining: str = "violating"
    triplet_reduction: str = "sum"
    diversity_weight: float | int = 0.2
    diversity_form: str = "gram"

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("granularities", "cmpm_granularity_weights", "cmpc_granularity_weights"):
            setattr(self, name, list(getattr(self, name)))
        super().__post_init__(**kwargs)

    def fill_defaults(self) -> None:
        """Values that follow from others when they are not given."""
        if self.gld_intermediate_size is None:
            self.gld_intermediate_size = 4 * self.hidden_size

    def validate_fields(self) -> None:
        """Choices, the two widths, and token counts that the selection and FCD can work with."""
        for name, choices in {
            "gld_attention_type": ("cross", "self"),
            "gld_cls_init": ("encoder", "mean", "random"),
            "similarity": ("concat", "sum"),
            "cfr_aggregation": ("softmax", "sum", "mean", "max"),
            "fcd_reduction": ("mean", "sum"),
            "fcd_softmax": ("words", "per_direction"),
            "cmpm_target_norm": ("l2", "l1"),
            "triplet_mining": ("violating", "hardest"),
            "triplet_reduction": ("sum", "mean"),
            "diversity_form": ("gram", "paper"),
        }.items():
            check_choice("CFineConfig", name, getattr(self, name), choices)
        for name in ("gld_num_layers", "num_classes"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"CFineConfig.{name} is {getattr(self, name)}, but must be at least 1.")
        for name in ("cfr_temperature", "fcd_temperature", "cmpm_epsilon"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"CFineConfig.{name} is {getattr(self, name)}, but must be positive.")
        if self.granularities != [name for name in GRANULARITIES if name in self.granularities] or (
            "low" not in self.granularities
        ):
            raise ConfigurationError(
                f"CFineConfig.granularities is {self.granularities}, but must start with 'low' and keep the order "
                f"{list(GRANULARITIES)}."
            )
        if not self.mgf_split and self.granularities != ["low", "high"]:
            raise ConfigurationError(
                "CFineConfig.mgf_split=False puts all selected tokens in the high group: set granularities to "
                f"['low', 'high'] (it is {self.granularities})."
            )
        if self.vision_config.hidden_size != self.text_config.hidden_size:
            raise ConfigurationError(
                f"CFineConfig: vision_config.hidden_size = {self.vision_config.hidden_size} and text_config.hidden_size "
                f"= {self.text_config.hidden_size} must be equal; the decoder is shared by both modalities."
            )
        if self.text_config.hidden_size % self.text_config.num_attention_heads:
            raise ConfigurationError(
                f"CFineConfig.text_config.num_attention_heads = {self.text_config.num_attention_heads} does not divide "
                f"the width {self.text_config.hidden_size}."
            )
        if self.hidden_size % self.gld_num_attention_heads:
            raise ConfigurationError(
                f"CFineConfig.gld_num_attention_heads = {self.gld_num_attention_heads} does not divide the width "
                f"{self.hidden_size}."
            )
        if self.max_text_length > self.text_config.max_position_embeddings:
            raise ConfigurationError(
                f"CFineConfig.max_text_length = {self.max_text_length} exceeds text_config.max_position_embeddings = "
                f"{self.text_config.max_position_embeddings}."
            )
        for name in ("cmpm_granularity_weights", "cmpc_granularity_weights"):
            if len(getattr(self, name)) < len(self.granularities):
                raise ConfigurationError(
                    f"CFineConfig.{name} has {len(getattr(self, name))} values for {len(self.granularities)} granularities."
                )
        if not self.needs_token_selection:
            return
        for side, count, length in (
            ("image", self.num_image_tokens_per_group, self.vision_config.num_tokens),
            ("text", self.num_text_tokens_per_group, self.max_text_length),
        ):
            if count < 1 or 2 * count > length:
                raise ConfigurationError(
                    f"CFineConfig.{side}_token_ratio selects two groups of {count} tokens out of {length}; each group "
                    "needs at least one token and both together at most all of them."
                )
        if self.use_fcd:
            for name, available in (
                ("num_positive_words", self.num_text_tokens_per_group),
                ("num_positive_patches", self.num_image_tokens_per_group),
            ):
                if not 1 <= getattr(self, name) <= available:
                    raise ConfigurationError(
                        f"CFineConfig.{name} is {getattr(self, name)}, but must lie between 1 and the {available} tokens "
                        "of a group."
                    )

    @property
    def hidden_size(self) -> int:
        """Width D of every token, in both modalities."""
        return int(self.vision_config.hidden_size)

    @property
    def num_image_tokens_per_group(self) -> int:
        """K_v."""
        return selection_count(self.vision_config.num_tokens, self.image_token_ratio)

    @property
    def num_text_tokens_per_group(self) -> int:
        """K_t."""
        return selection_count(self.max_text_length, self.text_token_ratio)

    @property
    def needs_token_selection(self) -> bool:
        """Whether anything but the class tokens is used."""
        return len(self.granularities) > 1 or self.use_cfr or self.use_fcd

    @property
    def embedding_size(self) -> int:
        """Size of the retrieval vector: all granularities side by side."""
        return self.hidden_size * len(self.granularities)

    @property
    def projection_dim(self) -> int:
        """`embedding_size`, under the name where sentence-transformers looks for it."""
        return self.embedding_size
