"""CLIP's two towers as a retrieval model: what IRRA and VFE-TPS are at inference.

Every token of both towers gets the last layer norm and the projection to the joint space, not only the pooled one; the
training branches of the methods work on them.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertModel
from transformers import initialization as init

from ..errors import CheckpointError, ConfigurationError
from ..outputs import RetrievalFeatures, RetrievalOutput
from .base import ReIDPreTrainedModel
from .configuration_clip_dual_encoder import CLIPDualEncoderConfig
from .encoders.clip_loading import load_clip_text_tower
from .encoders.clip_text_transformer import CLIPTextTransformer, end_of_text_indices
from .encoders.cross_modal_encoder import CrossModalEncoder, init_cross_modal_encoder
from .encoders.tower_loading import load_image_tower
from .encoders.vision_transformer import VisionTransformer

__all__ = ["CLIPDualEncoderModel", "CLIPDualEncoderPreTrainedModel"]


class CLIPDualEncoderPreTrainedModel(ReIDPreTrainedModel):
    """Base of the inference and training classes on CLIP's two towers."""

    config: CLIPDualEncoderConfig
    position_grid_align_corners: ClassVar[bool] = False  # VFE-TPS spec section 1.2

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CLIPDualEncoderModel):
            for projection in (module.visual_projection, module.text_projection):
                init.normal_(projection.weight, std=projection.in_features**-0.5)
        elif isinstance(module, CrossModalEncoder):
            init_cross_modal_encoder(module)

    @classmethod
    def from_towers(
        cls,
        image_tower: str | os.PathLike[str],
        text_tower: str | os.PathLike[str] | None = None,
        *,
        image_size: int | tuple[int, int] | None = None,
        preset: str | None = None,
        **config_fields: Any,
    ) -> Self:
        """A model whose towers and projections come from a published CLIP; everything else is newly initialised.

        Args:
            image_tower: A CLIP: folder or Hub id of transformers or open_clip, or a file; see [`load_image_tower`].
            text_tower: The same CLIP (default), or another one whose text tower is taken instead.
            image_size: `(height, width)` in pixels, or one number for a square; the position grid is resampled to it.
                By default the method's own, 384 × 128.
            preset: Named preset for the fields that the towers leave open.
            config_fields: Fields of the configuration. `vision_config` and `text_config` as dictionaries change single
                fields of a tower, such as a dropout.

        Raises:
            CheckpointError: If a tower cannot be read, or the two are projected to different widths.
            ConfigurationError: For a field that is unknown or does not fit the others.
        """
        fields = cls.config_class.preset_fields(preset) if preset is not None else {}
        for tower in ("vision_config", "text_config"):
            fields.pop(tower, None)
        vision_fields = dict(config_fields.pop("vision_config", {}))
        text_fields = dict(config_fields.pop("text_config", {}))
        if image_size is not None and "image_size" in vision_fields:
            raise ConfigurationError("give image_size once: as an argument or in vision_config, not both.")
        if image_size is not None:
            vision_fields["image_size"] = image_size
        vision_fields.setdefault("image_size", list(cls.config_class.default_image_size))
        image = load_image_tower(image_tower, align_corners=cls.position_grid_align_corners, **vision_fields)
        of_image_tower = load_clip_text_tower(image_tower, **text_fields)
        visual_projection = of_image_tower.visual_projection
        assert visual_projection is not None  # a ResNet was refused as an image tower above
        text = of_image_tower if text_tower is None else load_clip_text_tower(text_tower, **text_fields)
        if len(visual_projection) != len(text.text_projection):
            raise CheckpointError(
                f"{image_tower} projects images to {len(visual_projection)} numbers, {text_tower} texts to "
                f"{len(text.text_projection)}; take two CLIPs of the same width."
            )
        fields |= {"projection_dim": len(visual_projection), **config_fields}
        model = cls(cls.config_class(vision_config=image.config, text_config=text.config, **fields))
        inner = next(module for module in model.modules() if isinstance(module, CLIPDualEncoderModel))
        inner.vision_model.load_state_dict(image.state)
        inner.text_model.load_state_dict(text.state)
        with torch.no_grad():
            inner.visual_projection.weight.copy_(visual_projection)
            inner.text_projection.weight.copy_(text.text_projection)
        return model.eval()


class CLIPDualEncoderModel(CLIPDualEncoderPreTrainedModel):
    """CLIP's two towers with their projections."""

    def __init__(self, config: CLIPDualEncoderConfig) -> None:
        super().__init__(config)
        self.vision_model = VisionTransformer._from_config(config.vision_config)
        self.text_model = self._build_text_tower(config)
        self.visual_projection = nn.Linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)

    def _build_text_tower(self, config: CLIPDualEncoderConfig) -> CLIPTextTransformer | BertModel:
        return CLIPTextTransformer._from_config(config.text_config)

    def encode_images(
        self,
        pixel_values: Tensor,
        *,
        patch_mask: Tensor | None = None,
        mask_token: Tensor | None = None,
        visible_patches: Tensor | None = None,
    ) -> Tensor:
        """Image tokens in the joint space, the class token first.

        Args:
            pixel_values: `(B, 3, H, W)`.
            patch_mask: `(B, rows, columns)`, 1 where a patch is replaced by `mask_token`; see [`VisionTransformer`].
            mask_token: Embedding of a masked patch.
            visible_patches: `(B, n)` row-major indices of the only patches to encode.

        Returns:
            `(B, 1+N, D)`, or `(B, 1+n, D)` if only some patches are encoded.
        """
        encoded = self.vision_model(
            pixel_values, patch_mask=patch_mask, mask_token=mask_token, visible_patches=visible_patches
        )
        return self.visual_projection(encoded.last_hidden_state)

    def encode_texts(self, input_ids: Tensor) -> Tensor:
        """Text tokens in the joint space, padding included: `(B, L)` ids → `(B, L, D)`."""
        return self.text_projection(self.text_model(input_ids).last_hidden_state)

    def pool_texts(self, tokens: Tensor, input_ids: Tensor) -> Tensor:
        """Token at the largest id of every sentence, the end of the text: `(B, L, D)` → `(B, D)`."""
        return tokens[torch.arange(len(tokens), device=tokens.device), end_of_text_indices(input_ids)]

    def image_features(self, tokens: Tensor) -> RetrievalFeatures:
        """Features of images from their tokens `(B, 1+N, D)`; see `get_image_features`."""
        return self._features(tokens[:, 0], tokens)

    def text_features(self, tokens: Tensor, input_ids: Tensor) -> RetrievalFeatures:
        """Features of sentences from their tokens `(B, L, D)` and ids; see `get_text_features`."""
        features = self._features(self.pool_texts(tokens, input_ids), tokens)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        features.token_mask = positions <= end_of_text_indices(input_ids)[:, None]
        return features

    def _features(self, pooled: Tensor, tokens: Tensor) -> RetrievalFeatures:
        return RetrievalFeatures(
            embeds=functional.normalize(pooled, dim=1), granularities={"global": pooled}, tokens=tokens
        )

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> RetrievalFeatures:
        """Features of images.

        Args:
            pixel_values: `(B, 3, H, W)` from the processor.
            kwargs: Other keys of a processor's output are not needed and passed over.

        Returns:
            `embeds` `(B, D)` of unit length; the granularity `global`, the same before normalisation; tokens
            `(B, 1+N, D)` in the joint space, the class token first.
        """
        return self.image_features(self.encode_images(pixel_values))

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> RetrievalFeatures:
        """Features of sentences.

        Args:
            input_ids: `(B, L)` token ids, L ≤ `max_text_length`, each row holding the end-of-text token.
            attention_mask: Not needed: no token sees what comes after it.
            kwargs: Other keys of a processor's output; passed over.

        Returns:
            As `get_image_features`, with tokens `(B, L, D)` and a mask of those up to the end of the text.
        """
        return self.text_features(self.encode_texts(input_ids), input_ids)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> RetrievalOutput:
        """Features of what is given, and the similarity if both modalities are.

        Args:
            pixel_values: `(I, 3, H, W)`.
            input_ids: `(T, L)`.
            attention_mask: `(T, L)`; CLIP's text tower does not need it.
        """
        images = None if pixel_values is None else self.get_image_features(pixel_values)
        texts = None if input_ids is None else self.get_text_features(input_ids, attention_mask=attention_mask)
        scores = None if images is None or texts is None else self.similarity(texts, images)
        return RetrievalOutput(similarity=scores, image_features=images, text_features=texts)
