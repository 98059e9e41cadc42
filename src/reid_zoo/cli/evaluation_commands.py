"""`reid-zoo evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console

__all__ = ["evaluate"]

_SHEET_QUERIES = 6


def evaluate(
    model: Annotated[str, typer.Argument(help="Model: a folder or a Hub id.")],
    dataset: Annotated[str, typer.Option(help="Name of the data set (see `reid-zoo datasets list`).")],
    data_root: Annotated[Path, typer.Option(help="Folder of the data set, or the one that contains it.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    batch_size: Annotated[int, typer.Option(min=1, help="Images or captions per step.")] = 64,
    sheet: Annotated[Path | None, typer.Option(help="Write the answers to a few queries as a picture (.png).")] = None,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure text-to-image retrieval: Rank-1, -5, -10, mAP, mINP."""
    from ..data import load_dataset
    from ..encoding import PersonEncoder
    from ..evaluation import evaluate_model
    from ..evaluation.contact_sheet import check_sheet_path, draw_dataset_answers

    if sheet is not None:
        check_sheet_path(sheet)  # before the work, not after it
    records = load_dataset(dataset, data_root, split, require_captions=True, require_identities=True)
    encoder = PersonEncoder.from_pretrained(model, batch_size=batch_size)
    metrics = evaluate_model(encoder, records, batch_size=batch_size, progress=progress)
    if sheet is not None:
        draw_dataset_answers(encoder, records, sheet, num_queries=_SHEET_QUERIES)
        console.say(f"sheet written to {sheet}")
    values = {name: round(value, 4) for name, value in metrics.as_dict().items()}
    if as_json:
        console.print_json(
            {
                "model": model,
                "dataset": records.name,
                "split": split,
                "metrics": values,
                "num_queries": metrics.num_queries,
                "num_gallery_images": metrics.num_gallery,
                "num_skipped_queries": metrics.num_skipped_queries,
            }
        )
        return
    print(
        f"{model} on {records.name} ({split}): {metrics.num_queries} queries, {metrics.num_gallery} gallery images, "
        f"{metrics.num_skipped_queries} queries without a positive"
    )
    console.print_table("", tuple(values), [tuple(f"{value:.2f}" for value in values.values())])
