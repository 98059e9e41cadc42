"""A folder that says how good a model is: tables, plots, ranked lists, and everything needed to compare it with another."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EvaluationError
from .answers import Answers
from .confidence import ScoreThreshold, calibrate_threshold, sample_scores
from .contact_sheet import SheetRow, SheetTile, draw_contact_sheet
from .feature_analysis import silhouette_coefficient
from .figures import plot_cmc, plot_features, plot_scores
from .metrics import RetrievalMetrics
from .query_groups import caption_length_groups, figures_by_group
from .runs import EvaluationRun
from .uncertainty import bootstrap_intervals

__all__ = ["ReportedRun", "read_report", "write_report"]

REPORT_FILE, QUERIES_FILE, METRICS_FILE = "report.json", "queries.csv", "metrics.csv"
_FORMAT = "reid_zoo evaluation report"
_FORMAT_VERSION = 1
_PER_QUERY = (
    "num_positives",
    "first_positive_rank",
    "last_positive_rank",
    "average_precision",
    "inverse_negative_penalty",
)
_CMC_RANKS = 50
_SHEET_QUERIES = 6
_TOP_K = 10
_THRESHOLD_TARGET = 0.9


@dataclass(frozen=True, eq=False)
class ReportedRun:
    """What `read_report` finds in a report's folder.

    Attributes:
        folder: The folder.
        model: Name of the model.
        dataset: Label of the data set.
        split: Split.
        protocol: What searched what.
        metrics: The figures, with the values per query.
        query_keys: (Q) what tells the queries apart: image path and sentence.
        query_person_ids: (Q) identities.
    """

    folder: Path
    model: str
    dataset: str
    split: str
    protocol: str
    metrics: RetrievalMetrics
    query_keys: tuple[tuple[str, str], ...]
    query_person_ids: tuple[str, ...]


def write_report(
    run: EvaluationRun,
    folder: str | Path,
    *,
    level: float = 0.95,
    num_samples: int = 2000,
    seed: int = 0,
    pictures: bool = True,
    progress: bool = False,
) -> dict[str, Any]:
    """Write the report of an evaluation.

    The folder gets `report.json`, `metrics.csv`, `queries.csv` (one line per query), `breakdown.csv`, and with pictures
    `cmc.png`, `scores.png`, `features.png` and the ranked lists `best.png`, `worst.png` and `random.png`.

    Args:
        run: The evaluation.
        folder: Where to write; made if it does not exist. Files of an earlier report are replaced.
        level: Of the bootstrap intervals.
        num_samples: Samples of the bootstrap.
        seed: Of the bootstrap, of samples of scores, of the random queries and of t-SNE.
        pictures: Whether to make plots and ranked lists; they need the extra `reid-zoo[report]`.
        progress: Show a progress bar while the answers are collected.

    Returns:
        The content of `report.json`.

    Raises:
        MissingPackageError: If plots are wanted and their packages are not installed.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    answers = run.answers(_TOP_K, progress=progress)
    intervals = bootstrap_intervals(
        run.metrics, person_ids=run.query_person_ids, level=level, num_samples=num_samples, seed=seed
    )
    threshold = _threshold(run, answers)
    report: dict[str, Any] = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "model": run.model,
        "dataset": run.dataset,
        "split": run.split,
        "protocol": run.protocol,
        "reranked": run.reranked,
        "num_queries": run.metrics.num_queries,
        "num_gallery_images": run.metrics.num_gallery,
        "num_skipped_queries": run.metrics.num_skipped_queries,
        "metrics": run.metrics.as_dict(),
        "intervals": {name: asdict(interval) for name, interval in intervals.items()},
        "interval_level": level,
        "interval_samples": num_samples,
        "seed": seed,
        "cmc": run.metrics.cmc(_CMC_RANKS).tolist(),
        "threshold": None if threshold is None else _without_nan(asdict(threshold)),
        "breakdown": _breakdown(run),
    }
    if pictures:
        report |= _draw(run, answers, threshold, target, seed)
    _write_queries(run, answers, target / QUERIES_FILE)
    _write_table(
        target / METRICS_FILE,
        ("metric", "per cent", f"low ({100 * level:g} %)", f"high ({100 * level:g} %)"),
        [(name, value.value, value.low, value.high) for name, value in intervals.items()],
    )
    _write_table(
        target / "breakdown.csv",
        ("by", "group", "queries", *run.metrics.as_dict()),
        [
            (kind, group, *figures.values())
            for kind, groups in report["breakdown"].items()
            for group, figures in groups.items()
        ],
    )
    _write_atomically(target / REPORT_FILE, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report


def _without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def _threshold(run: EvaluationRun, answers: Answers) -> ScoreThreshold | None:
    """Calibrated on the queries of this evaluation that have a positive."""
    valid = run.metrics.valid
    right = answers.right(run.query_person_ids, run.gallery_person_ids)[:, 0]
    return (
        calibrate_threshold(answers.scores[valid, 0], right[valid], target=_THRESHOLD_TARGET) if valid.any() else None
    )


def _breakdown(run: EvaluationRun) -> dict[str, dict[str, dict[str, float | int]]]:
    """Figures by caption length and by camera of the query's image, as far as they are known."""
    labels: dict[str, Sequence[str | None]] = {}
    if run.query_texts:
        labels["caption length"] = caption_length_groups(run.query_texts)
    cameras = [record.camera_id for record in run.query_records]
    if len(set(cameras)) > 1:
        labels["camera"] = [None if camera is None else f"camera {camera}" for camera in cameras]
    found = {}
    for kind, names in labels.items():
        groups = {str(name): figures for name, figures in figures_by_group(run.metrics, names).items()}
        found[kind] = dict(sorted(groups.items(), key=lambda item: _natural(item[0])))
    return found


def _natural(name: str) -> tuple[int, str]:
    digits = "".join(character if character.isdigit() else " " for character in name).split()
    return (int(digits[0]) if digits else 0, name)


def _draw(
    run: EvaluationRun, answers: Answers, threshold: ScoreThreshold | None, folder: Path, seed: int
) -> dict[str, Any]:
    """Plots, ranked lists and the silhouette of the gallery; what cannot be made of the features is said, not forced."""
    notes = []
    plot_cmc({Path(run.model).name or run.model: run.metrics.cmc(_CMC_RANKS)}, folder / "cmc.png")
    if run.query_features is not None and run.gallery_features is not None and not run.reranked:
        samples = sample_scores(
            run.query_features,
            run.gallery_features,
            run.query_person_ids,
            run.gallery_person_ids,
            seed=seed,
        )
        plot_scores(samples, folder / "scores.png", threshold=None if threshold is None else threshold.threshold)
    else:
        notes.append("scores.png is for scores that are dot products of features")
    silhouette = None
    if run.gallery_features is not None and not run.gallery_texts:
        try:
            silhouette = silhouette_coefficient(run.gallery_features, [str(p) for p in run.gallery_person_ids])
            plot_features(run.gallery_features, run.gallery_person_ids, folder / "features.png", seed=seed)
        except EvaluationError as error:
            notes.append(f"no features.png: {error}")
    if not run.gallery_texts:
        for name, rows in _chosen_queries(run, seed).items():
            draw_contact_sheet([_sheet_row(run, answers, row) for row in rows], folder / f"{name}.png")
    return {"silhouette": silhouette, "notes": notes}


def _chosen_queries(run: EvaluationRun, seed: int) -> dict[str, list[int]]:
    """Rows of the queries with the best and the worst average precision, and of random ones; one query per person."""
    valid = np.flatnonzero(run.metrics.valid)
    precision = run.metrics.average_precision[valid]
    orders = {
        "best": valid[np.argsort(-precision, kind="stable")],
        "worst": valid[np.argsort(precision, kind="stable")],
        "random": np.random.default_rng(seed).permutation(valid),
    }
    persons = run.query_person_ids
    chosen: dict[str, list[int]] = {}
    for name, order in orders.items():
        of_person: dict[Any, int] = {}
        for row in order.tolist():
            of_person.setdefault(persons[row], row)
            if len(of_person) == _SHEET_QUERIES:
                break
        chosen[name] = list(of_person.values())
    return chosen


def _sheet_row(run: EvaluationRun, answers: Answers, row: int) -> SheetRow:
    record = run.query_records[row]
    title = run.query_texts[row] if run.query_texts else f"query {record.image_path.name}"
    tiles = [] if run.query_texts else [SheetTile(str(record.image_path), "query")]
    for rank, (index, score) in enumerate(zip(answers.indices[row], answers.scores[row], strict=True), start=1):
        if np.isfinite(score):
            item = run.gallery_records[int(index)]
            tiles.append(SheetTile(str(item.image_path), f"{rank}   {score:.3f}", item.person_id == record.person_id))
    return SheetRow(f"{title}   (average precision {run.metrics.average_precision[row]:.2f})", tiles)


def _write_queries(run: EvaluationRun, answers: Answers, path: Path) -> None:
    right = answers.right(run.query_person_ids, run.gallery_person_ids)
    texts = run.query_texts or [""] * len(run.query_records)
    rows = [
        (
            str(record.image_path),
            text,
            record.person_id,
            "" if record.camera_id is None else record.camera_id,
            *(getattr(run.metrics, name)[row].item() for name in _PER_QUERY),
            float(answers.scores[row, 0]),
            int(right[row, 0]),
        )
        for row, (record, text) in enumerate(zip(run.query_records, texts, strict=True))
    ]
    _write_table(path, ("image", "caption", "person_id", "camera_id", *_PER_QUERY, "best_score", "best_is_right"), rows)


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    temporary.replace(path)


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_report(folder: str | Path) -> ReportedRun:
    """Read a report's figures per query.

    Args:
        folder: A folder that `write_report` wrote.

    Raises:
        EvaluationError: If it is none, or one of its files is damaged.
    """
    path = Path(folder)
    try:
        report = json.loads((path / REPORT_FILE).read_text(encoding="utf-8"))
        with (path / QUERIES_FILE).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if report.get("format") != _FORMAT or report["format_version"] != _FORMAT_VERSION:
            raise EvaluationError(f"{path} holds no report of this version of reid_zoo.")
        columns: dict[str, Any] = {
            name: np.array([(float if "precision" in name or "penalty" in name else int)(row[name]) for row in rows])
            for name in _PER_QUERY
        }
        if len(rows) != report["num_queries"]:
            raise EvaluationError(f"{path}: {QUERIES_FILE} has {len(rows)} of {report['num_queries']} queries.")
        metrics = RetrievalMetrics(
            ks=(1, 5, 10),
            num_queries=report["num_queries"],
            num_gallery=report["num_gallery_images"],
            num_skipped_queries=report["num_skipped_queries"],
            denominator="valid",
            ties="stable",
            **columns,
        )
        return ReportedRun(
            folder=path,
            model=report["model"],
            dataset=report["dataset"],
            split=report["split"],
            protocol=report["protocol"],
            metrics=metrics,
            query_keys=tuple((row["image"], row["caption"]) for row in rows),
            query_person_ids=tuple(row["person_id"] for row in rows),
        )
    except FileNotFoundError as error:
        raise EvaluationError(
            f"{path} is no report: it has no {Path(error.filename).name}; write one with --report."
        ) from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, EvaluationError):
            raise
        raise EvaluationError(f"{path}: {REPORT_FILE} or {QUERIES_FILE} is damaged: {error}.") from error
