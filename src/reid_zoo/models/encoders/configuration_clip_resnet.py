"""Configuration of CLIP's modified ResNet."""

from typing import Any, ClassVar

from ...errors import ConfigurationError
from ..configuration_base import ReIDPreTrainedConfig, checked_config

__all__ = ["ReIDCLIPResNetConfig"]

_HEAD_WIDTH = 64
_SHALLOW_STRIDE = 16  # of everything before the last stage


@checked_config
class ReIDCLIPResNetConfig(ReIDPreTrainedConfig):
    r"""Configuration of [`CLIPResNet`]; the defaults are CLIP's RN50 with the last stage at stride 1.

    Args:
        stem_width (`int`, defaults to 64): Base width b; the last feature map has 32·b channels.
        layers (`list[int]`, defaults to `[3, 4, 6, 3]`): Bottleneck blocks of the four stages.
        num_attention_heads (`int`, *optional*): Heads of the attention pooling; one per 64 channels by default.
        image_size (`list[int]`, defaults to `[224, 224]`): `[height, width]` in pixels; one number means a square.
        last_stride (`int`, defaults to 1): Stride of the last stage: 1 as CLIP-ReID has it, 2 as in CLIP.
        initializer_range (`float`, defaults to 0.02): Standard deviation of newly initialised position embeddings.
    """

    model_type: ClassVar[str] = "reid_clip_resnet"
    base_config_key: ClassVar[str] = "vision_config"

    stem_width: int = 64
    layers: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    num_attention_heads: int | None = None
    image_size: Any = 224  # becomes [height, width]
    last_stride: int = 1
    initializer_range: float | int = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.image_size, int):
            self.image_size = [self.image_size, self.image_size]
        if not isinstance(self.image_size, list | tuple) or not all(isinstance(side, int) for side in self.image_size):
            raise ConfigurationError(
                f"{type(self).__name__}.image_size is {self.image_size!r}, but must be [height, width] in pixels."
            )
        self.image_size, self.layers = list(self.image_size), list(self.layers)
        super().__post_init__(**kwargs)

    def fill_defaults(self) -> None:
        """Values that follow from others when they are not given."""
        if self.num_attention_heads is None:
            self.num_attention_heads = max(1, self.hidden_size // _HEAD_WIDTH)

    def validate_fields(self) -> None:
        """Four stages, whole grid cells, whole heads."""
        owner = type(self).__name__
        if len(self.layers) != 4 or min(self.layers) < 1:
            raise ConfigurationError(f"{owner}.layers is {self.layers}, but must be four positive numbers.")
        if self.stem_width < 2 or self.stem_width % 2:
            raise ConfigurationError(f"{owner}.stem_width is {self.stem_width}, but must be even and positive.")
        if self.last_stride not in (1, 2):
            raise ConfigurationError(f"{owner}.last_stride is {self.last_stride}, but must be 1 or 2.")
        if len(self.image_size) != 2 or any(side < 1 or side % self.output_stride for side in self.image_size):
            raise ConfigurationError(
                f"{owner}.image_size is {self.image_size}, but must be [height, width] in multiples of "
                f"{self.output_stride}."
            )
        assert self.num_attention_heads is not None
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ConfigurationError(
                f"{owner}.num_attention_heads = {self.num_attention_heads} does not divide the {self.hidden_size} channels."
            )

    @property
    def hidden_size(self) -> int:
        """Channels of the last feature map."""
        return 32 * self.stem_width

    @property
    def penultimate_size(self) -> int:
        """Channels of the feature map before the last stage."""
        return 16 * self.stem_width

    @property
    def output_stride(self) -> int:
        """Pixels per cell of the last feature map."""
        return _SHALLOW_STRIDE * self.last_stride

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of the last feature map."""
        height, width = self.image_size
        return height // self.output_stride, width // self.output_stride

    @property
    def num_tokens(self) -> int:
        """Number of tokens L of the attention pooling: the mean and one per cell."""
        rows, columns = self.grid_size
        return 1 + rows * columns
