"""Configuration of the zoo's vision transformer."""

from typing import Any, ClassVar

from ...errors import ConfigurationError
from ...validation import check_choice
from ..configuration_base import ReIDPreTrainedConfig, checked_config

__all__ = ["ReIDVisionConfig"]


@checked_config
class ReIDVisionConfig(ReIDPreTrainedConfig):
    r"""Configuration of [`VisionTransformer`]; the defaults are CLIP ViT-B/16 at 224×224.

    Args:
        hidden_size (`int`, defaults to 768): Width D of every token.
        intermediate_size (`int`, defaults to 3072): Width of the MLP.
        num_hidden_layers (`int`, defaults to 12): Number of blocks.
        num_attention_heads (`int`, defaults to 12): Number of attention heads; must divide `hidden_size`.
        num_channels (`int`, defaults to 3): Number of colour channels.
        image_size (`list[int]`, defaults to `[224, 224]`): `[height, width]` in pixels; one number means a square.
        patch_size (`int`, defaults to 16): Edge of a square patch in pixels.
        patch_stride (`int`, *optional*): Distance of two neighbouring patches in pixels; `patch_size` by default, less
            for overlapping patches. The grid is floor((side - patch_size) / patch_stride) + 1 patches; pixels at the right
            and lower border that do not fill one are not seen.
        hidden_act (`str`, defaults to `"quick_gelu"`): Activation of the MLP (`"gelu"` for ImageNet weights).
        layer_norm_eps (`float`, defaults to 1e-5): Epsilon of every layer norm (1e-6 for ImageNet weights).
        patch_bias (`bool`, defaults to `False`): Whether the patch convolution has a bias (ImageNet weights do).
        use_pre_layernorm (`bool`, defaults to `True`): Layer norm before the first block (CLIP has one).
        hidden_dropout_prob (`float`, defaults to 0.0): Dropout after the embeddings and inside the MLP.
        attention_dropout (`float`, defaults to 0.0): Dropout of the attention probabilities.
        initializer_range (`float`, defaults to 0.02): Standard deviation of newly initialised weights.
        position_initializer_range (`float`, *optional*): The same for the position grid; `initializer_range` by default.
    """

    model_type: ClassVar[str] = "reid_vision_transformer"
    base_config_key: ClassVar[str] = "vision_config"

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: Any = 224  # becomes [height, width]
    patch_size: int = 16
    patch_stride: int | None = None
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float | int = 1e-5
    patch_bias: bool = False
    use_pre_layernorm: bool = True
    hidden_dropout_prob: float | int = 0.0
    attention_dropout: float | int = 0.0
    initializer_range: float | int = 0.02
    position_initializer_range: float | int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.image_size, int):
            self.image_size = [self.image_size, self.image_size]
        if not isinstance(self.image_size, list | tuple) or not all(isinstance(side, int) for side in self.image_size):
            raise ConfigurationError(
                f"{type(self).__name__}.image_size is {self.image_size!r}, but must be [height, width] in pixels."
            )
        self.image_size = list(self.image_size)
        super().__post_init__(**kwargs)

    def validate_fields(self) -> None:
        """The image must hold a patch, the width whole heads."""
        owner = type(self).__name__
        if self.patch_stride is not None and self.patch_stride < 1:
            raise ConfigurationError(f"{owner}.patch_stride is {self.patch_stride}, but must be at least 1.")
        if len(self.image_size) != 2 or min(self.image_size) < self.patch_size:
            raise ConfigurationError(
                f"{owner}.image_size is {self.image_size}, but must be [height, width], both at least "
                f"patch_size = {self.patch_size}."
            )
        if self.hidden_size % self.num_attention_heads:
            raise ConfigurationError(
                f"{owner}.hidden_size = {self.hidden_size} is not a multiple of num_attention_heads = "
                f"{self.num_attention_heads}."
            )
        check_choice(owner, "hidden_act", self.hidden_act, ("quick_gelu", "gelu"))
        if self.num_hidden_layers < 1:
            raise ConfigurationError(f"{owner}.num_hidden_layers is {self.num_hidden_layers}, but must be at least 1.")

    @property
    def stride(self) -> int:
        """Distance of two neighbouring patches in pixels."""
        return self.patch_size if self.patch_stride is None else self.patch_stride

    @property
    def grid_size(self) -> tuple[int, int]:
        """Number of patches along height and width."""
        height, width = self.image_size
        return (height - self.patch_size) // self.stride + 1, (width - self.patch_size) // self.stride + 1

    @property
    def num_tokens(self) -> int:
        """Number of tokens L: the class token and one per patch."""
        rows, columns = self.grid_size
        return 1 + rows * columns
