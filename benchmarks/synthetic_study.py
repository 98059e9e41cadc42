"""Train every method, and the main ablations of CFine and VFE-TPS, on drawn people with several seeds; a table and a figure.

    python benchmarks/synthetic_study.py OUT [--seeds 3] [--epochs 12] [--processes 2] [--only cfine vfe_tps]

The data are those of `flat_people.py`: 200 people to learn from, 60 unseen ones to find. Every run is a `-tiny` recipe from
scratch with `--epochs` epochs, in a process of its own with one thread. Finished runs are kept in OUT: the same command
started again goes on. `OUT/study.md` has means and spreads, and says for every ablation table which of the paper's orderings
appear, `OUT/study.png` the figure. Drawn people and untrained towers are not the papers' setting: a missing order says nothing
about the papers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from reid_zoo.models.ablations import ablation_rows

_TINY = ("cfine", "vfe_tps", "irra", "mgcc", "dual_encoder", "clip_reid")
# CFine's first row is about ImageNet weights, which a model from scratch does not have.
_TABLES = {"cfine": ("Table IV", "0 Baseline"), "vfe_tps": ("Table 6", "")}


@dataclass(frozen=True)
class Run:
    """One model of the study.

    Attributes:
        name: Shown in the table; a file name too.
        method: Model type; its `-tiny` recipe is trained.
        table: Ablation table it belongs to; empty for the methods themselves.
        overrides: `field=value` for the recipe.
        reported: Rank-1 that the paper reports for the row on CUHK-PEDES, if it is one.
    """

    name: str
    method: str
    table: str = ""
    overrides: tuple[str, ...] = field(default_factory=tuple)
    reported: float | None = None


def planned_runs(methods: list[str]) -> list[Run]:
    """The methods, then the rows of the ablation tables."""
    runs = [Run(method, method) for method in methods]
    for method, (table, left_out) in _TABLES.items():
        if method in methods:
            for row in ablation_rows(paper=method, table=table):
                if row.method == method and not (left_out and row.label.startswith(left_out)):
                    figures = row.reported.get("cuhk-pedes", {})
                    name = f"{method} {row.label}"
                    runs.append(Run(name, method, table, tuple(row.recipe_overrides()), figures.get("R1")))
    return runs


def train_and_measure(run: Run, seed: int, epochs: int, data: Path, out: Path) -> dict[str, float]:
    """Rank-1 and mAP of one run; read from OUT if it is there already."""
    place = out / run.name.replace(" ", "_").replace(",", "").replace("/", "-") / str(seed)
    result = place.with_suffix(".json")
    if not result.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        settings = [*run.overrides, f"optimization.num_epochs={epochs}", f"seed={seed}"]
        command = [sys.executable, "-W", "ignore", "-m", "reid_zoo", "train", f"{run.method}-tiny", "--no-progress"]
        command += ["--data-root", str(data), "--output", str(place)]
        command += [part for setting in settings for part in ("--set", setting)]
        _call(command, f"{run.name}, seed {seed}")
        measured = _call([sys.executable, "-W", "ignore", __file__, "--measure", str(place), str(data)], run.name)
        result.write_text(measured.splitlines()[-1] + "\n", encoding="utf-8")
    found: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
    return found


def _call(command: list[str], what: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{what}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}")
    return done.stdout


def measure(model: Path, data: Path) -> dict[str, float]:
    """Figures on the unseen people: sentences search images, or images a gallery of one image per person."""
    from reid_zoo import PersonEncoder, evaluate_model, load_dataset
    from reid_zoo.training.image_evaluation import evaluate_images

    people = load_dataset("cuhk-pedes", data, "test")
    encoder = PersonEncoder.from_pretrained(model)
    evaluate: Any = evaluate_model if encoder.supports_text else evaluate_images
    return dict(evaluate(encoder, people, progress=False).as_dict())


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def orderings(runs: list[Run], figures: dict[str, list[float]]) -> list[str]:
    """For every ablation table: which pairs stand in the paper's order, and by more than the seeds' spread."""
    lines = []
    for method, (table, _) in _TABLES.items():
        rows = [run for run in runs if run.method == method and run.table == table and run.reported is not None]
        pairs = [(a, b) if a.reported < b.reported else (b, a) for a, b in combinations(rows, 2)]  # type: ignore[operator]
        if not pairs:
            continue
        gains = [statistics.mean(figures[b.name]) - statistics.mean(figures[a.name]) for a, b in pairs]
        spreads = [max(_spread(figures[a.name]), _spread(figures[b.name])) for a, b in pairs]
        same = sum(gain > 0 for gain in gains)
        line = f"- {method}, {table}: of {len(pairs)} pairs of rows {same} stand in the paper's order"
        if len(figures[rows[0].name]) > 1:
            clear = sum(gain > spread for gain, spread in zip(gains, spreads, strict=True))
            against = sum(-gain > spread for gain, spread in zip(gains, spreads, strict=True))
            line += f", {clear} of them by more than the seeds' spread; {against} stand the other way round by more than it."
        else:
            line += "; one seed tells nothing about chance."
        lines.append(line)
    return lines


def write_results(runs: list[Run], results: dict[str, list[dict[str, float]]], options: Any, out: Path) -> Path:
    """`study.md` and `study.png`."""
    rank1 = {name: [result["R1"] for result in found] for name, found in results.items()}
    average = {name: [result["mAP"] for result in found] for name, found in results.items()}
    lines = [
        "# Methods and ablations on drawn people",
        "",
        f"*Measured by us*: `python benchmarks/synthetic_study.py OUT --seeds {options.seeds} --epochs {options.epochs}`; "
        "one thread per run, mean ± standard deviation over the seeds. CLIP-ReID searches by image: its figures compare with "
        "no other row.",
        "",
        "| run | Rank-1 | mAP | Rank-1 on CUHK-PEDES, reported by the paper |",
        "|---|---|---|---|",
    ]
    for run in runs:
        cells = [f"{statistics.mean(v):.1f} ± {_spread(v):.1f}" for v in (rank1[run.name], average[run.name])]
        lines.append(f"| {run.name} | {' | '.join(cells)} | {'-' if run.reported is None else f'{run.reported:.2f}'} |")
    lines += ["", "## Do the papers' orderings appear?", "", *orderings(runs, rank1), ""]
    (out / "study.md").write_text("\n".join(lines), encoding="utf-8")

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 0.32 * len(runs) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = list(range(len(runs)))[::-1]
    colours = ["#0072B2" if not run.table else "#E69F00" for run in runs]
    axes.barh(
        places,
        [statistics.mean(rank1[run.name]) for run in runs],
        xerr=[_spread(rank1[run.name]) for run in runs],
        color=colours,
        ecolor="#333333",
        capsize=2,
    )
    axes.set_yticks(places, [run.name for run in runs], fontsize=8)
    axes.set_xlabel(f"Rank-1 on unseen drawn people (%), mean ± deviation of {options.seeds} seeds")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / "study.png", dpi=150)
    return out / "study.md"


def main() -> None:
    """Run what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, nargs="?", help="folder for data, models and results")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every model")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of every run")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, each with one thread")
    parser.add_argument("--only", nargs="+", choices=_TINY, default=list(_TINY), help="methods")
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    if options.out is None or options.seeds < 1 or options.epochs < 1 or options.processes < 1:
        parser.error("give OUT, and positive numbers")
    data = options.out / "data"
    if not (data / "CUHK-PEDES" / "reid_raw.json").is_file():
        _call([sys.executable, str(Path(__file__).with_name("flat_people.py")), str(data), "--seed", "1"], "drawing")
    runs = planned_runs(options.only)
    jobs = [(run, seed) for seed in range(1, options.seeds + 1) for run in runs]
    with (
        ThreadPoolExecutor(options.processes) as pool,
        tqdm(total=len(jobs), desc="runs", unit="run") as bar,
    ):

        def work(job: tuple[Run, int]) -> dict[str, float]:
            found = train_and_measure(*job, options.epochs, data, options.out / f"{options.epochs}-epochs")
            bar.update()
            return found

        found = list(pool.map(work, jobs))
    results: dict[str, list[dict[str, float]]] = {}
    for (run, _), result in zip(jobs, found, strict=True):
        results.setdefault(run.name, []).append(result)
    print(f"written to {write_results(runs, results, options, options.out)}")


if __name__ == "__main__":
    main()
