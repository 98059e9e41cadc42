"""VFE-TPS: enhancing visual representation for text-based person searching.

W. Shen, M. Fang, Y. Wang, J. Xiao, D. Li, H. Chen, L. Xu, W. Zhang, 2024. Equation numbers are the paper's. At inference
it is CLIP's two towers; training adds text-guided masked image modelling (TG-MIM) and identity-supervised global visual
feature calibration (IS-GVFC). Where the release differs from the paper, [`VFETPSConfig`] has an option.

Symbols: B pairs, T text length, N patches, D joint dimension, K identities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init

from ...data.masking import mask_words, random_image_mask
from ...distributed import JointBatchMixin, own_draws_on_every_process
from ...losses import (
    BatchHardTripletLoss,
    CMPMLoss,
    FeatureCalibrationLoss,
    FeatureDistributionLoss,
    IdentityLoss,
    InfoNCELoss,
    MaskedImageModelingLoss,
    SampledTripletLoss,
    SDMLoss,
    TokenAlignmentLoss,
)
from ...outputs import ReIDTrainingOutput, RetrievalFeatures
from ..clip_dual_encoder import CLIPDualEncoderModel, CLIPDualEncoderPreTrainedModel
from .configuration_vfe_tps import VFETPSConfig
from .masked_image_modeling import MaskedImageModeling, init_masked_image_modeling

__all__ = ["VFETPSForTraining", "VFETPSModel", "VFETPSPreTrainedModel"]


class VFETPSPreTrainedModel(CLIPDualEncoderPreTrainedModel):
    """Base of the two VFE-TPS classes."""

    config_class = VFETPSConfig
    config: VFETPSConfig
    base_model_prefix = "vfe_tps"
    # Heads that only training needs; the inference class drops them without a warning.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"^identity_loss\.",
        r"^joint_identity_loss\.",
        r"^masked_image_modeling\.",
    ]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        init_masked_image_modeling(module)
        if isinstance(module, IdentityLoss):
            init.normal_(module.classifier.weight, std=0.001)


class VFETPSModel(VFETPSPreTrainedModel, CLIPDualEncoderModel):
    """VFE-TPS for inference: CLIP's two towers, cosine similarity.

    Example:
        >>> model = VFETPSModel.from_pretrained("org/vfe-tps-cuhk")
        >>> images = model.get_image_features(**processor(images=photos, return_tensors="pt"))
        >>> texts = model.get_text_features(**processor(text=sentences, return_tensors="pt"))
        >>> scores = model.similarity(texts, images)  # (num_texts, num_images)
    """

    def __init__(self, config: VFETPSConfig) -> None:
        super().__init__(config)
        self.post_init()


class VFETPSForTraining(JointBatchMixin, VFETPSPreTrainedModel):
    """VFE-TPS with what only training needs: TG-MIM, IS-GVFC, the classifiers of the ablations and the losses."""

    def __init__(self, config: VFETPSConfig) -> None:
        super().__init__(config)
        terms, tau, epsilon = config.loss_terms, config.temperature, config.label_epsilon
        width, classes = config.projection_dim, config.num_classes
        self.vfe_tps = VFETPSModel(config)
        self.masked_image_modeling = MaskedImageModeling(config) if "mim" in terms else None
        self.identity_loss = IdentityLoss(width, classes) if "id" in terms or "gi2id" in terms else None
        self.joint_identity_loss = IdentityLoss(2 * width, classes) if "g2id" in terms else None
        self.sdm_loss = SDMLoss(tau, epsilon, config.sdm_soft_label_factor, config.extra_batch_mean)
        self.feature_calibration_loss = FeatureCalibrationLoss(config.gvfc_mode, config.gvfc_num_samples, tau, epsilon)
        self.mim_loss = MaskedImageModelingLoss(config.vision_config.patch_size, config.mim_loss_form)
        self.cmpm_loss = CMPMLoss(epsilon)
        self.itc_loss = InfoNCELoss(tau)
        self.triplet_loss = BatchHardTripletLoss(config.triplet_margin, normalize=True)
        self.sampled_triplet_loss = SampledTripletLoss(tau)
        self.feature_distribution_loss = FeatureDistributionLoss(tau)
        self.token_alignment_loss = TokenAlignmentLoss(tau, epsilon)
        self.post_init()

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> RetrievalFeatures:
        """See [`VFETPSModel.get_image_features`]."""
        return self.vfe_tps.get_image_features(pixel_values, **kwargs)

    def get_text_features(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> RetrievalFeatures:
        """See [`VFETPSModel.get_text_features`]."""
        return self.vfe_tps.get_text_features(input_ids, *args, **kwargs)

    def begin_epoch(self) -> None:
        """Forget the features of the last epoch (`gvfc_mode="history"`)."""
        self.feature_calibration_loss.reset_history()

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        person_labels: Tensor,
        attention_mask: Tensor | None = None,
        image_ids: Tensor | None = None,
        patch_mask: Tensor | None = None,
        gvfc_indices: Tensor | None = None,
    ) -> ReIDTrainingOutput:
        """Loss of a batch of image-sentence pairs.

        Args:
            pixel_values: `(B, 3, H, W)`.
            input_ids: `(B, T)`, row i describes image i.
            person_labels: `(B,)` identities, 0…K-1.
            attention_mask: Not needed: where a sentence ends follows from its ids.
            image_ids: `(B,)` image of each pair; only for `sdm_soft_label_factor`.
            patch_mask: `(B, rows, columns)`, 1 where a patch is masked; by default drawn here.
            gvfc_indices: `(C,)` samples of the calibration set; by default drawn here. Rows of the joint batch, the same
                on all processes.

        Returns:
            The total loss and every term without its weight.
        """
        config = self.config
        if self.training and config.caption_mask_prob:  # the release's side effect, spec section 5.4
            assert config.mask_token_id is not None
            with own_draws_on_every_process(input_ids.device):
                masked = mask_words(input_ids, config.mask_token_id, probability=config.caption_mask_prob)
            input_ids = masked.input_ids
        image_tokens, text_tokens = self.vfe_tps.encode_images(pixel_values), self.vfe_tps.encode_texts(input_ids)
        images = self.vfe_tps.image_features(image_tokens)
        texts = self.vfe_tps.text_features(text_tokens, input_ids)
        assert images.granularities is not None and texts.granularities is not None
        image, text = images.granularities["global"].float(), texts.granularities["global"].float()
        image, text, person_labels, image_ids = self.gather_batch(image, text, person_labels, image_ids)

        losses: dict[str, Callable[[], Tensor]] = {
            "matching": lambda: self._matching(image, text, person_labels, image_ids),  # Eqs. 6-9
            "gvfc": lambda: self._calibrate(image, person_labels, gvfc_indices),  # Eqs. 4-5
            "mim": lambda: self._reconstruction_loss(
                pixel_values, text_tokens, texts.token_mask, patch_mask
            ),  # Eqs. 1-3
            "id": lambda: self._classify(self.identity_loss, (image, text), person_labels),
            "gi2id": lambda: self._classify(self.identity_loss, image, person_labels),
            "g2id": lambda: self._classify(self.joint_identity_loss, torch.cat([image, text], dim=1), person_labels),
            "itc": lambda: self.itc_loss(image, text),
            "cmpm": lambda: self.cmpm_loss(image, text, person_labels),
            "triplet": lambda: self.triplet_loss(image, person_labels),
            "sampled_triplet": lambda: self._sampled_triplets(image, text, person_labels),
            "gtm": lambda: self.feature_distribution_loss(image, text),
            "patch": lambda: self._align_tokens(
                image_tokens[:, 1:].float(), text_tokens.float(), input_ids, person_labels
            ),
        }
        terms = {name: losses[name]() for name in config.loss_terms}
        if config.gvfc_mode == "history" and "gvfc" in terms:
            self.feature_calibration_loss.remember(image, person_labels)
        weights = dict.fromkeys(("id", "gi2id", "g2id"), config.id_loss_weight) | {"mim": config.mim_loss_weight}
        total = torch.stack([weights.get(name, 1.0) * value for name, value in terms.items()]).sum()
        return ReIDTrainingOutput(loss=total, loss_terms=terms, image_features=images, text_features=texts)

    def _matching(self, image: Tensor, text: Tensor, labels: Tensor, image_ids: Tensor | None) -> Tensor:
        if self.config.matching_loss == "itc":
            return self.itc_loss(image, text)
        if self.config.matching_loss == "cmpm_projection":
            return self.cmpm_loss(image, text, labels)
        return self.sdm_loss(image, text, labels, image_ids)

    def _align_tokens(self, patches: Tensor, words: Tensor, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Every process compares its own sentences with all images."""
        (patches,) = self.gather_batch(patches)
        (logits,) = self.gather_batch(self.token_alignment_loss.logits(patches, words, input_ids))
        return self.token_alignment_loss.divergence(logits, labels)

    def _calibrate(self, image: Tensor, labels: Tensor, indices: Tensor | None) -> Tensor:
        with self.same_draws(image.device):
            return self.feature_calibration_loss(image, labels, indices)

    def _sampled_triplets(self, image: Tensor, text: Tensor, labels: Tensor) -> Tensor:
        with self.same_draws(image.device):
            return self.sampled_triplet_loss(image, text, labels)

    def _classify(self, loss: IdentityLoss | None, features: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
        assert loss is not None
        return loss(features, labels)

    def _reconstruction_loss(
        self, pixel_values: Tensor, text_tokens: Tensor, text_mask: Tensor | None, patch_mask: Tensor | None
    ) -> Tensor:
        """The masked image, reconstructed with the help of the sentence; masks of a batch are independent."""
        config, vision = self.config, self.config.vision_config
        assert self.masked_image_modeling is not None
        if patch_mask is None:
            height, width = vision.image_size
            with own_draws_on_every_process(pixel_values.device):
                patch_mask = random_image_mask(
                    len(pixel_values),
                    (height, width),
                    vision.patch_size,
                    config.mask_unit_size,
                    config.mask_ratio,
                    pixel_values.device,
                )
        reconstruction = self.masked_image_modeling(self.vfe_tps, pixel_values, patch_mask, text_tokens, text_mask)
        totals = self.mim_loss.totals(reconstruction.float(), pixel_values.float(), patch_mask)
        return self.mim_loss.reduce(*self.sum_over_processes(*totals))  # Eq. 3
