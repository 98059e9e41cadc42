"""The plain baselines: two towers, a linear layer behind each, cosine similarity, a matching loss.

CLIP (A. Radford et al., ICML 2021) as it is, with a linear probe, or fine-tuned: Table 5 of VFE-TPS and the first row of
IRRA's results. ViT with BERT: "baseline" in Tables 1 to 3 of VFE-TPS (spec section 4).

Symbols: B pairs, L tokens of a sentence, N patches, D joint dimension, K identities.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import BertModel
from transformers import initialization as init

from ...distributed import JointBatchMixin
from ...losses import CMPMLoss, IdentityLoss, InfoNCELoss, SDMLoss
from ...outputs import ReIDTrainingOutput, RetrievalFeatures
from ..clip_dual_encoder import CLIPDualEncoderModel, CLIPDualEncoderPreTrainedModel
from ..configuration_clip_dual_encoder import CLIPDualEncoderConfig
from ..encoders.clip_text_transformer import CLIPTextTransformer, without_padding
from ..encoders.text_tower import encode_with_bert
from .configuration_dual_encoder import DualEncoderConfig

__all__ = ["DualEncoderForTraining", "DualEncoderModel", "DualEncoderPreTrainedModel"]


class DualEncoderPreTrainedModel(CLIPDualEncoderPreTrainedModel):
    """Base of the two dual-encoder classes."""

    config_class = DualEncoderConfig
    config: DualEncoderConfig
    base_model_prefix = "dual_encoder"
    towers_share_width: ClassVar[bool] = False
    may_be_new: ClassVar[tuple[str, ...]] = ("image_probe.", "text_probe.")
    # The head that only training needs; the inference class drops it without a warning.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^identity_loss\."]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, IdentityLoss):
            init.normal_(module.classifier.weight, std=0.001)
        elif isinstance(module, DualEncoderModel):
            for probe in (module.image_probe, module.text_probe):
                if isinstance(probe, nn.Linear):  # starts as what the frozen towers say
                    init.eye_(probe.weight)

    def freeze_constants(self) -> None:
        """Without fine-tuning the towers stay as they are, and CLIP's projections; zero-shot, everything does."""
        if self.config.training == "zero_shot":
            self.requires_grad_(False)
        if self.config.training != "linear_probe":
            return
        for module in self.modules():
            if isinstance(module, DualEncoderModel):
                module.vision_model.requires_grad_(False)
                module.text_model.requires_grad_(False)
                if self.config.has_probes:
                    module.visual_projection.requires_grad_(False)
                    module.text_projection.requires_grad_(False)

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
        """A model whose towers come from published checkpoints.

        Args:
            image_tower: With `text_encoder="clip"` (default) a CLIP, whose projections are taken too. With `"bert"` a CLIP
                or an ImageNet ViT; the linear layers to D are then new. See [`load_image_tower`].
            text_tower: With `"clip"` the same CLIP (default), or another one; with `"bert"` a BERT (newly initialised by
                default), which may have another width.
            image_size: `(height, width)` in pixels, or one number for a square; the position grid is resampled to it.
                By default 384 × 128.
            preset: Named preset for the fields that the towers leave open.
            config_fields: Fields of the configuration. `vision_config` and `text_config` as dictionaries change single
                fields of a tower, such as a dropout.

        Raises:
            CheckpointError: If a tower cannot be read.
            ConfigurationError: For a field that is unknown or does not fit the others.
        """
        preset_fields = cls.config_class.preset_fields(preset) if preset is not None else {}
        if {**preset_fields, **config_fields}.get("text_encoder", "clip") == "clip":
            return super().from_towers(image_tower, text_tower, image_size=image_size, preset=preset, **config_fields)
        if image_size is None and "image_size" not in config_fields.get("vision_config", {}):
            image_size = cls.config_class.default_image_size
        # Past CLIPDualEncoderPreTrainedModel, which takes both towers from CLIPs.
        return super(CLIPDualEncoderPreTrainedModel, cls).from_towers(
            image_tower, text_tower, image_size=image_size, preset=preset, **config_fields
        )


class DualEncoderModel(DualEncoderPreTrainedModel, CLIPDualEncoderModel):
    """Two towers for inference, cosine similarity.

    Example:
        >>> model = DualEncoderModel.from_towers("openai/clip-vit-base-patch16", training="zero_shot")
        >>> images = model.get_image_features(**processor(images=photos, return_tensors="pt"))
        >>> texts = model.get_text_features(**processor(text=sentences, return_tensors="pt"))
        >>> scores = model.similarity(texts, images)  # (num_texts, num_images)
    """

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__(config)
        width = config.projection_dim
        self.image_probe = nn.Linear(width, width) if config.has_probes else nn.Identity()
        self.text_probe = nn.Linear(width, width) if config.has_probes else nn.Identity()
        self.post_init()
        self.freeze_constants()

    def _build_text_tower(self, config: CLIPDualEncoderConfig) -> CLIPTextTransformer | BertModel:
        if self.config.text_encoder == "bert":
            return BertModel._from_config(config.text_config, add_pooling_layer=False)
        return super()._build_text_tower(config)

    def encode_images(self, pixel_values: Tensor, **masking: Any) -> Tensor:
        """See [`CLIPDualEncoderModel.encode_images`]; followed by the linear probe, if there is one."""
        return self.image_probe(super().encode_images(pixel_values, **masking))

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Text tokens in the joint space, padding included.

        Args:
            input_ids: `(B, L)` token ids.
            attention_mask: `(B, L)`, 1 on real tokens; only BERT needs it. By default everything but its padding id.

        Returns:
            `(B, L, D)`.
        """
        if isinstance(self.text_model, BertModel):
            mask = self._real_tokens(input_ids, attention_mask)
            encoded = encode_with_bert(self.text_model, input_ids, mask).last_hidden_state
            return self.text_probe(self.text_projection(encoded))
        return self.text_probe(super().encode_texts(input_ids))

    def _real_tokens(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        if attention_mask is not None:
            return attention_mask
        return (input_ids != (self.config.text_config.pad_token_id or 0)).long()

    def text_features(
        self, tokens: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> RetrievalFeatures:
        """Features of sentences from their tokens `(B, L, D)`, ids and, for BERT, mask; see `get_text_features`."""
        if not isinstance(self.text_model, BertModel):
            return super().text_features(tokens, input_ids)
        features = self._features(tokens[:, 0], tokens)
        features.token_mask = self._real_tokens(input_ids, attention_mask).bool()
        return features

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> RetrievalFeatures:
        """Features of sentences.

        Args:
            input_ids: `(B, L)` token ids, L ≤ `max_text_length`; for CLIP each row holds the end-of-text token.
            attention_mask: `(B, L)`, 1 on real tokens, for BERT (by default everything but its padding id). In CLIP's
                text tower no token sees what comes after it.
            kwargs: Other keys of a processor's output are not needed and passed over.

        Returns:
            `embeds` `(B, D)` of unit length; the granularity `global`, the same before normalisation; tokens `(B, L, D)`
            in the joint space and their mask.
        """
        return self.text_features(self.encode_texts(input_ids, attention_mask), input_ids, attention_mask)


class DualEncoderForTraining(JointBatchMixin, DualEncoderPreTrainedModel):
    """The dual encoder with its losses and, if used, the identity classifier."""

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__(config)
        self.dual_encoder = DualEncoderModel(config)
        self.sdm_loss = SDMLoss(config.temperature, config.label_epsilon)
        self.cmpm_loss = CMPMLoss(config.label_epsilon)
        self.itc_loss = InfoNCELoss(config.temperature)
        has_identities = "id" in config.loss_terms
        self.identity_loss = IdentityLoss(config.projection_dim, config.num_classes) if has_identities else None
        self.post_init()
        self.freeze_constants()

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> RetrievalFeatures:
        """See [`DualEncoderModel.get_image_features`]."""
        return self.dual_encoder.get_image_features(pixel_values, **kwargs)

    def get_text_features(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> RetrievalFeatures:
        """See [`DualEncoderModel.get_text_features`]."""
        return self.dual_encoder.get_text_features(input_ids, *args, **kwargs)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        person_labels: Tensor,
        attention_mask: Tensor | None = None,
    ) -> ReIDTrainingOutput:
        """Loss of a batch of image-sentence pairs.

        Args:
            pixel_values: `(B, 3, H, W)`.
            input_ids: `(B, L)`, row i describes image i.
            person_labels: `(B,)` identities, 0…K-1.
            attention_mask: See `get_text_features`.

        Returns:
            The total loss, every term without its weight, and with `id` the accuracies `image_id` and `text_id`. With CLIP's
            text tower the tokens of the text features end with the longest sentence of the batch.
        """
        config = self.config
        if config.text_encoder == "clip":
            input_ids = without_padding(input_ids)
        images = self.get_image_features(pixel_values)
        texts = self.get_text_features(input_ids, attention_mask=attention_mask)
        assert images.granularities is not None and texts.granularities is not None
        image, text = images.granularities["global"].float(), texts.granularities["global"].float()
        image, text, person_labels = self.gather_batch(image, text, person_labels)
        terms: dict[str, Tensor] = {}
        accuracies: dict[str, Tensor] = {}
        if "sdm" in config.loss_terms:
            terms["sdm"] = self.sdm_loss(image, text, person_labels)
        if "cmpm" in config.loss_terms:
            terms["cmpm"] = self.cmpm_loss(image, text, person_labels)
        if "itc" in config.loss_terms:
            terms["itc"] = self.itc_loss(image, text)
        if self.identity_loss is not None:
            terms["id"] = self.identity_loss((image, text), person_labels)
            for name, features in (("image_id", image), ("text_id", text)):
                accuracies[name] = self.identity_loss.accuracy(features, person_labels)
        total = torch.stack([getattr(config, f"{name}_loss_weight") * value for name, value in terms.items()]).sum()
        return ReIDTrainingOutput(
            loss=total, loss_terms=terms, image_features=images, text_features=texts, accuracies=accuracies
        )
