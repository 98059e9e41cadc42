"""Plots of an evaluation, fit for a paper: CMC curves, score histograms, robustness curves, t-SNE.

matplotlib and scikit-learn come with the extra `reid-zoo[report]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError, MissingPackageError
from .confidence import ScoreSamples

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_report_packages", "plot_cmc", "plot_features", "plot_robustness", "plot_scores"]

# Okabe and Ito's colours, which people with any colour vision can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_RIGHT, _WRONG = "#009E73", "#D55E00"
_MOST_RANKS_WITH_MARKERS = 20
_MOST_POINTS = 2000


def check_report_packages() -> None:
    """Refuse to begin a report whose pictures cannot be made in the end.

    Raises:
        MissingPackageError: If matplotlib or scikit-learn is not installed.
    """
    missing = [
        name for name, module in (("matplotlib", "matplotlib"), ("scikit-learn", "sklearn")) if not find_spec(module)
    ]
    if missing:
        raise MissingPackageError(f"a report needs {' and '.join(missing)}: pip install 'reid-zoo[report]'.")


@contextmanager
def _axes(
    path: Path, xlabel: str, ylabel: str, size: tuple[float, float] = (4.8, 3.4), *, whole_numbers: bool = False
) -> Iterator[Any]:
    """Axes of a new figure, which is written to `path` in the end; nothing of matplotlib's global state is touched."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MissingPackageError("plots need matplotlib: pip install 'reid-zoo[report]'.") from error
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    yield axes
    if whole_numbers:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path, dpi=200)
    except ValueError as error:
        raise EvaluationError(f"{path}: name the plot as a picture, for example {path.stem}.png or .pdf.") from error


def plot_cmc(curves: Mapping[str, NDArray[np.float64]], path: str | Path) -> Path:
    """Cumulative matching characteristics.

    Args:
        curves: Name → Rank-k in per cent for k = 1, 2, ... (`RetrievalMetrics.cmc`).
        path: Picture to write; `.png`, `.pdf` or `.svg`.

    Raises:
        EvaluationError: If there is no curve, or the ending names no picture format.
        MissingPackageError: Without matplotlib.
    """
    if not curves:
        raise EvaluationError("there is no curve to plot.")
    target = Path(path)
    with _axes(target, "rank k", "Rank-k (%)", whole_numbers=True) as axes:
        for (name, curve), colour in zip(curves.items(), _cycle(len(curves)), strict=True):
            marker = "o" if len(curve) <= _MOST_RANKS_WITH_MARKERS else None
            axes.plot(np.arange(1, len(curve) + 1), curve, color=colour, marker=marker, markersize=3, label=name)
        axes.set_ylim(min(float(min(curve.min() for curve in curves.values())) - 3, 90), 101)
        axes.legend(frameon=False, loc="lower right")
    return target


def plot_scores(samples: ScoreSamples, path: str | Path, *, threshold: float | None = None, bins: int = 80) -> Path:
    """Densities of the scores of pairs of the same and of different persons.

    Args:
        samples: Scores of pairs.
        path: Picture to write.
        threshold: Drawn as a line, if given.
        bins: Bars from the lowest to the highest score.
    """
    target = Path(path)
    edges = np.linspace(
        min(samples.positives.min(), samples.negatives.min()),
        max(samples.positives.max(), samples.negatives.max()),
        bins,
    )
    with _axes(target, "score", "density") as axes:
        for values, colour, name in (
            (samples.negatives, _WRONG, "different persons"),
            (samples.positives, _RIGHT, "same person"),
        ):
            axes.hist(values, bins=edges, density=True, color=colour, alpha=0.55, label=name)
        if threshold is not None:
            axes.axvline(threshold, color="#000000", linestyle="--", linewidth=1, label=f"threshold {threshold:.3f}")
        axes.legend(frameon=False)
    return target


def plot_robustness(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: str | Path, *, xlabel: str
) -> Path:
    """A figure over the severity of a disturbance.

    Args:
        curves: Name → severities and figures in per cent.
        path: Picture to write.
        xlabel: What the severities are.
    """
    if not curves:
        raise EvaluationError("there is no curve to plot.")
    target = Path(path)
    with _axes(target, xlabel, "per cent") as axes:
        for (name, (severities, values)), colour in zip(curves.items(), _cycle(len(curves)), strict=True):
            axes.plot(severities, values, color=colour, marker="o", markersize=4, label=name)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
    return target


def plot_features(
    features: NDArray[Any], person_ids: Sequence[Any], path: str | Path, *, num_persons: int = 10, seed: int = 0
) -> Path:
    """t-SNE of the image features of a few persons (VFE-TPS Fig. 8).

    Args:
        features: (N, D), brought to unit length here.
        person_ids: N identities.
        path: Picture to write.
        num_persons: Persons drawn at random among those with at least two images.
        seed: Of the draw and of t-SNE.

    Raises:
        EvaluationError: If fewer than two persons have two images.
        MissingPackageError: Without scikit-learn or matplotlib.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise MissingPackageError("t-SNE needs scikit-learn: pip install 'reid-zoo[report]'.") from error
    rows_of: dict[Any, list[int]] = {}
    for row, person in enumerate(person_ids):
        rows_of.setdefault(person, []).append(row)
    several = [person for person, rows in rows_of.items() if len(rows) > 1]
    if len(several) < 2:
        raise EvaluationError("t-SNE needs at least two persons with two images each.")
    generator = np.random.default_rng(seed)
    chosen = [several[i] for i in generator.choice(len(several), size=min(num_persons, len(several)), replace=False)]
    rows = np.concatenate([rows_of[person] for person in chosen])[:_MOST_POINTS]
    points = np.asarray(features)[rows].astype(np.float64)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    labels = np.concatenate([[index] * len(rows_of[person]) for index, person in enumerate(chosen)])[:_MOST_POINTS]
    perplexity = float(min(30.0, max(2.0, (len(points) - 1) / 3)))
    places = TSNE(perplexity=perplexity, random_state=seed, init="pca" if len(points) > 2 else "random").fit_transform(
        points
    )
    target = Path(path)
    with _axes(target, "", "", (4.2, 4.0)) as axes:
        axes.grid(visible=False)
        axes.scatter(places[:, 0], places[:, 1], c=labels, cmap="tab10" if len(chosen) <= 10 else "tab20", s=14)
        axes.set_xticks([])
        axes.set_yticks([])
    return target


def _cycle(count: int) -> list[str]:
    return [_COLOURS[index % len(_COLOURS)] for index in range(count)]
