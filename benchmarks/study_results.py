"""What the runs of `synthetic_study.py` say: a table, the papers' orderings, a figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from reid_zoo.models.registry import METHODS


@dataclass(frozen=True)
class StudyRow:
    """A model of the study.

    Attributes:
        name: The method's name, or the row's in the ablation table.
        method: Model type.
        table: Ablation table, or `None` for a method itself.
        reported: Rank-1 that the paper reports on CUHK-PEDES, if it does.
        searches_by_text: Else by image: then its figures compare with no other row's.
        towers: Name of the pretrained towers that it starts from.
    """

    name: str
    method: str
    table: str | None
    reported: float | None
    searches_by_text: bool
    towers: str


@dataclass(frozen=True)
class Outcome:
    """What a run found: per cent, optimiser steps, wall-clock and processor seconds of its training."""

    R1: float
    mAP: float
    steps: int
    seconds: float
    processor_seconds: float


Outcomes = Mapping[StudyRow, Sequence[Outcome]]


def rank1(outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.R1 for outcome in outcomes]


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _cell(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {_spread(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def _groups(outcomes: Outcomes) -> dict[str, list[StudyRow]]:
    """Title → rows that are compared with each other."""
    groups = {"Methods": [row for row in outcomes if row.table is None]}
    for row in outcomes:
        if row.table is not None:
            groups.setdefault(f"{METHODS[row.method].title}, {row.table}", []).append(row)
    return groups


def clear_difference(outcomes: Outcomes, rows: Sequence[StudyRow]) -> float:
    """Difference of two rows' means that chance hardly makes: twice its standard error, the rows' spread pooled."""
    seeds = len(outcomes[rows[0]])
    pooled = math.sqrt(statistics.mean(_spread(rank1(outcomes[row])) ** 2 for row in rows))
    return 2 * pooled * math.sqrt(2 / seeds)


def orderings(outcomes: Outcomes) -> list[str]:
    """Per group: how many pairs stand as in the papers, and which differences are clear."""
    lines = []
    for title, members in _groups(outcomes).items():
        rows = [row for row in members if row.reported is not None and row.searches_by_text]
        if len(rows) < 2:
            continue
        means = {row: statistics.mean(rank1(outcomes[row])) for row in rows}
        pairs = [sorted(pair, key=lambda row: row.reported or 0) for pair in combinations(rows, 2)]
        same = sum(means[better] > means[worse] for worse, better in pairs)
        average = {row: statistics.mean(outcome.mAP for outcome in outcomes[row]) for row in rows}
        same_by_average = sum(average[better] > average[worse] for worse, better in pairs)
        line = (
            f"- **{title}**: {same} of {len(pairs)} pairs of rows stand in the order of the papers' Rank-1 "
            f"({same_by_average} by our mAP, which moves less)"
        )
        if len(outcomes[rows[0]]) < 2:
            lines.append(f"{line}; one seed tells nothing about chance.")
            continue
        clear = clear_difference(outcomes, rows)
        as_reported = [pair for pair in pairs if means[pair[1]] - means[pair[0]] > clear]
        against = [pair[::-1] for pair in pairs if means[pair[0]] - means[pair[1]] > clear]
        undecided = len(pairs) - len(as_reported) - len(against)
        lines.append(
            f"{line}. Beyond chance (differences of more than {clear:.1f} points, twice the standard error): {len(as_reported)} "
            f"as reported, {len(against)} the other way round, {undecided} undecided."
        )
        for what, found in (("As reported", as_reported), ("The other way round", against)):
            if found:
                lines.append(f"  {what}: {'; '.join(f'{better.name} over {worse.name}' for worse, better in found)}.")
    return lines


def write_results(outcomes: Outcomes, towers: Mapping[str, Outcome], options: Any, out: Path) -> Path:
    """`study.md` and `study.png`; returns the former."""
    every = list({id(outcome): outcome for found in outcomes.values() for outcome in found}.values())  # rows share runs
    processor = sum(outcome.processor_seconds for outcome in (*every, *towers.values()))
    command = f"python benchmarks/synthetic_study.py OUT --seeds {options.seeds} --epochs {options.epochs}"
    lines = [
        "# Methods and ablations on drawn people",
        "",
        f"*Measured by us*: `{command}`, learning rate {options.learning_rate:g}, towers of {options.pretraining_epochs} epochs; "
        f"{len(every)} runs of {min(run.steps for run in every)} to {max(run.steps for run in every)} steps, one thread each, "
        f"{processor / 60:.0f} minutes of processor time. 100 unseen people (400 images, 800 sentences) are searched; mean ± "
        f"standard deviation over {options.seeds} seeds. The last column is *reported by the papers* on CUHK-PEDES.",
        "",
        "Towers alone: "
        + "; ".join(
            f"{name} {outcome.R1:.1f} Rank-1, {outcome.mAP:.1f} mAP" for name, outcome in sorted(towers.items())
        )
        + ".",
    ]
    for title, rows in _groups(outcomes).items():
        lines += ["", f"## {title}", ""]
        lines += ["| row | Rank-1 | mAP | Rank-1 above the towers alone | reported Rank-1 |", "|---|---|---|---|---|"]
        for row in rows:
            name = row.name if row.searches_by_text else f"{row.name} (searches by image)"
            figures = f"{_cell(rank1(outcomes[row]))} | {_cell([outcome.mAP for outcome in outcomes[row]])}"
            gain = statistics.mean(rank1(outcomes[row])) - towers[row.towers].R1
            others = [
                f"{gain:+.1f}" if row.searches_by_text else "-",
                "-" if row.reported is None else f"{row.reported:.2f}",
            ]
            lines.append(f"| {name} | {figures} | {' | '.join(others)} |")
    if found_orders := orderings(outcomes):
        lines += ["", "## Do the papers' orderings appear?", "", *found_orders]
    (out / "study.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
    _draw(outcomes, out / "study.png")
    return out / "study.md"


def _draw(outcomes: Outcomes, path: Path) -> None:
    """One panel per group: Rank-1 of the methods, and what the rows of an ablation table add to its first one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = _groups(outcomes)
    figure = Figure(figsize=(7.2, 0.3 * len(outcomes) + 0.9 * len(groups) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[len(rows) + 1 for rows in groups.values()])
    for axes, (title, rows) in zip(panels[:, 0], groups.items(), strict=True):
        first = rows[0]
        ablation = first.table is not None
        places = range(len(rows))[::-1]
        for place, row in zip(places, rows, strict=True):
            base = statistics.mean(rank1(outcomes[first])) if ablation else 0.0
            values = [value - base for value in rank1(outcomes[row])]
            colour = "#0072B2" if row.searches_by_text else "#999999"
            axes.errorbar(statistics.mean(values), place, xerr=_spread(values), fmt="o", color=colour, capsize=3)
            axes.plot(values, [place] * len(values), "|", color=colour, alpha=0.6, markersize=7)
            if ablation and row.reported is not None and first.reported is not None:
                axes.plot(row.reported - first.reported, place, "D", color="#D55E00", fillstyle="none")
        labels = [row.name if row.searches_by_text else f"{row.name} (by image)" for row in rows]
        axes.set_yticks(list(places), labels, fontsize=8)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if ablation:
            axes.axvline(0, color="#333333", linewidth=0.8)
            axes.set_xlabel(f"Rank-1, points above “{first.name}”", fontsize=8)
        else:
            axes.set_xlabel("Rank-1 on 100 unseen drawn people (%)", fontsize=8)
        axes.set_title(title, fontsize=9, loc="left")
    axes = panels[-1, 0]
    handles = [
        axes.plot([], [], "o", color="#0072B2", label="ours: mean, deviation, seeds")[0],
        axes.plot([], [], "D", color="#D55E00", fillstyle="none", label="reported by the paper on CUHK-PEDES")[0],
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
