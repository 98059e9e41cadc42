"""`reid-zoo train` and `reid-zoo recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console

__all__ = ["recipes", "train"]


def _what_is_kept(output: Path) -> str:
    from ..training.run_folder import what_is_kept

    kept = what_is_kept(output)
    if kept is None:
        return "there was no checkpoint yet, run the same command again to start anew."
    return f"{kept} is kept, run the same command again to continue from there."


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (see `reid-zoo recipes`), or a .yaml file.")],
    data_root: Annotated[Path, typer.Option(help="Folder of the data set, or the one that contains it.")],
    output: Annotated[Path, typer.Option(help="Folder for model and processor; checkpoints go below it.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed instead of the recipe's.")] = None,
    accept_retracted: Annotated[
        bool, typer.Option("--accept-retracted", help="Train on a data set that its authors have withdrawn.")
    ] = False,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in the output folder.")] = True,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a model as a recipe says."""
    from ..training import load_recipe
    from ..training import train as run

    accepted = ["dataset_options.accept_retracted=true"] if accept_retracted else []
    loaded = load_recipe(recipe, [*(overrides or ()), *accepted])
    console.quiet_libraries()
    try:
        summary = run(
            loaded,
            data_root=data_root,
            output_dir=output,
            dataset=dataset,
            seed=seed,
            resume=resume,
            progress=progress,
            log=console.say if console.is_first_process() else None,
        )
    except KeyboardInterrupt:
        raise console.Interrupted(_what_is_kept(output)) from None
    if not console.is_first_process():
        return
    if as_json:
        console.print_json(
            {
                "recipe": loaded.name,
                "output": str(output),
                "stage_one_steps": summary.stage_one_steps,
                "steps": summary.steps,
                "epochs": summary.epochs,
                "seconds": round(summary.seconds, 1),
                "loss": summary.loss,
                "evaluation_split": loaded.evaluation.split,
                "validation": summary.metrics,
                "resumed_from": summary.resumed_from,
            }
        )
        return
    if summary.resumed_from is not None:
        print(f"resumed from {summary.resumed_from}")
    if summary.stage_one_steps is not None:
        print(f"first stage: {summary.stage_one_steps} steps")
    print(f"{summary.steps} steps, {summary.epochs:.1f} epochs, {summary.seconds:.0f} s; model in {output}")
    if summary.metrics:
        split = "validation" if loaded.evaluation.split == "val" else loaded.evaluation.split
        print(f"{split}: " + ", ".join(f"{name} {value:.2f}" for name, value in summary.metrics.items()))


def recipes(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the recipes of the package."""
    from ..training import list_recipes, load_recipe

    loaded = [load_recipe(name) for name in list_recipes()]
    if as_json:
        console.print_json(
            {
                "recipes": [
                    {
                        "name": r.name,
                        "method": r.method,
                        "dataset": r.dataset,
                        "stages": 1 if r.stage_one is None else 2,
                        "aims_at": r.aims_at,
                        "description": r.description,
                    }
                    for r in loaded
                ]
            }
        )
    else:
        console.print_table(
            "",
            ("recipe", "description", "aims at"),
            [(r.name, r.description, r.aims_at or "-") for r in loaded],
        )
