"""How well features separate identities: the silhouette coefficient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import EvaluationError
from ..validation import check_choice

__all__ = ["silhouette_coefficient", "silhouette_samples"]


def silhouette_samples(features: Tensor, labels: Tensor, *, metric: str = "euclidean") -> Tensor:
    r"""Silhouette of every sample: (b - a) / max(a, b).

    a is the mean distance to the other samples of the same identity, b the smallest mean distance to the samples of
    another identity.

    Args:
        features: `(S, D)`, used as they are; bring them to unit length first for the analysis of VFE-TPS's Fig. 7.
        labels: `(S,)` identities, at least two different ones.
        metric: `"euclidean"` or `"cosine"` distance (1 - cosine).

    Returns:
        `(S,)` float64 values in -1…1; 0 for a sample alone of its identity.

    Raises:
        EvaluationError: If there are fewer than two identities.

    References:
        VFE-TPS spec section 7.2.
    """
    check_choice("silhouette_samples", "metric", metric, ("euclidean", "cosine"))
    identities, groups = labels.unique(return_inverse=True)
    if len(identities) < 2:
        raise EvaluationError(f"the silhouette needs at least two identities, got {len(identities)}.")
    points = features.double()
    if metric == "cosine":
        unit = functional.normalize(points, dim=1)
        distances = (1 - unit @ unit.T).clamp(min=0)
    else:
        distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(0)
    membership = functional.one_hot(groups).double()  # (S, number of identities)
    sizes = membership.sum(dim=0)
    sums = distances @ membership
    own = sums.gather(1, groups[:, None]).squeeze(1) / (sizes[groups] - 1).clamp(min=1)
    others = (sums / sizes).masked_fill(membership.bool(), float("inf")).amin(dim=1)
    largest = torch.maximum(own, others)
    values = torch.where(largest > 0, (others - own) / largest.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    return values.masked_fill(sizes[groups] == 1, 0.0)


def silhouette_coefficient(features: Tensor, labels: Tensor, *, metric: str = "euclidean") -> float:
    """Mean silhouette over all samples; arguments as in `silhouette_samples`."""
    return float(silhouette_samples(features, labels, metric=metric).mean())
