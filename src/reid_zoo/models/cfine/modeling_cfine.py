"""CFine: CLIP-driven fine-grained text-image person re-identification.

S. Yan, N. Dong, L. Zhang, J. Tang, IEEE Transactions on Image Processing, 2023, doi 10.1109/TIP.2023.3327924. Equation
numbers are the paper's. Where the authors' released code differs from the text, the code is the default (it produced the
published figures) and the text is an option of [`CFineConfig`].

Symbols: B pairs, D width, L tokens of a modality, K tokens of a selected group; v image, t text.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from ...distributed import JointBatchMixin
from ...errors import ConfigurationError
from ...losses import CMPCLoss, CMPMLoss, CrossModalTripletLoss, DiversityLoss
from ...outputs import EncoderOutput, ReIDTrainingOutput, RetrievalFeatures, RetrievalOutput
from ...precision import in_full_precision
from ..base import ReIDPreTrainedModel
from ..encoders.attention import MultiHeadAttention
from ..encoders.configuration_vision_transformer import ReIDVisionConfig
from ..encoders.text_tower import encode_with_bert
from ..encoders.vision_transformer import TransformerMLP, VisionTransformer
from ..token_selection import gather_tokens, rank_tokens
from .configuration_cfine import CFineConfig

__all__ = ["CFineForTraining", "CFineModel", "CFinePreTrainedModel"]


class GlobalLocalDecoderLayer(GradientCheckpointingLayer):
    """One block of the global-local decoder (Eqs. 1-3)."""

    def __init__(self, config: CFineConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.gld_layer_norm_eps
        heads = config.gld_num_attention_heads
        self.self_attn_layer_norm = nn.LayerNorm(width, eps=eps)
        self.self_attn = MultiHeadAttention(config, width, heads)
        if config.gld_attention_type == "cross":
            self.cross_attn_layer_norm: nn.LayerNorm | None = nn.LayerNorm(width, eps=eps)
            self.cross_attn: MultiHeadAttention | None = MultiHeadAttention(config, width, heads)
        else:  # Table V, "Self-attention"
            self.cross_attn_layer_norm = self.cross_attn = None
        self.mlp_layer_norm = nn.LayerNorm(width, eps=eps)
        self.mlp = TransformerMLP(width, config.gld_intermediate_size or 4 * width, "quick_gelu")

    def forward(
        self, group: Tensor, memory: Tensor, memory_mask: Tensor | None = None, group_mask: Tensor | None = None
    ) -> Tensor:
        group = group + self.self_attn(self.self_attn_layer_norm(group), memory_mask=group_mask)  # Eq. 1
        if self.cross_attn is not None and self.cross_attn_layer_norm is not None:
            # The memory is not normalised here: it left its encoder through a layer norm.
            group = group + self.cross_attn(self.cross_attn_layer_norm(group), memory, memory_mask)  # Eq. 2
        return group + self.mlp(self.mlp_layer_norm(group))  # Eq. 3


class GlobalLocalDecoder(nn.Module):
    """The decoder (GLD): M blocks that gather a group of informative tokens into its class token.

    One decoder serves both modalities and both groups. No positions, no dropout, no final norm.
    """

    def __init__(self, config: CFineConfig) -> None:
        super().__init__()
        self.config = config
        self.num_layers = config.gld_num_layers
        # The release repeats one block object M times; then one set of weights is stored.
        stored = 1 if config.gld_tie_layers else config.gld_num_layers
        self.layers = nn.ModuleList(GlobalLocalDecoderLayer(config) for _ in range(stored))
        extra_groups = config.granularities[1:]
        self.group_class_embeddings = (
            nn.Parameter(torch.empty(len(extra_groups), config.hidden_size))
            if config.gld_cls_init == "random" and extra_groups
            else None
        )

    def forward(
        self,
        group: Tensor,
        memory: Tensor,
        group_index: int,
        memory_mask: Tensor | None = None,
        group_mask: Tensor | None = None,
    ) -> Tensor:
        """Summarise a group.

        Args:
            group: `(B, K, D)` selected tokens in rank order.
            memory: `(B, L, D)` all tokens of the encoder, the class token first.
            group_index: Which group this is (0: high, 1: middle), for learned class tokens.
            memory_mask: `(B, L)`, true where the memory is real.
            group_mask: `(B, K)`, true where a selected token is real; `None`: attend to all of them.

        Returns:
            `(B, D)` granularity vector.
        """
        if self.group_class_embeddings is not None:
            class_token = self.group_class_embeddings[group_index].expand(group.shape[0], 1, -1)
        elif self.config.gld_cls_init == "mean":
            class_token = group.mean(dim=1, keepdim=True)
        else:
            class_token = memory[:, :1]
        states = torch.cat([class_token, group], dim=1)
        if group_mask is not None:
            group_mask = functional.pad(group_mask, (1, 0), value=True)
        for index in range(self.num_layers):
            states = self.layers[index % len(self.layers)](states, memory, memory_mask, group_mask)
        return states[:, 0]


class Bottleneck(nn.BatchNorm1d):
    """Batch norm whose bias stays 0; shared by the granularities of a modality, called once for each."""

    def __init__(self, config: CFineConfig) -> None:
        super().__init__(config.hidden_size, eps=config.bottleneck_eps, momentum=config.bottleneck_momentum)
        self.bias.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        if self.training and features.shape[0] < 2:
            raise ConfigurationError(
                "CFine cannot be trained on a batch of one pair: its bottleneck needs batch statistics and its losses "
                "need negatives. Use a larger batch (and drop the last incomplete one)."
            )
        return super().forward(features)


class CFinePreTrainedModel(ReIDPreTrainedModel):
    """Base of the two CFine classes."""

    config_class = CFineConfig
    config: CFineConfig
    base_model_prefix = "cfine"
    # Heads that only training needs; the inference class drops them without a warning.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^cmpc_loss\."]

    def freeze_constants(self) -> None:
        """The bias of the bottlenecks stays as it is."""
        for module in self.modules():
            if isinstance(module, Bottleneck):
                module.bias.requires_grad_(False)

    @classmethod
    def _fields_for_towers(cls, vision_config: ReIDVisionConfig) -> dict[str, Any]:
        return {"gld_num_attention_heads": vision_config.num_attention_heads}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CMPCLoss):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, GlobalLocalDecoder):
            if module.group_class_embeddings is not None:
                init.normal_(module.group_class_embeddings, std=0.02)
        elif isinstance(module, GlobalLocalDecoderLayer):  # framework defaults, spec section 10
            for linear in (module.mlp.fc1, module.mlp.fc2):
                bound = linear.in_features**-0.5
                init.uniform_(linear.weight, -bound, bound)
                init.uniform_(linear.bias, -bound, bound)


class CFineModel(CFinePreTrainedModel):
    """CFine for inference: two towers, token selection, global-local decoder, bottleneck.

    Example:
        >>> model = CFineModel.from_pretrained("org/cfine-cuhk")
        >>> images = model.get_image_features(**processor(images=photos, return_tensors="pt"))
        >>> texts = model.get_text_features(**processor(text=sentences, return_tensors="pt"))
        >>> scores = model.similarity(texts, images)  # (num_texts, num_images)
    """

    def __init__(self, config: CFineConfig) -> None:
        super().__init__(config)
        self.vision_model = VisionTransformer._from_config(config.vision_config)
        self.text_model = BertModel._from_config(config.text_config, add_pooling_layer=False)
        needs_decoder = len(config.granularities) > 1
        self.global_local_decoder = GlobalLocalDecoder(config) if needs_decoder else None
        self.image_bottleneck = Bottleneck(config) if config.use_bottleneck else nn.Identity()
        self.text_bottleneck = Bottleneck(config) if config.use_bottleneck else nn.Identity()
        self.post_init()

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> RetrievalFeatures:
        """Features of images.

        Args:
            pixel_values: `(B, 3, H, W)` from the processor.
            kwargs: Other keys of a processor's output are not needed and passed over.

        Returns:
            `embeds` `(B, E)`; granularities `(B, D)` each, after the bottleneck; tokens and their selection.
        """
        encoded = self.vision_model(pixel_values, output_token_scores=self.config.needs_token_selection)
        return self._features(encoded, self.config.num_image_tokens_per_group, None, self.image_bottleneck)

    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        keep_padding: bool = True,
        **kwargs: Any,
    ) -> RetrievalFeatures:
        """Features of sentences.

        Args:
            input_ids: `(B, L)` token ids, L ≤ `max_text_length`; shorter batches are padded to it, because the length
                fixes how many words are selected.
            attention_mask: `(B, L)`, 1 on real tokens; by default everything but the padding id.
            token_type_ids: `(B, L)` segment ids.
            keep_padding: Whether padding is encoded too, up to `max_text_length`, so that tokens and scores of all batches
                are of one length (default). If not, they end with the longest sentence of the batch, but not before the
                last position that can be selected. No other output depends on it.
            kwargs: Other keys of a processor's output are not needed and passed over.

        Returns:
            As `get_image_features`.

        Raises:
            ConfigurationError: If the batch is longer than `max_text_length`.
        """
        pad_id = self.config.text_config.pad_token_id or 0
        missing = self.config.max_text_length - input_ids.shape[1]
        if missing < 0:
            raise ConfigurationError(
                f"input_ids have {input_ids.shape[1]} tokens, but the model takes {self.config.max_text_length}; let the "
                "processor truncate."
            )
        if attention_mask is None:
            attention_mask = (input_ids != pad_id).long()
        if missing:
            input_ids = functional.pad(input_ids, (0, missing), value=pad_id)
            attention_mask = functional.pad(attention_mask, (0, missing), value=0)
            if token_type_ids is not None:
                token_type_ids = functional.pad(token_type_ids, (0, missing), value=0)
        if not keep_padding:
            length = self._needed_text_length(attention_mask)
            input_ids, attention_mask = input_ids[:, :length], attention_mask[:, :length]
            token_type_ids = None if token_type_ids is None else token_type_ids[:, :length]
        encoded = encode_with_bert(
            self.text_model,
            input_ids,
            attention_mask,
            token_type_ids,
            output_token_scores=self.config.needs_token_selection,
            score_before_dropout=self.config.score_before_dropout,
        )
        return self._features(
            encoded, self.config.num_text_tokens_per_group, attention_mask.bool(), self.text_bottleneck
        )

    def _needed_text_length(self, attention_mask: Tensor) -> int:
        """Length up to the last real token of the batch.

        Class token and padding, whose scores are 0, fill up the selection of short sentences, the first positions first.
        """
        length = attention_mask.shape[1]
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # shapes cannot depend on values
            return length
        positions = torch.arange(length, device=attention_mask.device)
        longest = int((positions * (attention_mask != 0)).max()) + 1
        return max(longest, 2 * self.config.num_text_tokens_per_group if self.config.needs_token_selection else 1)

    def _features(
        self, encoded: EncoderOutput, group_size: int, token_mask: Tensor | None, bottleneck: nn.Module
    ) -> RetrievalFeatures:
        """Multi-grained global features (MGF) of one modality."""
        config, tokens, scores = self.config, encoded.last_hidden_state, encoded.token_scores
        assert tokens is not None
        vectors = {"low": tokens[:, 0]}
        indices = None
        if scores is not None:
            scores = torch.cat([torch.zeros_like(scores[:, :1]), scores[:, 1:]], dim=1)
            indices = rank_tokens(scores, 2 * group_size)
        if self.global_local_decoder is not None and indices is not None:
            selected = gather_tokens(tokens, indices)
            size = group_size if config.mgf_split else 2 * group_size
            starts = {"high": 0, "middle": size}
            mask_group = config.mask_padded_selection and token_mask is not None
            for group_index, name in enumerate(config.granularities[1:]):
                part = slice(starts[name], starts[name] + size)
                group_mask = token_mask.gather(1, indices[:, part]) if mask_group and token_mask is not None else None
                vectors[name] = self.global_local_decoder(
                    selected[:, part], tokens, group_index, token_mask, group_mask
                )
        granularities = {name: bottleneck(vectors[name]) for name in config.granularities}
        return RetrievalFeatures(
            embeds=self._embed(granularities),
            granularities=granularities,
            tokens=tokens,
            token_mask=token_mask,
            token_indices=indices,
            token_scores=scores,
        )

    def _embed(self, granularities: dict[str, Tensor]) -> Tensor:
        parts = list(granularities.values())
        if self.config.similarity == "sum":  # the mean of the cosines as a dot product of unit vectors
            parts = [functional.normalize(part, dim=1) for part in parts]
        return functional.normalize(torch.cat(parts, dim=1), dim=1)

    def similarity(
        self, text_features: RetrievalFeatures | Tensor, image_features: RetrievalFeatures | Tensor
    ) -> Tensor:
        """CFine's score `(num_texts, num_images)` in float32: cosine of the concatenation, or the sum of the cosines."""
        scores = super().similarity(text_features, image_features)
        return scores * len(self.config.granularities) if self.config.similarity == "sum" else scores

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> RetrievalOutput:
        """Features of what is given, and the similarity if both modalities are.

        Args:
            pixel_values: `(I, 3, H, W)`.
            input_ids: `(T, L)`.
            attention_mask: `(T, L)`.
            token_type_ids: `(T, L)`.
        """
        images = None if pixel_values is None else self.get_image_features(pixel_values)
        texts = None if input_ids is None else self.get_text_features(input_ids, attention_mask, token_type_ids)
        scores = None if images is None or texts is None else self.similarity(texts, images)
        return RetrievalOutput(similarity=scores, image_features=images, text_features=texts)


class CrossGrainedFeatureRefinement(nn.Module):
    """CFR: similarity of every image with every sentence through class tokens and selected tokens (Eqs. 4-8)."""

    def __init__(self, config: CFineConfig) -> None:
        super().__init__()
        self.config = config

    def _aggregate(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        """Reduce the last axis; masked entries do not take part (Eqs. 6-7 and Table VI)."""
        kind = self.config.cfr_aggregation
        if mask is None:
            mask = torch.ones_like(scores, dtype=torch.bool)
        if kind == "max":
            return scores.masked_fill(~mask, float("-inf")).amax(dim=-1)
        if kind == "softmax":
            return (scores.masked_fill(~mask, float("-inf")).softmax(dim=-1) * scores).sum(dim=-1)
        total = (scores * mask).sum(dim=-1)
        return total if kind == "sum" else total / mask.sum(dim=-1)

    @in_full_precision
    def forward(
        self, image_class: Tensor, text_class: Tensor, patches: Tensor, words: Tensor, word_mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Similarities of all pairs.

        Args:
            image_class: `(B, D)` class tokens of the images.
            text_class: `(B, D)` class tokens of the sentences.
            patches: `(B, 2K_v, D)` selected patches.
            words: `(B, 2K_t, D)` selected words.
            word_mask: `(B, 2K_t)`, false where a selected word is padding to be left out.

        Returns:
            `image_word`, `patch_sentence` and their mean `cfr`, each `(B, B)` image × text.
        """
        if self.config.cfr_normalize:
            image_class, text_class, patches, words = (
                states / states.norm(dim=-1, keepdim=True) for states in (image_class, text_class, patches, words)
            )
        temperature = self.config.cfr_temperature
        image_word = torch.einsum("ad,bjd->abj", image_class, words) / temperature  # Eq. 4
        patch_sentence = torch.einsum("aid,bd->abi", patches, text_class) / temperature  # Eq. 5
        pair_mask = None if word_mask is None else word_mask[None].expand_as(image_word)
        s_image_word = self._aggregate(image_word, pair_mask)  # Eq. 6
        s_patch_sentence = self._aggregate(patch_sentence, None)  # Eq. 7
        return {
            "image_word": s_image_word,
            "patch_sentence": s_patch_sentence,
            "cfr": (s_image_word + s_patch_sentence) / 2,  # Eq. 8
        }


class FineGrainedCorrespondenceDiscovery(nn.Module):
    """FCD: positives of every informative patch and word, and the similarity they give (Eqs. 9-10)."""

    def __init__(self, config: CFineConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def choose(self, patches: Tensor, words: Tensor, word_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Positives inside each pair (Eq. 9), as ranks inside the high groups.

        Args:
            patches: `(B, K_v, D)` unit vectors.
            words: `(B, K_t, D)` unit vectors.
            word_mask: `(B, K_t)`, false where a word is padding to be left out.

        Returns:
            `(B, K_v, k_w)` words of every patch and `(B, k_p, K_t)` patches of every word, the best first.
        """
        cosines = patches @ words.transpose(1, 2)
        if word_mask is not None:
            cosines = cosines.masked_fill(~word_mask[:, None, :], float("-inf"))
        over_words = cosines.softmax(dim=2)
        # The release reads both directions off the softmax over the words, whose rows differ in their normaliser; a
        # softmax over the patches keeps the order of the cosines.
        for_words = over_words if self.config.fcd_softmax == "words" else cosines.softmax(dim=1)
        word_indices = over_words.topk(self.config.num_positive_words, dim=2).indices
        patch_indices = for_words.nan_to_num(0.0).topk(self.config.num_positive_patches, dim=1).indices
        return word_indices, patch_indices

    @in_full_precision
    def forward(self, patches: Tensor, words: Tensor, word_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Similarities of all pairs.

        They are index-aligned: the patch ranked i of image a against the positive of the patch ranked i of pair b.

        Args:
            patches: `(B, K_v, D)` raw tokens of the high group.
            words: `(B, K_t, D)` raw tokens of the high group.
            word_mask: `(B, K_t)`, false where a word is padding to be left out.

        Returns:
            `fcd_patch`, `fcd_word` and `fcd`, each `(B, B)`; `word_indices` and `patch_indices` as in `choose`.
        """
        unit_patches = patches / patches.norm(dim=2, keepdim=True)
        unit_words = words / words.norm(dim=2, keepdim=True)
        word_indices, patch_indices = self.choose(unit_patches, unit_words, word_mask)
        batch = torch.arange(len(patches), device=patches.device)[:, None, None]
        # Means of the raw tokens, normalised afterwards; the unit length makes a sum as good as a mean.
        chosen_words = words[batch, word_indices]
        if word_mask is not None:  # a short sentence may have fewer than k_w real words
            chosen_words = chosen_words * word_mask[batch, word_indices][..., None]
            unit_words = unit_words * word_mask[:, :, None]
        positive_words = functional.normalize(chosen_words.sum(dim=2), dim=2, eps=0.0)
        positive_patches = functional.normalize(patches[batch, patch_indices].sum(dim=1), dim=2, eps=0.0)
        patch_scores = torch.einsum("aid,bid->ab", unit_patches, positive_words)
        word_scores = torch.einsum("ajd,bjd->ab", positive_patches, unit_words)
        temperature = self.config.fcd_temperature
        if self.config.fcd_reduction == "sum":  # Eq. 10
            patch_scores, word_scores = patch_scores / temperature, word_scores / temperature
            total = patch_scores + word_scores
        else:
            num_words = words.shape[1] if word_mask is None else word_mask.sum(dim=1)
            patch_scores = patch_scores / (patches.shape[1] * temperature)
            word_scores = word_scores / (num_words * temperature)
            total = (patch_scores + word_scores) / 2
        return {
            "fcd_patch": patch_scores,
            "fcd_word": word_scores,
            "fcd": total,
            "word_indices": word_indices,
            "patch_indices": patch_indices,
        }


class CFineForTraining(JointBatchMixin, CFinePreTrainedModel):
    """CFine with what only training needs: CFR, FCD, the CMPC classifier and the losses."""

    def __init__(self, config: CFineConfig) -> None:
        super().__init__(config)
        self.cfine = CFineModel(config)
        self.cross_grained_feature_refinement = CrossGrainedFeatureRefinement(config)
        self.fine_grained_correspondence_discovery = FineGrainedCorrespondenceDiscovery(config)
        self.cmpm_loss = CMPMLoss(config.cmpm_epsilon, config.cmpm_target_norm)
        self.cmpc_loss = CMPCLoss(config.hidden_size, config.num_classes)
        self.triplet_loss = CrossModalTripletLoss(
            config.triplet_margin, config.triplet_mining, config.triplet_reduction
        )
        self.diversity_loss = DiversityLoss(config.diversity_form)
        self.post_init()

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> RetrievalFeatures:
        """See [`CFineModel.get_image_features`]."""
        return self.cfine.get_image_features(pixel_values, **kwargs)

    def get_text_features(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> RetrievalFeatures:
        """See [`CFineModel.get_text_features`]."""
        return self.cfine.get_text_features(input_ids, *args, **kwargs)

    def similarity(
        self, text_features: RetrievalFeatures | Tensor, image_features: RetrievalFeatures | Tensor
    ) -> Tensor:
        """See [`CFineModel.similarity`]."""
        return self.cfine.similarity(text_features, image_features)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        person_labels: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> ReIDTrainingOutput:
        """Loss of a batch of image-sentence pairs.

        Args:
            pixel_values: `(B, 3, H, W)`.
            input_ids: `(B, L)`, row i describes image i.
            person_labels: `(B,)` identities, 0…C-1.
            attention_mask: `(B, L)`.
            token_type_ids: `(B, L)`.

        Returns:
            The total loss (Eq. 14) and every term: `cmpm_<granularity>` and `cmpc_<granularity>` unweighted, `cmpm` and
            `cmpc` as weighted sums, `diversity_image`, `diversity_text`, `triplet`. Tokens of the text features are
            those without padding, see [`CFineModel.get_text_features`].
        """
        config = self.config
        images = self.cfine.get_image_features(pixel_values)
        texts = self.cfine.get_text_features(input_ids, attention_mask, token_type_ids, keep_padding=False)
        assert images.granularities is not None and texts.granularities is not None
        similarities, correspondences = self._training_similarities(images, texts)
        (person_labels,) = self.gather_batch(person_labels)
        image_vectors, text_vectors = (
            dict(
                zip(
                    config.granularities,
                    self.gather_batch(*(vectors[name].float() for name in config.granularities)),
                    strict=True,
                )
            )
            for vectors in (images.granularities, texts.granularities)
        )
        terms: dict[str, Tensor] = {}

        # Cross-modal alignment of every granularity (Eq. 11).
        for name in config.granularities:
            pair = image_vectors[name], text_vectors[name]
            terms[f"cmpm_{name}"] = self.cmpm_loss(*pair, person_labels)
            terms[f"cmpc_{name}"] = self.cmpc_loss(*pair, person_labels)
        for loss, weights in (("cmpm", config.cmpm_granularity_weights), ("cmpc", config.cmpc_granularity_weights)):
            terms[loss] = sum(
                (weight * terms[f"{loss}_{name}"] for name, weight in zip(config.granularities, weights, strict=False)),
                start=pixel_values.new_zeros((), dtype=torch.float32),
            )
        total = terms["cmpm"] + terms["cmpc"]

        # Diversity (Eq. 13): the release leaves the low granularity out, the paper does not.
        compared = config.granularities if config.diversity_form == "paper" else config.granularities[1:]
        for modality, vectors in (("image", image_vectors), ("text", text_vectors)):
            terms[f"diversity_{modality}"] = (
                self.diversity_loss(torch.stack([vectors[name] for name in compared], dim=1))
                if compared
                else total.new_zeros(())
            )
        total = total + config.diversity_weight * (terms["diversity_image"] + terms["diversity_text"])

        # Triplet ranking on the similarities of CFR and FCD (Eq. 12).
        if similarities:
            terms["triplet"] = self.triplet_loss(similarities["total"], person_labels)
            total = total + config.triplet_weight * terms["triplet"]  # Eq. 14
        return ReIDTrainingOutput(
            loss=total,
            loss_terms=terms,
            image_features=images,
            text_features=texts,
            similarities=similarities,
            correspondences=correspondences,
        )

    def _training_similarities(
        self, images: RetrievalFeatures, texts: RetrievalFeatures
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """S_c, S_f and their sum, whichever are switched on, from the raw encoder tokens of all processes."""
        config = self.config
        if not (config.use_cfr or config.use_fcd):
            return {}, {}
        assert images.tokens is not None and images.token_indices is not None
        assert texts.tokens is not None and texts.token_indices is not None
        image_tokens, text_tokens = images.tokens.float(), texts.tokens.float()
        patches = gather_tokens(image_tokens, images.token_indices)
        words = gather_tokens(text_tokens, texts.token_indices)
        word_mask = None
        if config.mask_padded_selection and texts.token_mask is not None:
            word_mask = texts.token_mask.gather(1, texts.token_indices)
        image_class, text_class, patches, words, word_mask = self.gather_batch(
            image_tokens[:, 0], text_tokens[:, 0], patches, words, word_mask
        )
        similarities: dict[str, Tensor] = {}
        correspondences: dict[str, Tensor] = {}
        if config.use_cfr:
            similarities |= self.cross_grained_feature_refinement(image_class, text_class, patches, words, word_mask)
        if config.use_fcd:
            num_patches, num_words = config.num_image_tokens_per_group, config.num_text_tokens_per_group
            found = self.fine_grained_correspondence_discovery(
                patches[:, :num_patches],
                words[:, :num_words],
                None if word_mask is None else word_mask[:, :num_words],
            )
            correspondences = {name: found.pop(name) for name in ("word_indices", "patch_indices")}
            similarities |= found
        parts = [similarities[name] for name in ("cfr", "fcd") if name in similarities]
        similarities["total"] = torch.stack(parts).sum(dim=0)
        return similarities, correspondences
