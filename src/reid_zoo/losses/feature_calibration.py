"""Identity-supervised calibration of global visual features (VFE-TPS, IS-GVFC)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigurationError
from ..precision import in_full_precision
from ..validation import check_choice
from .distribution_matching import matching_distribution, row_divergence

__all__ = ["FeatureCalibrationLoss"]

MODES = ("sample", "batch", "history")


class FeatureCalibrationLoss(nn.Module):
    r"""Pulls the softmax of image-image cosines towards the distribution of equal identities (Eqs. 4-5).

    .. math:: Z_{ij} = \cos(v_i, v_j) / \tau, \quad Q_{ij} = y_{ij} / \textstyle\sum_k y_{ik}, \quad
        L = \mathrm{KL}(\mathrm{softmax} Z \| Q)

    The diagonal counts, and the gradient flows through both sides.

    Args:
        mode: What the set of features is. `"sample"` (default, the paper): `num_samples` of the batch, drawn without
            replacement; `"batch"`: the whole batch; `"history"` (the release): the batch, followed by all features of
            the same epoch stored for each sample's identity. An identity that occurs twice brings its features twice.
        num_samples: C (default 20); all of the batch if it is smaller.
        temperature: τ (default 0.02).
        epsilon: Constant inside the logarithm of the labels (default 1e-8).

    References:
        VFE-TPS spec section 3.2.
    """

    def __init__(
        self, mode: str = "sample", num_samples: int = 20, temperature: float = 0.02, epsilon: float = 1e-8
    ) -> None:
        super().__init__()
        check_choice("FeatureCalibrationLoss", "mode", mode, MODES)
        for name, value in (("num_samples", num_samples), ("temperature", temperature), ("epsilon", epsilon)):
            if not value > 0:
                raise ConfigurationError(f"FeatureCalibrationLoss.{name} is {value}, but must be positive.")
        self.mode = mode
        self.num_samples = num_samples
        self.temperature = temperature
        self.epsilon = epsilon
        self._history: dict[int, list[Tensor]] = {}

    def reset_history(self) -> None:
        """Forget all stored features; the release does so at the start of every epoch."""
        self._history = {}

    @torch.no_grad()
    def remember(self, features: Tensor, labels: Tensor) -> None:
        """Store `(B, D)` features under their `(B,)` identities, without gradient, in batch order."""
        for feature, label in zip(features.detach(), labels.tolist(), strict=True):
            self._history.setdefault(label, []).append(feature)

    def epoch_memory(self) -> dict[str, Tensor]:
        """What a checkpoint in the middle of an epoch has to keep: `features` `(n, D)` and their `labels` `(n,)`, if any."""
        if not self._history:
            return {}
        features = [feature for stored in self._history.values() for feature in stored]
        labels = [label for label, stored in self._history.items() for _ in stored]
        return {"features": torch.stack(features), "labels": torch.tensor(labels)}

    def restore_epoch_memory(self, tensors: dict[str, Tensor]) -> None:
        """Remember what `epoch_memory` gave, and nothing else."""
        self.reset_history()
        self.remember(tensors["features"], tensors["labels"])

    def _with_history(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        stored, owners = [], []
        for label in labels.tolist():
            for feature in self._history.get(label, []):
                stored.append(feature)
                owners.append(label)
        if not stored:
            return features, labels
        return torch.cat([features, torch.stack(stored).to(features)]), torch.cat([labels, labels.new_tensor(owners)])

    @in_full_precision
    def forward(self, features: Tensor, labels: Tensor, indices: Tensor | None = None) -> Tensor:
        """Loss of a batch; in mode `"history"` call `remember` afterwards.

        Args:
            features: `(B, D)` global image features, of any length.
            labels: `(B,)` identities.
            indices: `(C,)` the samples of the set, in place of a draw; only in mode `"sample"`.

        Returns:
            Scalar, averaged over the rows of the set.
        """
        if self.mode == "sample":
            if indices is None:
                indices = torch.randperm(len(labels), device=features.device)[: self.num_samples]
            features, labels = features[indices], labels[indices]
        elif self.mode == "history":
            features, labels = self._with_history(features, labels)
        unit = functional.normalize(features, dim=1)
        logits = unit @ unit.T / self.temperature
        return row_divergence(logits, matching_distribution(labels, labels, logits.dtype), self.epsilon)
