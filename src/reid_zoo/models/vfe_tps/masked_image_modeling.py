"""Masked image modelling of VFE-TPS and its alternatives: TG-MIM, the released form, SimMIM and MAE.

Training only. Symbols: B images, N patches, T text length, D joint dimension, p patch size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import initialization as init

from ...errors import ConfigurationError
from ...losses.masked_image_modeling import pixel_mask
from ..clip_dual_encoder import CLIPDualEncoderModel
from ..encoders.cross_modal_encoder import CrossModalEncoder
from ..encoders.transformer_block import TransformerBlock
from .configuration_vfe_tps import VFETPSConfig

__all__ = ["MaskedImageModeling", "PixelDecoder", "VisiblePatchDecoder", "init_masked_image_modeling"]


class PixelDecoder(nn.Module):
    """Pixels from patch tokens: a 1×1 convolution and a pixel shuffle (spec section 2.4)."""

    def __init__(self, config: VFETPSConfig) -> None:
        super().__init__()
        vision = config.vision_config
        self.grid_size = vision.grid_size
        self.projection = nn.Conv2d(config.projection_dim, vision.num_channels * vision.patch_size**2, kernel_size=1)
        self.shuffle = nn.PixelShuffle(vision.patch_size)

    def forward(self, patches: Tensor) -> Tensor:
        """`(B, N, D)` row-major → `(B, 3, H, W)`."""
        return self.shuffle(self.projection(patches.transpose(1, 2).unflatten(2, self.grid_size)))


class VisiblePatchDecoder(nn.Module):
    """MAE's decoder: visible tokens back in their places, a mask token everywhere else, then blocks (section 4)."""

    def __init__(self, config: VFETPSConfig) -> None:
        super().__init__()
        width, heads = config.projection_dim, config.cross_modal_num_attention_heads
        assert heads is not None
        self.mask_embedding = nn.Parameter(torch.empty(width))
        self.position_embedding = nn.Parameter(torch.empty(config.vision_config.num_tokens, width))
        self.layers = nn.ModuleList(
            TransformerBlock(config, width, 4 * width, heads) for _ in range(config.cross_modal_num_layers)
        )
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, visible: Tensor, visible_patches: Tensor) -> Tensor:
        """Tokens of all patches.

        Args:
            visible: `(B, 1+n, D)` class token and tokens of the visible patches.
            visible_patches: `(B, n)` their row-major indices.

        Returns:
            `(B, 1+N, D)`.
        """
        batch, length, width = len(visible), len(self.position_embedding), visible.shape[2]
        places = nn.functional.pad(visible_patches + 1, (1, 0), value=0)[..., None].expand(-1, -1, width)
        tokens = self.mask_embedding.to(visible.dtype).expand(batch, length, width).scatter(1, places, visible)
        states = tokens + self.position_embedding
        for layer in self.layers:
            states = layer(states)
        return self.layer_norm(states)


class MaskedImageModeling(nn.Module):
    """Reconstructs masked images; `config.mim_guidance` says from what (Fig. 5).

    The towers are those of the retrieval model, which is passed to every call.
    """

    def __init__(self, config: VFETPSConfig) -> None:
        super().__init__()
        self.config = config
        assert config.cross_modal_num_attention_heads is not None
        has_token = config.mask_mode == "token" and config.mim_guidance != "mae"
        self.mask_token = nn.Parameter(torch.empty(config.vision_config.hidden_size)) if has_token else None
        self.encoder = (
            CrossModalEncoder(
                config, config.projection_dim, config.cross_modal_num_layers, config.cross_modal_num_attention_heads
            )
            if config.mim_guidance in ("text", "image")
            else None
        )
        self.visible_decoder = VisiblePatchDecoder(config) if config.mim_guidance == "mae" else None
        self.decoder = PixelDecoder(config)

    def encode_masked(self, towers: CLIPDualEncoderModel, pixel_values: Tensor, patch_mask: Tensor) -> Tensor:
        """Projected tokens `(B, 1+N, D)` of the masked images; all of them go through the tower (section 2.2)."""
        if self.mask_token is not None:
            return towers.encode_images(pixel_values, patch_mask=patch_mask, mask_token=self.mask_token)
        patch_size = self.config.vision_config.patch_size
        visible = 1 - pixel_mask(patch_mask.to(pixel_values.dtype), patch_size)
        return towers.encode_images(pixel_values * visible)  # the paper's: pixels set to zero

    def fuse(self, masked_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor | None = None) -> Tensor:
        """Tokens the pixels are predicted from: `(B, 1+N, D)` → `(B, 1+N, D)` (Eqs. 1-2, section 2.3)."""
        if self.encoder is None:
            return masked_tokens  # SimMIM
        if self.config.mim_guidance == "image":
            return self.encoder(masked_tokens, masked_tokens)
        return self.encoder(masked_tokens, text_tokens, text_mask if self.config.mask_text_padding else None)

    def _from_visible_patches(
        self, towers: CLIPDualEncoderModel, pixel_values: Tensor, patch_mask: Tensor, decoder: VisiblePatchDecoder
    ) -> Tensor:
        flat = patch_mask.flatten(1)
        counts = (flat == 0).sum(dim=1)
        count = int(counts[0])
        if (counts != count).any():
            raise ConfigurationError("mim_guidance='mae' needs masks with the same number of masked patches per image.")
        visible_patches = flat.argsort(dim=1, stable=True)[:, :count]
        return decoder(towers.encode_images(pixel_values, visible_patches=visible_patches), visible_patches)

    def forward(
        self,
        towers: CLIPDualEncoderModel,
        pixel_values: Tensor,
        patch_mask: Tensor,
        text_tokens: Tensor,
        text_mask: Tensor | None = None,
    ) -> Tensor:
        """Reconstruction of masked images.

        Args:
            towers: The retrieval model.
            pixel_values: `(B, 3, H, W)` the unmasked images.
            patch_mask: `(B, rows, columns)`, 1 where a patch is masked.
            text_tokens: `(B, T, D)` projected tokens of the sentences, start, end and padding included.
            text_mask: `(B, T)`, true up to the end of the sentence; only used with `mask_text_padding`.

        Returns:
            `(B, 3, H, W)`.
        """
        if self.visible_decoder is not None:
            tokens = self._from_visible_patches(towers, pixel_values, patch_mask, self.visible_decoder)
        else:
            tokens = self.fuse(self.encode_masked(towers, pixel_values, patch_mask), text_tokens, text_mask)
        return self.decoder(tokens[:, 1:])


@torch.no_grad()
def init_masked_image_modeling(module: nn.Module) -> None:
    """Initialise what the branch adds to its cross-modal encoder (spec section 2.5); leaves loaded weights alone."""
    if isinstance(module, MaskedImageModeling) and module.mask_token is not None:
        init.zeros_(module.mask_token)
    elif isinstance(module, PixelDecoder):
        init.xavier_uniform_(module.projection.weight)
        assert module.projection.bias is not None
        init.zeros_(module.projection.bias)
    elif isinstance(module, VisiblePatchDecoder):
        init.normal_(module.mask_embedding, std=0.02)
        init.normal_(module.position_embedding, std=0.02)
