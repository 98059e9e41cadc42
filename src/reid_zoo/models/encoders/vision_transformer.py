"""One vision transformer for every method of the zoo.

Weight-compatible with CLIP (OpenAI, OpenCLIP, transformers) and with ImageNet ViT checkpoints, on any grid of patches.
Unlike transformers' CLIP tower it takes non-square images, applies its last layer norm to **every** token and can
return the class token's attention in the last block without giving up fused attention kernels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from ...errors import ConfigurationError
from ...outputs import EncoderOutput
from .attention import MultiHeadAttention, init_fused_attention
from .configuration_vision_transformer import ReIDVisionConfig
from .position_grid import resample_position_grid
from .transformer_block import TransformerBlock, TransformerMLP

__all__ = ["TransformerMLP", "VisionTransformer", "VisionTransformerLayer"]


class PatchEmbeddings(nn.Module):
    """Patch convolution, class token and learned positions: `(B, C, H, W)` → `(B, L, D)`."""

    def __init__(self, config: ReIDVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.class_embedding = nn.Parameter(torch.empty(config.hidden_size))
        self.patch_embedding = nn.Conv2d(
            config.num_channels,
            config.hidden_size,
            kernel_size=config.patch_size,
            stride=config.stride,
            bias=config.patch_bias,
        )
        self.position_embedding = nn.Parameter(torch.empty(config.num_tokens, config.hidden_size))

    def forward(
        self,
        pixel_values: Tensor,
        patch_mask: Tensor | None = None,
        mask_token: Tensor | None = None,
        visible_patches: Tensor | None = None,
        side_information: Tensor | None = None,
    ) -> Tensor:
        expected = (self.config.num_channels, *self.config.image_size)
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != expected:
            raise ConfigurationError(
                f"pixel_values have shape {tuple(pixel_values.shape)}, but the model wants (batch, {expected[0]}, "
                f"{expected[1]}, {expected[2]}); use its processor, or resize_image_grid() for another image size."
            )
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2)
        if patch_mask is not None:
            masked = patch_mask.flatten(1)[..., None].to(patches.dtype)
            patches = patches * (1 - masked)
            if mask_token is not None:
                patches = patches + mask_token.to(patches.dtype) * masked
        class_token = self.class_embedding.expand(patches.shape[0], 1, -1)
        if side_information is not None:
            class_token = class_token + side_information[:, :1].to(class_token.dtype)
            if side_information.shape[1] > 1:
                patches = patches + side_information[:, 1:].to(patches.dtype)
        tokens = torch.cat([class_token, patches], dim=1) + self.position_embedding
        if visible_patches is not None:
            kept = nn.functional.pad(visible_patches + 1, (1, 0), value=0)  # the class token stays
            tokens = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
        return tokens


class VisionTransformerLayer(TransformerBlock):
    """Pre-norm block: x ← x + MHA(LN(x)); x ← x + MLP(LN(x))."""

    def __init__(self, config: ReIDVisionConfig) -> None:
        super().__init__(
            config,
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            hidden_act=config.hidden_act,
            layer_norm_eps=config.layer_norm_eps,
            hidden_dropout_prob=config.hidden_dropout_prob,
            attention_dropout=config.attention_dropout,
        )

    def forward(self, hidden_states: Tensor, class_token_only: bool = False) -> Tensor:
        """`(B, L, D)` → `(B, L, D)`, or of the class token alone, which attends to all: `(B, 1, D)`."""
        if not class_token_only:
            return super().forward(hidden_states)
        normed = self.layer_norm1(hidden_states)
        class_token = hidden_states[:, :1] + self.self_attn(normed[:, :1], normed)
        return class_token + self.mlp(class_token, norm=self.layer_norm2)


class VisionTransformer(PreTrainedModel):
    """The image tower.

    Args:
        config: Its sizes; see [`ReIDVisionConfig`].
    """

    config_class = ReIDVisionConfig
    config: ReIDVisionConfig
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules: ClassVar[list[str]] = ["VisionTransformerLayer"]

    def __init__(self, config: ReIDVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = PatchEmbeddings(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.pre_layernorm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.use_pre_layernorm else nn.Identity()
        )
        self.layers = nn.ModuleList(VisionTransformerLayer(config) for _ in range(config.num_hidden_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # Never as "custom code": transformers would pass over modules without parameters of their own.
        super()._initialize_weights(module, False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, PatchEmbeddings):
            of_positions = self.config.position_initializer_range
            init.normal_(module.class_embedding, std=self.config.initializer_range)
            init.normal_(
                module.position_embedding, std=self.config.initializer_range if of_positions is None else of_positions
            )
        elif isinstance(module, MultiHeadAttention):
            init_fused_attention(module)
        elif not isinstance(module, VisionTransformer):
            super()._init_weights(module)

    def forward(
        self,
        pixel_values: Tensor,
        output_token_scores: bool = False,
        *,
        patch_mask: Tensor | None = None,
        mask_token: Tensor | None = None,
        visible_patches: Tensor | None = None,
        side_information: Tensor | None = None,
        class_token_only: bool = False,
    ) -> EncoderOutput:
        """Encode images.

        Args:
            pixel_values: `(B, C, H, W)` normalised pixels.
            output_token_scores: Also return the class token's attention in the last block.
            patch_mask: `(B, rows, columns)`, 1 where a patch is masked: its embedding is replaced by `mask_token` before
                positions are added. The class token is never masked.
            mask_token: `(D,)` or broadcastable; `None` stands for zeros.
            visible_patches: `(B, n)` row-major indices of the only patches that are encoded, each at its own position;
                the tokens are then the class token and these, in that order.
            side_information: Embedding of the camera or view, added before positions are: `(B, 1, D)` to the class token
                only, `(B, 2, D)` the second row to every patch as well.
            class_token_only: Compute the last block for the class token alone: the tokens behind it are `(B, 1, D)`.

        Returns:
            Tokens `(B, L, D)` after and before the last layer norm and before the last block, and scores `(B, L)` if asked
            for.
        """
        embedded = self.embeddings(pixel_values, patch_mask, mask_token, visible_patches, side_information)
        hidden_states = self.pre_layernorm(self.dropout(embedded))
        for layer in self.layers[:-1]:
            hidden_states = layer(hidden_states)
        last = self.layers[-1]
        assert isinstance(last, VisionTransformerLayer)
        token_scores = None
        if output_token_scores:
            token_scores = last.self_attn.class_token_row(last.layer_norm1(hidden_states).detach())
        penultimate, hidden_states = hidden_states, last(hidden_states, class_token_only)
        return EncoderOutput(self.post_layernorm(hidden_states), token_scores, hidden_states, penultimate)

    @torch.no_grad()
    def resize_image_grid(
        self, image_size: tuple[int, int], *, mode: str = "bilinear", align_corners: bool = True
    ) -> None:
        """Take images of another size from now on: resamples the position grid in place and updates the configuration.

        Args:
            image_size: `(height, width)` in pixels, at least a patch.
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
        self.embeddings.position_embedding = nn.Parameter(
            resample_position_grid(
                self.embeddings.position_embedding,
                source_grid,
                self.config.grid_size,
                mode=mode,
                align_corners=align_corners,
            ),
            requires_grad=self.embeddings.position_embedding.requires_grad,
        )
