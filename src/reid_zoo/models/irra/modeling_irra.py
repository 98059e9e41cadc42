"""IRRA: cross-modal implicit relation reasoning and aligning for text-to-image person retrieval.

D. Jiang, M. Ye, CVPR 2023. At inference it is CLIP's two towers; training adds similarity distribution matching, identity
classification and the prediction of masked words with the help of the image.

Symbols: B pairs, T text length, N patches, D joint dimension, V vocabulary, K identities.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init

from ...data.masking import mask_words
from ...distributed import JointBatchMixin, own_draws_on_every_process
from ...errors import ConfigurationError
from ...losses import CMPMLoss, IdentityLoss, InfoNCELoss, MaskedLanguageModelingLoss, SDMLoss
from ...outputs import ReIDTrainingOutput, RetrievalFeatures
from ..clip_dual_encoder import CLIPDualEncoderModel, CLIPDualEncoderPreTrainedModel
from ..encoders.activated_linear import activation_function
from ..encoders.cross_modal_encoder import CrossModalEncoder, init_linear_bias
from .configuration_irra import IRRAConfig

__all__ = ["IRRAForTraining", "IRRAModel", "IRRAPreTrainedModel"]


class MaskedWordHead(nn.Module):
    """Scores of the vocabulary for every word (spec section 2); its last matrix is not tied to the embedding."""

    def __init__(self, config: IRRAConfig) -> None:
        super().__init__()
        self.num_layers = config.cross_modal_num_layers
        self.dense = nn.Linear(config.projection_dim, config.projection_dim)
        self.activation = activation_function("quick_gelu")
        self.layer_norm = nn.LayerNorm(config.projection_dim)
        self.output = nn.Linear(config.projection_dim, config.text_config.vocab_size)

    def forward(self, states: Tensor) -> Tensor:
        """`(..., D)` → `(..., V)`."""
        return self.output(self.layer_norm(self.activation(self.dense(states))))


class ImplicitRelationReasoning(nn.Module):
    """IRR: words gather from the image what they need to tell the masked ones (spec section 2)."""

    def __init__(self, config: IRRAConfig) -> None:
        super().__init__()
        assert config.cross_modal_num_attention_heads is not None
        self.encoder = CrossModalEncoder(
            config, config.projection_dim, config.cross_modal_num_layers, config.cross_modal_num_attention_heads
        )
        self.head = MaskedWordHead(config)

    def forward(self, text_tokens: Tensor, image_tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """Logits of every word, or of some.

        Args:
            text_tokens: `(B, T, D)` projected tokens of the masked sentences; padding takes part.
            image_tokens: `(B, 1+N, D)` projected tokens of the images, the class token included.
            positions: `(B, T)`, true where logits are wanted; by default everywhere.

        Returns:
            `(B, T, V)`, or `(n, V)` of the n positions in row-major order.
        """
        states = self.encoder(text_tokens, image_tokens)
        return self.head(states if positions is None else states[positions])


class IRRAPreTrainedModel(CLIPDualEncoderPreTrainedModel):
    """Base of the two IRRA classes."""

    config_class = IRRAConfig
    config: IRRAConfig
    base_model_prefix = "irra"
    # Heads that only training needs; the inference class drops them without a warning.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^identity_loss\.", r"^implicit_relation_reasoning\."]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MaskedWordHead):  # spec section 2
            width = module.dense.in_features
            init.normal_(module.dense.weight, std=(2 * width) ** -0.5)
            init.normal_(module.output.weight, std=width**-0.5 * (2 * max(module.num_layers, 1)) ** -0.5)
            init_linear_bias(module.dense)
            init_linear_bias(module.output)
        elif isinstance(module, IdentityLoss):
            init.normal_(module.classifier.weight, std=0.001)


class IRRAModel(IRRAPreTrainedModel, CLIPDualEncoderModel):
    """IRRA for inference: CLIP's two towers, cosine similarity.

    Example:
        >>> model = IRRAModel.from_pretrained("org/irra-cuhk")
        >>> images = model.get_image_features(**processor(images=photos, return_tensors="pt"))
        >>> texts = model.get_text_features(**processor(text=sentences, return_tensors="pt"))
        >>> scores = model.similarity(texts, images)  # (num_texts, num_images)
    """

    def __init__(self, config: IRRAConfig) -> None:
        super().__init__(config)
        self.post_init()


class IRRAForTraining(JointBatchMixin, IRRAPreTrainedModel):
    """IRRA with what only training needs: the identity classifier, implicit relation reasoning and the losses."""

    def __init__(self, config: IRRAConfig) -> None:
        super().__init__(config)
        terms = config.loss_terms
        self.irra = IRRAModel(config)
        self.sdm_loss = SDMLoss(config.temperature, config.label_epsilon)
        self.identity_loss = IdentityLoss(config.projection_dim, config.num_classes) if "id" in terms else None
        self.implicit_relation_reasoning = ImplicitRelationReasoning(config) if "mlm" in terms else None
        self.mlm_loss = MaskedLanguageModelingLoss()
        self.itc_loss = InfoNCELoss(config.temperature)
        self.cmpm_loss = CMPMLoss(config.label_epsilon)
        self.post_init()

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> RetrievalFeatures:
        """See [`IRRAModel.get_image_features`]."""
        return self.irra.get_image_features(pixel_values, **kwargs)

    def get_text_features(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> RetrievalFeatures:
        """See [`IRRAModel.get_text_features`]."""
        return self.irra.get_text_features(input_ids, *args, **kwargs)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        person_labels: Tensor,
        attention_mask: Tensor | None = None,
        masked_input_ids: Tensor | None = None,
        masked_labels: Tensor | None = None,
    ) -> ReIDTrainingOutput:
        """Loss of a batch of image-sentence pairs.

        Args:
            pixel_values: `(B, 3, H, W)`.
            input_ids: `(B, T)`, row i describes image i.
            person_labels: `(B,)` identities, 0…K-1.
            attention_mask: Not needed: the towers see no padding behind a word, and IRR attends to all of it.
            masked_input_ids: `(B, T)` sentences with masked words; by default drawn here. If they are given, the other
                losses see `input_ids` as they are.
            masked_labels: `(B, T)` original ids at the positions to predict, 0 elsewhere; given together with
                `masked_input_ids`.

        Returns:
            The total loss, every term without its weight, and the accuracies `image_id`, `text_id` and `mlm`.
        """
        config = self.config
        if (masked_input_ids is None) != (masked_labels is None):
            raise ConfigurationError("give masked_input_ids and masked_labels together, or neither.")
        if masked_input_ids is None and "mlm" in config.loss_terms:
            assert config.mask_token_id is not None
            with own_draws_on_every_process(input_ids.device):
                masked = mask_words(
                    input_ids,
                    config.mask_token_id,
                    probability=config.mask_probability,
                    mask_share=config.mask_share,
                    random_share=config.random_share,
                )
            masked_input_ids, masked_labels = masked.input_ids, masked.labels
            if config.mask_matching_captions:
                input_ids = masked_input_ids

        image_tokens, text_tokens = self.irra.encode_images(pixel_values), self.irra.encode_texts(input_ids)
        images, texts = self.irra.image_features(image_tokens), self.irra.text_features(text_tokens, input_ids)
        assert images.granularities is not None and texts.granularities is not None
        image, text = images.granularities["global"].float(), texts.granularities["global"].float()
        image, text, person_labels = self.gather_batch(image, text, person_labels)

        terms: dict[str, Tensor] = {}
        accuracies: dict[str, Tensor] = {}
        if "sdm" in config.loss_terms:
            terms["sdm"] = self.sdm_loss(image, text, person_labels)
        if "id" in config.loss_terms:
            assert self.identity_loss is not None
            terms["id"] = self.identity_loss((image, text), person_labels)
            for name, features in (("image_id", image), ("text_id", text)):
                accuracies[name] = self.identity_loss.accuracy(features, person_labels)
        if "mlm" in config.loss_terms:
            assert self.implicit_relation_reasoning is not None
            assert masked_input_ids is not None and masked_labels is not None
            # The release's captions are masked in place: then both passes are one.
            masked_tokens = text_tokens if masked_input_ids is input_ids else self.irra.encode_texts(masked_input_ids)
            # Scores of the whole vocabulary for every position would be most of the step's memory; few are read.
            masked_positions = masked_labels != self.mlm_loss.ignored_label
            word_labels = masked_labels[masked_positions]
            logits = self.implicit_relation_reasoning(masked_tokens, image_tokens, masked_positions).float()
            for figures, totals in (
                (terms, self.mlm_loss.totals(logits, word_labels)),
                (accuracies, self.mlm_loss.correct(logits, word_labels)),
            ):
                figures["mlm"] = self.mlm_loss.reduce(*self.sum_over_processes(*totals))
        if "itc" in config.loss_terms:
            terms["itc"] = self.itc_loss(image, text)
        if "cmpm" in config.loss_terms:
            terms["cmpm"] = self.cmpm_loss(image, text, person_labels)

        weights = {"id": config.id_loss_weight, "mlm": config.mlm_loss_weight}
        total = torch.stack([weights.get(name, 1.0) * value for name, value in terms.items()]).sum()
        return ReIDTrainingOutput(
            loss=total, loss_terms=terms, image_features=images, text_features=texts, accuracies=accuracies
        )
