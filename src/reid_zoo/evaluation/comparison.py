"""Several evaluations of the same queries side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import EvaluationError
from .figures import plot_cmc
from .report import ReportedRun
from .uncertainty import compare_paired

__all__ = ["compare_reports", "write_comparison"]


def _names(runs: Sequence[ReportedRun]) -> list[str]:
    """The last part of the models' names; the whole, or the reports' folders, where these are the same."""
    candidates = ([Path(run.model).name for run in runs], [run.model for run in runs])
    return next((names for names in candidates if len(set(names)) == len(names)), [str(run.folder) for run in runs])


def compare_reports(runs: Sequence[ReportedRun], *, num_samples: int = 5000, seed: int = 0) -> dict[str, Any]:
    """Figures of every run, and a paired test of each against the first.

    Args:
        runs: Reports on the same data set and split, the reference first.
        num_samples: Draws of the test and of the bootstrap of the differences.
        seed: Of both.

    Returns:
        `runs`: one entry each with `name`, `metrics` and, but for the first, `against_first`: metric →
        [`PairedComparison`] as a dictionary.

    Raises:
        EvaluationError: If there are fewer than two, or they are not of the same queries.
    """
    if len(runs) < 2:
        raise EvaluationError("a comparison needs at least two reports.")
    first = runs[0]
    for run in runs[1:]:
        if (run.dataset, run.split, run.protocol) != (first.dataset, first.split, first.protocol):
            raise EvaluationError(
                f"{run.folder} is about {run.dataset} ({run.split}, {run.protocol}), {first.folder} about "
                f"{first.dataset} ({first.split}, {first.protocol}); compare evaluations of the same data."
            )
        if _comparable(run) != _comparable(first):
            raise EvaluationError(f"{run.folder} and {first.folder} do not have the same queries in the same order.")
    entries = []
    for name, run in zip(_names(runs), runs, strict=True):
        against = None
        if run is not first:
            found = compare_paired(
                first.metrics, run.metrics, person_ids=first.query_person_ids, num_samples=num_samples, seed=seed
            )
            against = {metric: asdict(comparison) for metric, comparison in found.items()}
        entries.append(
            {
                "name": name,
                "model": run.model,
                "folder": str(run.folder),
                "dataset": run.dataset,
                "split": run.split,
                "protocol": run.protocol,
                "num_queries": run.metrics.num_queries,
                "metrics": run.metrics.as_dict(),
                "against_first": against,
            }
        )
    return {"runs": entries, "num_samples": num_samples, "seed": seed}


def _comparable(run: ReportedRun) -> list[tuple[str, str, str]]:
    """What must be equal of the queries: file name (the data may lie elsewhere), sentence, identity."""
    return [
        (os.path.basename(image), caption, person)
        for (image, caption), person in zip(run.query_keys, run.query_person_ids, strict=True)
    ]


def write_comparison(runs: Sequence[ReportedRun], comparison: dict[str, Any], folder: str | Path) -> Path:
    """Write `comparison.json` and `cmc.png`.

    Args:
        runs: The reports.
        comparison: What `compare_reports` said of them.
        folder: Where to write; made if it does not exist.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / "comparison.json").write_text(
        json.dumps(comparison, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    plot_cmc({name: run.metrics.cmc() for name, run in zip(_names(runs), runs, strict=True)}, target / "cmc.png")
    return target
