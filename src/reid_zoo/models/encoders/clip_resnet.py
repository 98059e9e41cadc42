"""CLIP's modified ResNet: open_clip's trunk, with our attention pooling on any grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput

from ...errors import ConfigurationError
from .attention import eager_attention_forward
from .configuration_clip_resnet import ReIDCLIPResNetConfig
from .position_grid import resample_position_grid

__all__ = ["AttentionPooling", "CLIPResNet", "ResNetOutput"]


@dataclass
class ResNetOutput(ModelOutput):
    """Output of [`CLIPResNet`].

    Attributes:
        last_map: `(B, C, h, w)` of the last stage.
        penultimate_map: `(B, C/2, h', w')` of the stage before it.
        pooled: `(B, E)` of the attention pooling.
    """

    last_map: Tensor | None = None
    penultimate_map: Tensor | None = None
    pooled: Tensor | None = None


class AttentionPooling(nn.Module):
    """The mean of a feature map attends to all of its cells.

    Args:
        config: Sizes of the map.
        output_size: Width E of the result.

    References:
        CLIP-ReID spec section 2.2. No residual, no norm.
    """

    def __init__(self, config: ReIDCLIPResNetConfig, output_size: int) -> None:
        super().__init__()
        width = config.hidden_size
        assert config.num_attention_heads is not None
        self.config = config
        self.num_heads = config.num_attention_heads
        self.is_causal = False
        self.position_embedding = nn.Parameter(torch.empty(config.num_tokens, width))
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, output_size)

    def tokens(self, feature_map: Tensor) -> Tensor:
        """`(B, C, h, w)` → `(B, 1+h·w, C)`: the mean and the cells row by row, with their positions."""
        cells = feature_map.flatten(2).transpose(1, 2)
        return torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1) + self.position_embedding

    def attend(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """`(B, Lq, C)` queries and `(B, L, C)` tokens → `(B, Lq, E)`."""

        def split_heads(states: Tensor) -> Tensor:
            return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        attended, _ = attention(
            self,
            split_heads(self.q_proj(queries)),
            split_heads(self.k_proj(tokens)),
            split_heads(self.v_proj(tokens)),
            None,
            dropout=0.0,
            scaling=(tokens.shape[-1] // self.num_heads) ** -0.5,
            is_causal=False,
        )
        return self.c_proj(attended.flatten(2))

    def forward(self, feature_map: Tensor) -> Tensor:
        """`(B, C, h, w)` → `(B, E)`; only the mean is used as a query, which is all that is ever read."""
        tokens = self.tokens(feature_map)
        return self.attend(tokens[:, :1], tokens)[:, 0]


class CLIPResNet(PreTrainedModel):
    """The image tower of CLIP's RN50 and its relatives.

    The layers are open_clip's, in blocks that keep less for the backward pass; the last stage keeps its resolution unless
    `last_stride` is 2. Batch norms are in training mode when the model is.

    Args:
        config: Its sizes; see [`ReIDCLIPResNetConfig`].
        output_size: Width E of the attention pooling.
    """

    config_class = ReIDCLIPResNetConfig
    config: ReIDCLIPResNetConfig
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = False  # a second forward pass would update the batch norms twice
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules: ClassVar[list[str]] = ["LeanBottleneck"]

    def __init__(self, config: ReIDCLIPResNetConfig, output_size: int) -> None:
        from .lean_resnet import LeanResNet  # heavy

        super().__init__(config)
        assert config.num_attention_heads is not None
        # Its own attention pooling, made for one square cell here, is not used.
        self.trunk = LeanResNet(
            layers=list(config.layers), output_dim=1, heads=1, image_size=32, width=config.stem_width
        )
        self.trunk.attnpool = None
        if config.last_stride == 1:
            first = self.trunk.layer4[0]
            first.avgpool = nn.Identity()
            setattr(first.downsample, "-1", nn.Identity())  # open_clip's name of the pooling in the shortcut
        self.attention_pooling = AttentionPooling(config, output_size)
        self.post_init()

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # Never as "custom code": transformers would pass over modules of other libraries.
        super()._initialize_weights(module, False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, AttentionPooling):
            init.normal_(module.position_embedding, std=self.config.initializer_range)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def forward(self, pixel_values: Tensor) -> ResNetOutput:
        """Encode images.

        Args:
            pixel_values: `(B, 3, H, W)` normalised pixels.

        Raises:
            ConfigurationError: If the images are of another size.
        """
        expected = (3, *self.config.image_size)
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != expected:
            raise ConfigurationError(
                f"pixel_values have shape {tuple(pixel_values.shape)}, but the model wants (batch, 3, {expected[1]}, "
                f"{expected[2]}); use its processor, or resize_image_grid() for another image size."
            )
        trunk = self.trunk
        pixels = pixel_values.to(trunk.conv1.weight.dtype)
        if pixels.device.type in ("cpu", "cuda"):  # the layout of oneDNN and tensor cores; convolutions pass it on
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        states = trunk.stem(pixels)
        penultimate = trunk.layer3(trunk.layer2(trunk.layer1(states)))
        last = trunk.layer4(penultimate)
        return ResNetOutput(last, penultimate, self.attention_pooling(last))

    @torch.no_grad()
    def resize_image_grid(
        self, image_size: tuple[int, int], *, mode: str = "bilinear", align_corners: bool = False
    ) -> None:
        """Take images of another size from now on: resamples the position grid in place and updates the configuration.

        Args:
            image_size: `(height, width)` in pixels.
            mode: Interpolation, see [`resample_position_grid`].
            align_corners: See [`resample_position_grid`].
        """
        source_grid = self.config.grid_size
        old_size, self.config.image_size = self.config.image_size, list(image_size)
        try:
            self.config.validate_fields()
        except ConfigurationError:
            self.config.image_size = old_size
            raise
        positions = self.attention_pooling.position_embedding
        self.attention_pooling.position_embedding = nn.Parameter(
            resample_position_grid(
                positions, source_grid, self.config.grid_size, mode=mode, align_corners=align_corners
            ),
            requires_grad=positions.requires_grad,
        )
