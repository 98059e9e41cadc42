"""Configuration of CLIP-ReID."""

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from ...errors import ConfigurationError
from ...validation import check_choice
from ..configuration_base import ReIDPreTrainedConfig, checked_config
from ..encoders.configuration_clip_resnet import ReIDCLIPResNetConfig
from ..encoders.configuration_clip_text_transformer import ReIDCLIPTextConfig
from ..encoders.configuration_vision_transformer import ReIDVisionConfig
from ..processor_defaults import HALF_PIXELS, IMAGENET_PIXELS, ProcessorDefaults
from .presets import CLIP_REID_PRESETS

__all__ = ["BACKBONES", "TEXT_LOSS_TERMS", "CLIPReIDConfig"]

BACKBONES = ("vit_b16", "rn50")
"""Kinds of image tower; their sizes are those of `vision_config`."""

TEXT_LOSS_TERMS = ("i2t", "i2t_in_batch", "t2i_in_batch")
"""Losses between images and prompts in stage two (Table 6): with all identities, or with those of the batch."""

_TRAINING_MODES = ("two_stage", "one_stage", "baseline")
_IMAGE_SIZE = (256, 128)
_WORDS_BEFORE_CONTEXT = 5  # start, "a photo of a"
_WORDS_BEHIND_CONTEXT = 3  # object, full stop, end
_PROJECTION_DIM = {"vit_b16": 512, "rn50": 1024}


@checked_config
class CLIPReIDConfig(ReIDPreTrainedConfig):
    r"""Configuration of [`CLIPReIDModel`] and [`CLIPReIDForTraining`].

    The defaults are the authors' released settings for person images with ViT-B/16. Numbers in brackets are rows of the
    spec's paper-versus-official table.

    Args:
        backbone (`str`, defaults to `"vit_b16"`): Kind of the image tower: a vision transformer, or CLIP's modified
            ResNet (`"rn50"`).
        vision_config (`ReIDVisionConfig` or `ReIDCLIPResNetConfig`): Its sizes; by default CLIP's at 256×128.
            `patch_stride=12` makes patches overlap (OLP, Table 7; ViT only).
        text_config (`ReIDCLIPTextConfig`): The text tower of the training class; by default CLIP's. Its vocabulary is
            not used.
        projection_dim (`int`, *optional*): Width E of the joint space; by default CLIP's, 512 (ViT) or 1024 (ResNet).
        sie_camera (`bool`, defaults to `False`): Side information embedding of the camera (Table 7; ViT only).
        sie_view (`bool`, defaults to `False`): The same of the viewpoint.
        num_cameras (`int`, defaults to 0): Cameras of the training split, needed with `sie_camera`; ids are
            0…num_cameras-1.
        num_views (`int`, defaults to 0): Viewpoints of the training split, needed with `sie_view`.
        sie_coef (`float`, defaults to 1.0): λ, factor on the side information [16].
        sie_tokens (`str`, defaults to `"cls"`): Add it to the class token only, or to `"all"` tokens (Table 7) [17].
        neck_feature (`str`, defaults to `"before"`): Retrieve with the features before or `"after"` the batch norms [20].
        num_classes (`int`, defaults to 751): Training identities N (only the training class uses it).
        training_mode (`str`, defaults to `"two_stage"`): `"two_stage"`: prompts first, then the image tower against their
            fixed text features; `"one_stage"`: both at once (Table 5; our reading of one sentence of the paper) [18];
            `"baseline"`: no text at all (Table 4).
        text_loss_terms (`list[str]`, *optional*): Text losses of stage two (Table 6) [19]: `"i2t"`, cross-entropy
            against all identities (Eq. 8); `"i2t_in_batch"` and `"t2i_in_batch"`, contrastive within the batch. By
            default `["i2t"]`; with one stage the two others; none for the baseline.
        num_context_tokens (`int`, defaults to 4): M, learned words per identity.
        context_initializer_range (`float`, defaults to 0.02): Standard deviation of new context words.
        prompt_object (`str`, defaults to `"person"`): Last word of the prompt, or `"vehicle"` [32].
        id_loss_weight (`float`, *optional*): Weight of the two identity losses; by default 0.25 for the ViT with text,
            else 1 [8].
        triplet_loss_weight (`float`, defaults to 1.0): Weight of the three triplet losses [8].
        i2t_loss_weight (`float`, defaults to 1.0): Weight of the text losses [8].
        label_smoothing (`float`, defaults to 0.1): ε of all cross-entropies of stage two [6].
        triplet_margin (`float`, *optional*, defaults to 0.3): Margin; `None` for the soft margin [12].
    """

    model_type: ClassVar[str] = "clip_reid"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = CLIP_REID_PRESETS
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": ReIDVisionConfig,
        "text_config": ReIDCLIPTextConfig,
    }

    backbone: str = "vit_b16"
    vision_config: Any = None  # a dictionary becomes a configuration of the backbone
    text_config: Any = None  # a dictionary becomes a ReIDCLIPTextConfig
    projection_dim: int | None = None
    sie_camera: bool = False
    sie_view: bool = False
    num_cameras: int = 0
    num_views: int = 0
    sie_coef: float | int = 1.0
    sie_tokens: str = "cls"
    neck_feature: str = "before"
    num_classes: int = 751
    training_mode: str = "two_stage"
    text_loss_terms: list[str] | tuple[str, ...] | None = None
    num_context_tokens: int = 4
    context_initializer_range: float | int = 0.02
    prompt_object: str = "person"
    id_loss_weight: float | int | None = None
    triplet_loss_weight: float | int = 1.0
    i2t_loss_weight: float | int = 1.0
    label_smoothing: float | int = 0.1
    triplet_margin: float | int | None = 0.3

    def __post_init__(self, **kwargs: Any) -> None:
        check_choice("CLIPReIDConfig", "backbone", self.backbone, BACKBONES)
        if self.vision_config is None or isinstance(self.vision_config, dict):
            self.vision_config = {"image_size": list(_IMAGE_SIZE), **(self.vision_config or {})}
        super().__post_init__(**kwargs)

    def sub_config_class(self, name: str) -> type[PreTrainedConfig]:
        """The image tower's configuration is that of the backbone."""
        if name == "vision_config" and self.backbone == "rn50":
            return ReIDCLIPResNetConfig
        return super().sub_config_class(name)

    @property
    def processor_defaults(self) -> ProcessorDefaults:
        """Not CLIP's constants; bilinear in evaluation, images only (spec section 9)."""
        pixels = IMAGENET_PIXELS if self.backbone == "rn50" else HALF_PIXELS
        return ProcessorDefaults(pixels=pixels, interpolation="bilinear", tokenizer=None)

    def fill_defaults(self) -> None:
        """Values that follow from others when they are not given."""
        check_choice("CLIPReIDConfig", "training_mode", self.training_mode, _TRAINING_MODES)
        if self.projection_dim is None:
            self.projection_dim = _PROJECTION_DIM[self.backbone]
        if self.id_loss_weight is None:
            self.id_loss_weight = 0.25 if self.backbone == "vit_b16" and self.uses_text else 1.0
        if self.text_loss_terms is None:
            self.text_loss_terms = {
                "two_stage": ["i2t"],
                "one_stage": ["i2t_in_batch", "t2i_in_batch"],
                "baseline": [],
            }[self.training_mode]
        self.text_loss_terms = list(self.text_loss_terms)

    def validate_fields(self) -> None:
        """Choices, side information that can be used, prompts that fit the text tower."""
        owner = "CLIPReIDConfig"
        for name, choices in {
            "sie_tokens": ("cls", "all"),
            "neck_feature": ("before", "after"),
            "prompt_object": ("person", "vehicle"),
        }.items():
            check_choice(owner, name, getattr(self, name), choices)
        for name in ("num_classes", "projection_dim", "num_context_tokens"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{owner}.{name} is {getattr(self, name)}, but must be at least 1.")
        for name in ("id_loss_weight", "triplet_loss_weight", "i2t_loss_weight"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{owner}.{name} is {getattr(self, name)}, but cannot be negative.")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigurationError(
                f"{owner}.label_smoothing is {self.label_smoothing}, but must be at least 0 and below 1."
            )
        if self.backbone == "rn50" and self.uses_side_information:
            raise ConfigurationError(
                f"{owner}: sie_camera and sie_view need backbone='vit_b16'; a ResNet has no class token to add to."
            )
        for flag, count in (("sie_camera", "num_cameras"), ("sie_view", "num_views")):
            if getattr(self, flag) and getattr(self, count) < 1:
                raise ConfigurationError(f"{owner}.{flag} needs {count}, the number of them in the training split.")
        assert self.text_loss_terms is not None
        terms = list(self.text_loss_terms)
        if len(set(terms)) != len(terms) or any(term not in TEXT_LOSS_TERMS for term in terms):
            raise ConfigurationError(
                f"{owner}.text_loss_terms is {terms}, but must name some of {', '.join(TEXT_LOSS_TERMS)}, each once."
            )
        if self.training_mode == "baseline" and terms:
            raise ConfigurationError(f"{owner}: training_mode='baseline' has no text_loss_terms, but got {terms}.")
        if self.training_mode == "one_stage" and "i2t" in terms:
            raise ConfigurationError(
                f"{owner}: text_loss_terms 'i2t' needs fixed prompts, which training_mode='one_stage' does not have."
            )
        if self.uses_text and self.text_config.max_position_embeddings <= self.end_position:
            raise ConfigurationError(
                f"{owner}: a prompt with num_context_tokens = {self.num_context_tokens} takes {self.end_position + 1} tokens, "
                f"but text_config.max_position_embeddings is {self.text_config.max_position_embeddings}."
            )

    @property
    def hidden_size(self) -> int:
        """Width D of the image tower's last features."""
        return int(self.vision_config.hidden_size)

    @property
    def embedding_size(self) -> int:
        """D + E: the two features that are concatenated for retrieval."""
        assert self.projection_dim is not None
        return self.hidden_size + self.projection_dim

    @property
    def uses_text(self) -> bool:
        """Whether training has prompts and a text tower."""
        return self.training_mode != "baseline"

    @property
    def num_training_stages(self) -> int:
        """The prompts come first with `training_mode="two_stage"`."""
        return 2 if self.training_mode == "two_stage" else 1

    @property
    def uses_side_information(self) -> bool:
        """Whether the model adds an embedding of camera or view."""
        return self.sie_camera or self.sie_view

    @property
    def uses_camera_ids(self) -> bool:
        """Whether the model takes camera ids."""
        return self.sie_camera

    @property
    def uses_view_ids(self) -> bool:
        """Whether the model takes view ids."""
        return self.sie_view

    @property
    def num_side_information_rows(self) -> int:
        """Rows of the table of side information (spec section 2.4)."""
        return (self.num_cameras if self.sie_camera else 1) * (self.num_views if self.sie_view else 1)

    @property
    def context_start(self) -> int:
        """Position of the first learned word in a prompt."""
        return _WORDS_BEFORE_CONTEXT

    @property
    def end_position(self) -> int:
        """Position of the end-of-text token in a prompt."""
        return _WORDS_BEFORE_CONTEXT + self.num_context_tokens + _WORDS_BEHIND_CONTEXT - 1
