"""Train every method, and the main ablations of CFine and VFE-TPS, on drawn people with several seeds; a table and a figure.

    python benchmarks/synthetic_study.py OUT [--seeds 3] [--epochs 8] [--processes 2] [--only cfine vfe_tps]

As in the papers, towers are pretrained: plain ones (InfoNCE alone) learn 500 drawn people, once, and every run then trains its
method on 200 others from there (`model.start_from`). 100 more, whom no model has seen, are searched. Every run is the method's
`-tiny` recipe with fewer epochs, on one thread. Seeds change the order of the data, the method's own weights and its dropout;
people and towers stay. Finished runs are kept in OUT: the same command started again goes on. `OUT/study.md` has means and
spreads and says which of the papers' orderings appear, `OUT/study.png` is the figure. Drawn people and small towers are not the
papers' setting: an order that is missing here says nothing about theirs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from study_results import Outcome, StudyRow, write_results
from tqdm.auto import tqdm

from reid_zoo.models.ablations import ablation_rows
from reid_zoo.models.registry import METHODS
from reid_zoo.models.reported_results import REPORTED_RESULTS

_TABLES = {"cfine": "Table IV", "vfe_tps": "Table 6"}
# CFine's first row has ImageNet weights instead of CLIP's; here there is one kind of pretraining.
_LEFT_OUT = ("0 Baseline",)
# Rows that are the whole method: its runs are theirs.
_WHOLE = {"cfine": "9 CFine", "vfe_tps": "TG-MIM, IS-GVFC"}
# Which of several reported models of a method compares with its recipe.
_VARIANTS = {"dual_encoder": "CLIP ViT-B/16 fine-tuned"}


@dataclass(frozen=True)
class Towers:
    """Plain towers that runs start from: model type of the recipe that trains them, and what differs from it."""

    method: str
    overrides: tuple[str, ...]


# IRRA's tokenizer has the token for masked words that IRRA and VFE-TPS need; CFine reads sentences with a BERT.
_TOWERS = {
    "clip": Towers("irra", ("model.config.loss_terms=[itc]",)),
    "bert": Towers("dual_encoder", ("model.preset=tiny-bert",)),
}
_TOWERS_OF = {method: "bert" if method == "cfine" else "clip" for method in METHODS}


@dataclass(frozen=True)
class Job:
    """One model to train and to measure."""

    row: StudyRow
    seed: int
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """A file name."""
        readable = "".join(letter if letter.isalnum() else "-" for letter in self.row.name)
        return f"{self.row.method}-{readable}-{self.seed}"


def planned_rows(methods: list[str]) -> dict[StudyRow, tuple[str, ...] | StudyRow]:
    """Rows of the study and the recipe fields that they change, or the row whose runs they share.

    First the methods, then the ablation tables.
    """
    rows: dict[StudyRow, tuple[str, ...] | StudyRow] = {}
    whole = {}
    for method in methods:
        reported = next(
            (
                result.metrics["R1"]
                for result in REPORTED_RESULTS[method]
                if result.dataset == "cuhk-pedes" and result.variant == _VARIANTS.get(method, result.variant)
            ),
            None,
        )
        whole[method] = StudyRow(
            METHODS[method].title, method, None, reported, "text" in METHODS[method].queries, _TOWERS_OF[method]
        )
        rows[whole[method]] = ()
    for method, table in _TABLES.items():
        if method in methods:
            for row in ablation_rows(paper=method, table=table):
                if row.label not in _LEFT_OUT:
                    figure = row.reported["cuhk-pedes"]["R1"]
                    shared = row.label == _WHOLE[method]
                    changes = whole[method] if shared else tuple(row.recipe_overrides())
                    rows[StudyRow(row.label, method, table, figure, True, _TOWERS_OF[method])] = changes
    return rows


def draw(out: Path) -> None:
    """The people that towers learn, and those of the study with the unseen ones."""
    from reid_zoo.data import SyntheticPedestrians

    for name, people, options in (
        ("pretraining", 501, {"seed": 1001, "test_identities": 1}),
        ("study", 300, {"seed": 1, "test_identities": 100}),
    ):
        if not (out / name).is_dir():
            shutil.rmtree(part := out / f"{name}.part", ignore_errors=True)
            SyntheticPedestrians(people, 4, val_identities=0, **options).write(part)
            part.rename(out / name)


def train_and_measure(
    out: Path, name: str, method: str, overrides: list[str], people: str, learning_rate: float | None
) -> Outcome:
    """Train a small recipe and search the unseen people, in a process of its own; a run that is there is only read.

    With a learning rate of its own the run is one of the study's, whose model is not kept.
    """
    import torch

    torch.set_num_threads(1)
    import warnings

    from transformers.utils import logging

    warnings.filterwarnings("ignore")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    from reid_zoo import PersonEncoder, evaluate_model, load_dataset
    from reid_zoo.training import load_recipe, train
    from reid_zoo.training.image_evaluation import evaluate_images

    result, model = out / f"{name}.json", out / name
    if not result.is_file():
        started, processor = time.monotonic(), time.process_time()
        recipe = load_recipe(f"{method}-tiny", overrides)
        if learning_rate is not None:
            groups = tuple(
                replace(group, learning_rate=learning_rate) for group in recipe.optimization.parameter_groups
            )
            recipe = replace(recipe, optimization=replace(recipe.optimization, parameter_groups=groups))
        summary = train(recipe, data_root=out.parent / people, output_dir=model, progress=False)
        used = {"seconds": time.monotonic() - started, "processor_seconds": time.process_time() - processor}
        encoder = PersonEncoder.from_pretrained(model)
        evaluate: Any = evaluate_model if encoder.supports_text else evaluate_images
        metrics = evaluate(encoder, load_dataset("cuhk-pedes", out.parent / "study", "test"), progress=False).as_dict()
        if learning_rate is not None:
            shutil.rmtree(model)
        outcome = {"R1": metrics["R1"], "mAP": metrics["mAP"], "steps": summary.steps, **used}
        part = result.with_suffix(".part")
        part.write_text(json.dumps(outcome) + "\n", encoding="utf-8")
        part.rename(result)
    return Outcome(**json.loads(result.read_text(encoding="utf-8")))


def run_all(pool: ProcessPoolExecutor, calls: dict[Any, tuple[Any, ...]]) -> Iterator[tuple[Any, Outcome]]:
    """Outcomes in the order in which they are ready."""
    futures = {pool.submit(train_and_measure, *arguments): key for key, arguments in calls.items()}
    for future in as_completed(futures):
        yield futures[future], future.result()


def main() -> None:
    """Run what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="folder for data, towers and results")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every row")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of every run, 50 steps each")
    parser.add_argument("--pretraining-epochs", type=int, default=16, help="epochs of the towers, 124 steps each")
    parser.add_argument(
        "--learning-rate", type=float, default=3e-4, help="highest one of every run; the towers have the recipe's"
    )
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, each with one thread")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), help="methods")
    options = parser.parse_args()
    if min(options.seeds, options.epochs, options.pretraining_epochs, options.processes) < 1:
        parser.error("numbers must be positive")
    started = time.monotonic()
    draw(options.out)
    rows = planned_rows(options.only)
    towers_folder = options.out / f"towers-{options.pretraining_epochs}-epochs"
    runs_folder = (
        options.out / f"runs-{options.epochs}-epochs-{options.learning_rate:g}-from-{options.pretraining_epochs}"
    )
    jobs = [
        Job(row, seed, changes)
        for seed in range(1, options.seeds + 1)
        for row, changes in rows.items()
        if not isinstance(changes, StudyRow)
    ]
    with (
        ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool,
        tqdm(total=len(jobs), desc="runs", unit="run") as bar,
    ):
        for folder in (towers_folder, runs_folder):
            folder.mkdir(exist_ok=True)
        calls: dict[Any, tuple[Any, ...]] = {}
        for name in sorted({_TOWERS_OF[method] for method in options.only}):
            settings = [*_TOWERS[name].overrides, f"optimization.num_epochs={options.pretraining_epochs}"]
            calls[name] = (towers_folder, name, _TOWERS[name].method, settings, "pretraining", None)
        towers = dict(run_all(pool, calls))
        calls = {}
        for job in jobs:
            settings = [
                *job.overrides,
                f"seed={job.seed}",
                f"model.start_from={towers_folder / _TOWERS_OF[job.row.method]}",
                f"optimization.num_epochs={options.epochs}",
            ]
            calls[job] = (runs_folder, job.name, job.row.method, settings, "study", options.learning_rate)
        found: dict[StudyRow, list[Outcome]] = {job.row: [] for job in jobs}
        for job, outcome in run_all(pool, calls):
            found[job.row].append(outcome)
            bar.update()
    outcomes = {row: found[changes if isinstance(changes, StudyRow) else row] for row, changes in rows.items()}
    print(f"all of it: {(time.monotonic() - started) / 60:.0f} minutes")
    print(f"written to {write_results(outcomes, towers, options, options.out)}")


if __name__ == "__main__":
    main()
