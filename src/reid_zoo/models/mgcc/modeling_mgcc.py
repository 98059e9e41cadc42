"""MGCC: multi-granularity contrastive consistency for text-based person retrieval under occlusion.

X. Wu, W. Ma, D. Guo, T. Zhou, S. Zhao, Z. Cai, Text-based Occluded Person Re-identification via Multi-Granularity
Contrastive Consistency Learning, AAAI 2024. Equation numbers are the paper's. Where the authors' released code differs
from the text, the code is the default and the text is an option of [`MGCCConfig`].

Symbols: B samples, D joint width, Z_i selected patches, Z_t selected words, L position of the end-of-text token.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init

from ...distributed import JointBatchMixin
from ...errors import ConfigurationError, QueryError
from ...losses import IdentityLoss, SemiHardRankingLoss, SimilarityContrastiveLoss
from ...outputs import ReIDTrainingOutput, RetrievalFeatures, RetrievalOutput
from ...precision import full_precision, in_full_precision
from ..base import ReIDPreTrainedModel
from ..encoders.clip_loading import load_clip_text_tower
from ..encoders.clip_text_transformer import CLIPTextTransformer, end_of_text_indices, without_padding
from ..encoders.tower_loading import load_image_tower
from ..encoders.vision_transformer import VisionTransformer
from ..token_selection import gather_tokens
from .configuration_mgcc import MGCCConfig
from .late_interaction_mgcc import InteractionFeatures, MultiGranularityFusion

__all__ = ["MGCCForTraining", "MGCCModel", "MGCCPreTrainedModel"]

_CLASSIFIER_STD = 0.001


class TextProjection(nn.Module):
    """`fc`: layer norm and a linear map without bias to the joint space, shared by words and the global text vector."""

    def __init__(self, config: MGCCConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.text_config.hidden_size)
        self.linear = nn.Linear(config.text_config.hidden_size, config.hidden_size, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """`(..., D_t)` → `(..., D)`."""
        return self.linear(self.layer_norm(states))


class MGCCPreTrainedModel(ReIDPreTrainedModel):
    """Base of the two MGCC classes."""

    config_class = MGCCConfig
    config: MGCCConfig
    base_model_prefix = "mgcc"
    scores_by_late_interaction: ClassVar[bool] = True
    # Heads that only training needs; the inference class drops them without a warning.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^identity_loss\."]

    def freeze_constants(self) -> None:
        """Frozen towers, and the factor s where it is not trained."""
        if self.config.freeze_image:
            self.vision_tower.requires_grad_(False)
        if self.config.freeze_text:
            self.text_tower.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, MultiGranularityFusion):
                module.logit_scale.requires_grad_(self.config.logit_scale_trainable)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, TextProjection):  # framework default, spec section 2.2
            bound = module.linear.in_features**-0.5
            init.uniform_(module.linear.weight, -bound, bound)
        elif isinstance(module, MultiGranularityFusion):
            for name, parameter in module.named_parameters(recurse=False):
                if name == "logit_scale":
                    init.constant_(parameter, self.config.logit_scale_init)
                else:
                    init.eye_(parameter)
        elif isinstance(module, IdentityLoss):  # spec section 6.2
            init.normal_(module.classifier.weight, std=_CLASSIFIER_STD)
            init.zeros_(module.classifier.bias)

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
        """A model whose towers come from a published CLIP; everything else is newly initialised.

        Args:
            image_tower: A CLIP: folder or Hub id of transformers or open_clip, or a file; see [`load_image_tower`].
            text_tower: The same CLIP (default), or another one whose text tower is taken instead; widths may differ.
            image_size: `(height, width)` in pixels, or one number for a square; the position grid is resampled to it.
                By default the image tower's own.
            preset: Named preset for the fields that the towers leave open.
            config_fields: Fields of the configuration. `vision_config` and `text_config` as dictionaries change single
                fields of a tower, such as a dropout.

        Raises:
            CheckpointError: If a tower cannot be read.
            ConfigurationError: For a field that is unknown or does not fit the others.
        """
        fields = cls.config_class.preset_fields(preset) if preset is not None else {}
        for tower in ("vision_config", "text_config"):
            fields.pop(tower, None)
        vision_fields = dict(config_fields.pop("vision_config", {}))
        text_fields = dict(config_fields.pop("text_config", {}))
        if image_size is not None:
            if "image_size" in vision_fields:
                raise ConfigurationError("give image_size once: as an argument or in vision_config, not both.")
            vision_fields["image_size"] = image_size
        image = load_image_tower(image_tower, align_corners=cls.position_grid_align_corners, **vision_fields)
        text = load_clip_text_tower(image_tower if text_tower is None else text_tower, **text_fields)
        fields |= config_fields
        model = cls(cls.config_class(vision_config=image.config, text_config=text.config, **fields))
        model.vision_tower.load_state_dict(image.state)
        model.text_tower.load_state_dict(text.state)
        return model.eval()


class MGCCModel(MGCCPreTrainedModel):
    """MGCC for inference: CLIP's two towers, token selection, and late interaction between patches and words.

    Example:
        >>> model = MGCCModel.from_pretrained("org/mgcc-cuhk")
        >>> images = model.get_image_features(**processor(images=photos, return_tensors="pt"))
        >>> texts = model.get_text_features(**processor(text=sentences, return_tensors="pt"))
        >>> scores = model.similarity(texts, images)  # (num_texts, num_images)
    """

    def __init__(self, config: MGCCConfig) -> None:
        super().__init__(config)
        self.vision_model = VisionTransformer._from_config(config.vision_config)
        self.text_model = CLIPTextTransformer._from_config(config.text_config)
        self.text_projection = TextProjection(config)
        self.fusion = MultiGranularityFusion(config)
        self.post_init()
        self.freeze_constants()

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> RetrievalFeatures:
        """Features of images.

        Args:
            pixel_values: `(B, 3, H, W)` from the processor.
            kwargs: Other keys of a processor's output are not needed and passed over.

        Returns:
            `embeds` `(B, D)`, the global vectors; `tokens` `(B, Z_i, D)`, the selected patches in descending order of
            attention (or all of them in grid order), of unit length; `token_indices` `(B, Z_i)`, their positions behind the
            class token at 0; `token_scores` `(B, 1+n)`; the granularity `global` before normalisation.
        """
        config = self.config
        encoded = self.vision_model(pixel_values, output_token_scores=config.token_selection)
        # Only the class token passes the post-layer-norm in the release; the patches stay as the last block left them.
        states = encoded.last_hidden_state if config.patch_post_layernorm else encoded.unnormalised_state
        if encoded.token_scores is None:
            indices = torch.arange(1, states.shape[1], device=states.device).expand(len(states), -1)
        else:
            ranks = encoded.token_scores[:, 1:].argsort(dim=1, descending=True, stable=True)
            indices = ranks[:, : config.num_image_tokens] + 1
        pooled = encoded.last_hidden_state[:, 0]
        return RetrievalFeatures(
            embeds=functional.normalize(pooled, dim=1),
            granularities={"global": pooled},
            tokens=functional.normalize(gather_tokens(states, indices), dim=2),
            token_mask=torch.ones_like(indices, dtype=torch.bool),
            token_indices=indices,
            token_scores=encoded.token_scores,
        )

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> RetrievalFeatures:
        """Features of sentences.

        Args:
            input_ids: `(B, N)` token ids, N ≤ `max_text_length`, each row holding the end-of-text token. What stands behind
                it does not matter.
            attention_mask: Not needed: no token sees what comes after it.
            kwargs: Other keys of a processor's output; passed over.

        Returns:
            `embeds` `(B, D)`, the global vectors mapped by M_g, so that their dot products with the images' rank like the
            image-text similarity; `tokens` `(B, Z_t, D)`, the selected words in descending order of attention, of unit
            length, zero where the sentence is too short; `token_mask`, true where a slot takes part in the score;
            `token_indices` `(B, Z_t)`, positions of the embeddings in the sentence, 0 for an empty slot; `token_scores`
            `(B, N)`; the granularity `global` before normalisation.

        Raises:
            ConfigurationError: If the batch is longer than `max_text_length`.
        """
        config = self.config
        assert config.max_text_length is not None
        missing = config.max_text_length - input_ids.shape[1]
        if missing < 0:
            raise ConfigurationError(
                f"input_ids have {input_ids.shape[1]} tokens, but the model takes {config.max_text_length}; let the "
                "processor truncate."
            )
        end = end_of_text_indices(input_ids)
        if not config.token_selection:  # padding takes part, and it is the end-of-text token (spec section 3.3)
            input_ids = functional.pad(input_ids, (0, missing))
            behind = torch.arange(input_ids.shape[1], device=end.device) > end[:, None]
            input_ids = torch.where(behind, input_ids.gather(1, end[:, None]), input_ids)
        encoded = self.text_model(input_ids, output_token_scores=config.token_selection)
        states = encoded.last_hidden_state
        if encoded.token_scores is None:
            indices = torch.arange(1, states.shape[1], device=states.device).expand(len(states), -1)
            taking_part = torch.ones_like(indices, dtype=torch.bool)
            if config.text_padding == "mask":
                taking_part = indices <= end[:, None]
        else:
            indices = self._select_words(encoded.token_scores, end)
            taking_part = indices > 0
        pooled = self.text_projection(states[torch.arange(len(states), device=end.device), end])
        words = functional.normalize(self.text_projection(gather_tokens(states, indices)), dim=2)
        coarse = functional.normalize(pooled.float(), dim=1)
        return RetrievalFeatures(
            embeds=functional.normalize(self.fusion.project_text_vector(coarse), dim=1).to(pooled.dtype),
            granularities={"global": pooled},
            tokens=words * taking_part[..., None],
            token_mask=taking_part if config.text_padding == "mask" else torch.ones_like(taking_part),
            token_indices=indices,
            token_scores=encoded.token_scores,
        )

    def _select_words(self, scores: Tensor, end: Tensor) -> Tensor:
        """Positions of the Z_t words that the end-of-text token attends to most (spec section 3.2).

        Args:
            scores: `(B, N)` attention of the end-of-text token.
            end: `(B,)` its position L; the candidates are the scores of positions 1…L-1.

        Returns:
            `(B, Z_t)` positions of the embeddings, in descending order of their scores, 0 where there are too few words.
        """
        count = self.config.num_text_tokens
        positions = torch.arange(scores.shape[1], device=scores.device)
        candidate = (positions >= 1) & (positions < end[:, None])
        ranked = scores.masked_fill(~candidate, -1.0).argsort(dim=1, descending=True, stable=True)[:, :count]
        # The release drops the start token once too often from the embeddings: a score ranks the word after its own.
        shift = 1 if self.config.text_word_alignment == "shifted" else 0
        chosen = torch.where(candidate.gather(1, ranked), ranked + shift, 0)
        return functional.pad(chosen, (0, count - chosen.shape[1]))

    def interaction_features(self, features: RetrievalFeatures) -> InteractionFeatures:
        """What the fusion takes of features of either modality.

        Args:
            features: Of `get_image_features` or `get_text_features`. Stored image features need `embeds` and `tokens` only.

        Raises:
            QueryError: If the features have no tokens.
        """
        assert features.embeds is not None
        if features.tokens is None:
            raise QueryError(
                "MGCC scores by late interaction: give whole features with their tokens, not only vectors."
            )
        coarse = features.embeds
        if features.granularities is not None:
            coarse = functional.normalize(features.granularities["global"].float(), dim=1)
        # Without any masked token the mask is left out: nothing then has to be masked in any block.
        mask = features.token_mask
        if mask is not None and bool(mask.all()):
            mask = None
        return InteractionFeatures(coarse, features.tokens, mask)

    @in_full_precision
    def similarity(
        self,
        text_features: RetrievalFeatures | Tensor,
        image_features: RetrievalFeatures | Tensor,
        *,
        block_elements: int | None = None,
    ) -> Tensor:
        """MGCC's score of every sentence with every image (Eq. 12), streamed in blocks; not for training.

        Args:
            text_features: Output of `get_text_features`. Tokens may be fewer than Z_t (they are filled up with masked ones),
                of any floating-point precision, and masked by `token_mask`.
            image_features: Output of `get_image_features`, or `embeds` and `tokens` of stored images.
            block_elements: Token pairs that are compared at a time, see [`MultiGranularityFusion.score`].

        Returns:
            `(T, I)` scores in float32, larger is better. If both features are plain `embeds`: the dot products, by which a
            first stage ranks.

        Raises:
            QueryError: If one of the features has no tokens, more than the fusion matrices are for, or is of sentences
                and has no `granularities`.
        """
        if isinstance(text_features, Tensor) and isinstance(image_features, Tensor):
            return super().similarity(text_features, image_features)
        if isinstance(text_features, Tensor) or isinstance(image_features, Tensor):
            raise QueryError("MGCC scores by late interaction: give whole features of both sides, or vectors of both.")
        if text_features.granularities is None and self.fusion.global_matrix is not None:
            raise QueryError("MGCC needs the sentences' granularities, as get_text_features returns them.")
        texts, images = self.interaction_features(text_features), self.interaction_features(image_features)
        if self.config.learnable_fusion:
            for name, given, wanted in (
                ("text", texts.tokens.shape[1], self.config.num_text_tokens),
                ("image", images.tokens.shape[1], self.config.num_image_tokens),
            ):
                if given > wanted:
                    raise QueryError(f"the {name} features have {given} tokens, but the model compares {wanted}.")
        return self.fusion.score(texts, images, block_elements=block_elements)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> RetrievalOutput:
        """Features of what is given, and the similarity if both modalities are.

        Args:
            pixel_values: `(I, 3, H, W)`.
            input_ids: `(T, N)`.
            attention_mask: Not needed; taken so that a processor's whole output can be passed.
        """
        images = None if pixel_values is None else self.get_image_features(pixel_values)
        texts = None if input_ids is None else self.get_text_features(input_ids)
        scores = None if images is None or texts is None else self.similarity(texts, images)
        return RetrievalOutput(similarity=scores, image_features=images, text_features=texts)


class MGCCForTraining(JointBatchMixin, MGCCPreTrainedModel):
    """MGCC with what only training needs: the losses and, if switched on, the identity classifier."""

    def __init__(self, config: MGCCConfig) -> None:
        super().__init__(config)
        self.mgcc = MGCCModel(config)
        self.contrastive_loss = SimilarityContrastiveLoss(config.loss_reduction)
        self.ranking_loss = SemiHardRankingLoss(config.rank_margin)
        self.identity_loss = IdentityLoss(config.hidden_size, config.num_classes) if config.use_id_loss else None
        self.post_init()
        self.freeze_constants()

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> RetrievalFeatures:
        """See [`MGCCModel.get_image_features`]."""
        return self.mgcc.get_image_features(pixel_values, **kwargs)

    def get_text_features(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> RetrievalFeatures:
        """See [`MGCCModel.get_text_features`]."""
        return self.mgcc.get_text_features(input_ids, *args, **kwargs)

    def similarity(
        self,
        text_features: RetrievalFeatures | Tensor,
        image_features: RetrievalFeatures | Tensor,
        *,
        block_elements: int | None = None,
    ) -> Tensor:
        """See [`MGCCModel.similarity`]."""
        return self.mgcc.similarity(text_features, image_features, block_elements=block_elements)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        person_labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_triplets: Tensor | None = None,
        text_triplets: Tensor | None = None,
    ) -> ReIDTrainingOutput:
        """Loss of a batch of image-sentence pairs.

        Args:
            pixel_values: `(B, 3, H, W)`.
            input_ids: `(B, N)`, row i describes image i.
            person_labels: `(B,)` identities; needed for the identity and the ranking loss only. The contrastive loss takes
                other pairs of the same person as negatives, as the release does.
            attention_mask: Not needed; taken so that a processor's whole output can be passed.
            image_triplets: `(T, 3)` rows (anchor, positive, negative) of the joint batch for the ranking loss, images as
                anchors; drawn at random if not given. The same on all processes.
            text_triplets: `(T, 3)`, likewise with sentences as anchors.

        Returns:
            The total loss; the terms `image_to_text` and `text_to_image` (Eqs. 13-14) and `align` (Eq. 15), or `rank`; and
            `id` (unweighted); the similarities `it`, `pw`, `pt`, `iw` and `fused`, with `loss_type="infonce"`. With token
            selection the token scores of the text features end with the longest sentence of the batch.

        Raises:
            ConfigurationError: If labels are missing that a loss needs.
        """
        config = self.config
        if person_labels is None and (config.use_id_loss or config.loss_type == "rank"):
            raise ConfigurationError("the identity and the ranking loss need person_labels.")
        if config.token_selection:
            input_ids = without_padding(input_ids)
        images, texts = self.mgcc.get_image_features(pixel_values), self.mgcc.get_text_features(input_ids)
        image_side, text_side = self.mgcc.interaction_features(images), self.mgcc.interaction_features(texts)
        image, text, person_labels = self.gather_batch(image_side.coarse, text_side.coarse, person_labels)
        terms: dict[str, Tensor] = {}
        similarities: dict[str, Tensor] | None = None
        if config.loss_type == "infonce":
            # Every process compares its own images with all sentences: all pairs of tokens at once would be too many.
            tokens, mask = self.gather_batch(texts.tokens, texts.token_mask)
            all_texts = InteractionFeatures(text, tokens, None if mask.all() else mask)
            with full_precision(pixel_values.device):
                similarities = self.mgcc.fusion(image_side.float(), all_texts.float())
            names = tuple(similarities)
            similarities = dict(zip(names, self.gather_batch(*similarities.values()), strict=True))
            directions = self.contrastive_loss.directions(similarities["fused"])
            terms["image_to_text"], terms["text_to_image"] = directions
            terms["align"] = self.contrastive_loss.reduce(*directions)  # Eq. 15
            total = terms["align"]
        else:
            assert person_labels is not None
            with self.same_draws(image.device):
                terms["rank"] = self.ranking_loss(image, text, person_labels, image_triplets, text_triplets)
            total = terms["rank"]
        if self.identity_loss is not None:
            assert person_labels is not None
            terms["id"] = torch.stack([self.identity_loss(side, person_labels) for side in (image, text)]).sum()
            total = total + config.id_loss_weight * terms["id"]
        return ReIDTrainingOutput(
            loss=total, loss_terms=terms, image_features=images, text_features=texts, similarities=similarities
        )
