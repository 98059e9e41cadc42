"""VehicleID's protocol: galleries of one random image per identity, several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import EvaluationError
from .metrics import RetrievalMetrics, Ties, evaluate_retrieval, identifiers
from .scores import feature_matrix

__all__ = ["TrialMetrics", "evaluate_gallery_trials"]


@dataclass(frozen=True)
class TrialMetrics:
    """Figures of several trials.

    Attributes:
        trials: The figures of every trial, in order.
        seed: What the galleries were drawn with.
    """

    trials: tuple[RetrievalMetrics, ...] = field(repr=False)
    seed: int

    def as_dict(self) -> dict[str, float]:
        """Mean over the trials of `R1`, `R5`, `R10`, `mAP`, `mINP`, `Rsum`, in per cent."""
        return {name: float(values.mean()) for name, values in self._values().items()}

    def deviations(self) -> dict[str, float]:
        """Standard deviation over the trials (divided by their number less one; 0 for a single one), in per cent."""
        several = len(self.trials) > 1
        return {name: float(values.std(ddof=1)) if several else 0.0 for name, values in self._values().items()}

    def _values(self) -> dict[str, np.ndarray]:
        figures = [trial.as_dict() for trial in self.trials]
        return {name: np.asarray([values[name] for values in figures]) for name in figures[0]}

    def __str__(self) -> str:
        deviations = self.deviations()
        figures = ", ".join(f"{name} {value:.2f} ± {deviations[name]:.2f}" for name, value in self.as_dict().items())
        return f"{figures} (per cent; mean ± deviation of {len(self.trials)} trials, seed {self.seed})"


def evaluate_gallery_trials(
    features: Any,
    person_ids: Sequence[int | str] | Any,
    *,
    num_trials: int = 10,
    seed: int = 0,
    ks: Sequence[int] = (1, 5, 10),
    ties: Ties = "stable",
    block_size: int = 256,
) -> TrialMetrics:
    """One random image of every identity is the gallery, all others are queries; repeated.

    Every query has one positive, so mAP is the mean reciprocal rank; nothing is removed. An identity with a single image is
    in every gallery and never asked for. Trial t draws from NumPy's generator of (seed, t), identities in ascending order:
    the galleries depend on nothing else, and further trials do not change the first ones.

    Args:
        features: (N, D) NumPy array or torch tensor, compared by dot product.
        person_ids: N identities (of vehicles).
        num_trials: Galleries; 10 in the published protocol.
        seed: Of the draws.
        ks: See `evaluate_retrieval`.
        ties: See `evaluate_retrieval`.
        block_size: See `evaluate_retrieval`.

    Returns:
        The figures of every trial, and their means.

    Raises:
        EvaluationError: If the features do not fit the identities or are not finite, there are no trials, or no identity
            has a second image.

    References:
        CLIP-ReID spec section 10.2.
    """
    if num_trials < 1:
        raise EvaluationError(f"num_trials is {num_trials}; it must be at least 1.")
    matrix = feature_matrix(features, "features")
    labels = np.asarray(identifiers(person_ids, "person_ids"))
    if len(labels) != len(matrix):
        raise EvaluationError(f"{len(matrix)} features do not fit the {len(labels)} person ids.")
    _, groups = np.unique(labels, return_inverse=True)
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    if not len(sizes) or sizes.max() < 2:
        raise EvaluationError("every identity has one image only; none is left to search with.")
    trials = []
    for trial in range(num_trials):
        random = np.random.default_rng((seed, trial))
        gallery = order[starts + random.integers(sizes)]
        queries = np.setdiff1d(np.arange(len(labels)), gallery)
        trials.append(
            evaluate_retrieval(
                matrix[queries],
                matrix[gallery],
                query_person_ids=groups[queries],
                gallery_person_ids=groups[gallery],
                ks=ks,
                ties=ties,
                block_size=block_size,
            )
        )
    return TrialMetrics(tuple(trials), seed)
