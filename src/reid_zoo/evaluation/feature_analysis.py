"""How well features separate identities: the silhouette coefficient (scikit-learn's, with the extra `reid-zoo[report]`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError, MissingPackageError
from ..validation import check_choice

__all__ = ["silhouette_coefficient", "silhouette_samples"]


def silhouette_samples(features: Any, labels: Any, *, metric: str = "euclidean") -> NDArray[np.float64]:
    r"""Silhouette of every sample: (b - a) / max(a, b).

    a is the mean distance to the other samples of the same identity, b the smallest mean distance to the samples of
    another identity.

    Args:
        features: `(S, D)` array or tensor, used as they are; bring them to unit length first for the analysis of VFE-TPS's
            Fig. 7.
        labels: `(S,)` identities, at least two different ones.
        metric: `"euclidean"` or `"cosine"` distance (1 - cosine).

    Returns:
        `(S,)` float64 values in -1…1; 0 for a sample alone of its identity.

    Raises:
        EvaluationError: If there are fewer than two identities.
        MissingPackageError: Without scikit-learn.

    References:
        VFE-TPS spec section 7.2.
    """
    check_choice("silhouette_samples", "metric", metric, ("euclidean", "cosine"))
    try:
        from sklearn import metrics
    except ImportError as error:
        raise MissingPackageError("the silhouette needs scikit-learn: pip install 'reid-zoo[report]'.") from error
    points, (identities, groups) = np.asarray(features, dtype=np.float64), np.unique(labels, return_inverse=True)
    if len(identities) < 2:
        raise EvaluationError(f"the silhouette needs at least two identities, got {len(identities)}.")
    if len(identities) == len(points):  # which scikit-learn refuses
        return np.zeros(len(points))
    return np.asarray(metrics.silhouette_samples(points, groups, metric=metric), dtype=np.float64)


def silhouette_coefficient(features: Any, labels: Any, *, metric: str = "euclidean") -> float:
    """Mean silhouette over all samples; arguments as in `silhouette_samples`."""
    return float(silhouette_samples(features, labels, metric=metric).mean())
