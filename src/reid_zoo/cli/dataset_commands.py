"""`reid-zoo datasets ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import DatasetError
from . import console

__all__ = ["datasets"]

datasets = typer.Typer(help="List, check, show and make data sets.", no_args_is_help=True, rich_markup_mode=None)

_SPLITS = ("train", "val", "test")
_PROBLEMS_SHOWN = 20


@datasets.command("list")
def list_datasets(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the data sets that can be read."""
    from ..data import available_datasets

    entries = available_datasets()
    if as_json:
        console.print_json({"datasets": [{"name": entry.name, "summary": entry.summary} for entry in entries]})
    else:
        console.print_table("", ("name", "what it is"), [(entry.name, entry.summary) for entry in entries])


@datasets.command()
def check(
    name: Annotated[str, typer.Argument(help="Name of the data set.")],
    root: Annotated[Path, typer.Argument(help="Folder of the data set, or the one that contains it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check the layout and every record; compare the counts with the published ones."""
    from ..data import TEXT_PERSON_BENCHMARKS, load_dataset, verify_counts

    found: dict[str, dict[str, int]] = {}
    differences: list[str] = []
    load_dataset(name, root, "all")  # refuses whatever is wrong in any split
    for split in _SPLITS:
        try:
            records = load_dataset(name, root, split)
        except DatasetError:
            continue  # all records are fine, so this split is not there: own data and small subsets may lack one
        found[split] = {
            "images": len(records),
            "captions": len(records.captioned_images()),
            "identities": len(records.person_ids),
        }
        if records.name in TEXT_PERSON_BENCHMARKS:
            differences += [str(difference) for difference in verify_counts(records)]
    if as_json:
        console.print_json(
            {"dataset": name, "root": str(root), "splits": found, "differences_from_published": differences}
        )
        return
    console.print_table("", ("split", "images", "captions", "identities"), [(k, *v.values()) for k, v in found.items()])
    for difference in differences:
        console.note(difference)


@datasets.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the data set.")],
    root: Annotated[Path, typer.Argument(help="Folder of the data set, or the one that contains it.")],
    sheet: Annotated[Path, typer.Option(help="Picture to write (.png).")],
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "test",
    people: Annotated[int, typer.Option(min=1, help="Number of people.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a picture of a few people with their captions."""
    from ..data import load_dataset
    from ..evaluation.contact_sheet import SheetRow, SheetTile, check_sheet_path, draw_contact_sheet

    check_sheet_path(sheet)
    records = load_dataset(name, root, split)
    by_person: dict[object, list] = {}
    for record in records:
        by_person.setdefault(record.person_id, []).append(record)
    rows = []
    for person, group in list(by_person.items())[:people]:
        name_of = "identity unknown" if person is None else f"person {person}"
        title = next((caption for record in group for caption in record.captions), name_of)
        label = "" if person is None else name_of
        rows.append(SheetRow(title, [SheetTile(str(record.image_path), label) for record in group[:10]]))
    draw_contact_sheet(rows, sheet)
    if as_json:
        images = sum(len(row.tiles) for row in rows)
        console.print_json({"sheet": str(sheet), "split": split, "people": len(rows), "images": images})
    else:
        print(f"sheet written to {sheet}")


@datasets.command()
def validate(
    path: Annotated[Path, typer.Argument(help="A JSONL or CSV file, or a folder of images.")],
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check your own data and list its problems."""
    from ..data import validate_records

    report = validate_records(path, read_images=deep)
    if as_json:
        console.print_json(
            {
                "path": str(path),
                "ok": report.ok,
                "records": report.num_records,
                "captions": report.num_captions,
                "identities": report.num_identities,
                "problems": [str(problem) for problem in report.problems],
            }
        )
    else:
        for problem in report.problems[:_PROBLEMS_SHOWN]:
            print(problem)
        if len(report.problems) > _PROBLEMS_SHOWN:
            print(f"... and {len(report.problems) - _PROBLEMS_SHOWN} more; --json lists all")
        print(
            f"{report.num_records} records, {report.num_captions} captions, {report.num_identities} identities are fine"
        )
    if not report.ok:
        raise DatasetError(f"{path} has {len(report.problems)} problems.")


@datasets.command()
def make(
    root: Annotated[Path, typer.Argument(help="Folder to write CUHK-PEDES/ into.")],
    identities: Annotated[int, typer.Option(min=1, help="Number of people.")] = 200,
    images: Annotated[int, typer.Option(min=1, help="Images of each.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw synthetic pedestrians with captions, in the CUHK-PEDES layout."""
    from ..data import SyntheticPedestrians

    people = SyntheticPedestrians(identities, images, seed=seed)
    folder = people.write(root, progress=progress)
    if as_json:
        console.print_json({"folder": str(folder), "identities": identities, "images": len(people), "seed": seed})
    else:
        print(folder)
