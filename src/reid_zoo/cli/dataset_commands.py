"""`reid-zoo datasets ...`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigurationError, DatasetError
from . import console

if TYPE_CHECKING:
    from ..data import DatasetCheck, DatasetEntry, PersonRecord

__all__ = ["datasets", "loader_options"]

datasets = typer.Typer(help="List, check, show and make data sets.", no_args_is_help=True, rich_markup_mode=None)

_PROBLEMS_SHOWN = 20
_TILES_SHOWN = 10

_Name = Annotated[str, typer.Argument(help="Name of the data set (see `reid-zoo datasets list`).")]
_Root = Annotated[Path, typer.Argument(help="Folder of the data set, or the one that contains it.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Progress = Annotated[bool, typer.Option(help="Show a progress bar.")]
_AcceptRetracted = Annotated[
    bool, typer.Option("--accept-retracted", help="Read a data set that its authors have withdrawn.")
]
_Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="OPTION=VALUE", help="An option of this data set's loader, e.g. test_size=1600."),
]


def loader_options(settings: Sequence[str] | None, accept_retracted: bool = False) -> dict[str, Any]:
    """Keyword arguments for `load_dataset` from what was typed.

    Args:
        settings: `OPTION=VALUE` each; values as in YAML (`true`, `1600`, `v2`).
        accept_retracted: Whether `--accept-retracted` was given.

    Returns:
        Options by name.

    Raises:
        ConfigurationError: If one of the settings is not of that form, or its value is not YAML.
    """
    import yaml

    options: dict[str, Any] = {"accept_retracted": True} if accept_retracted else {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigurationError(f"--set {setting}: expected OPTION=VALUE, for example test_size=1600.")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigurationError(f"--set {setting}: the value cannot be read.") from None
    return options


@datasets.command("list")
def list_datasets(as_json: _Json = False) -> None:
    """List the data sets that can be read."""
    from ..data import available_datasets

    entries = available_datasets()
    if as_json:
        console.print_json({"datasets": [_described(entry) for entry in entries]})
    else:
        rows = [(entry.name, entry.summary, entry.info.access if entry.info else "-") for entry in entries]
        console.print_table("", ("name", "what it is", "access"), rows)


def _described(entry: DatasetEntry) -> dict[str, Any]:
    from dataclasses import asdict

    known = {"name": entry.name, "summary": entry.summary}
    return known if entry.info is None else known | asdict(entry.info)


@datasets.command()
def check(
    name: _Name,
    root: _Root,
    images: Annotated[bool, typer.Option("--images", help="Also decode every image.")] = False,
    settings: _Settings = None,
    accept_retracted: _AcceptRetracted = False,
    progress: _Progress = True,
    as_json: _Json = False,
) -> None:
    """Check layout, records and images; compare the sizes with the published ones.

    Exits with 1 if something is wrong. Sizes that differ from the published ones are shown, but are not wrong.
    """
    from ..data import check_dataset

    options = loader_options(settings, accept_retracted)
    found = check_dataset(name, root, read_images=images, progress=progress, **options)
    if as_json:
        console.print_json(
            {
                "dataset": name,
                "label": found.label,
                "root": str(root),
                "ok": found.ok,
                "splits": {split: _sizes(counts) for split, counts in found.counts.items()},
                "published": {split: _sizes(counts) for split, counts in found.published.items()},
                "differences_from_published": [str(difference) for difference in found.differences],
                "images_read": found.num_images_read,
                "problems": list(found.problems),
                "notes": list(found.notes),
            }
        )
    else:
        _print_check(found, images)
    if not found.ok:
        raise DatasetError(f"{root}: {found.label} has {len(found.problems)} problems.")


def _sizes(counts: Any) -> dict[str, int | None]:
    return {"images": counts.images, "captions": counts.captions, "identities": counts.identities}


def _print_check(found: DatasetCheck, images_read: bool) -> None:
    rows = []
    for split in dict.fromkeys((*found.counts, *found.published)):
        cells = []
        for quantity in ("images", "captions", "identities"):
            here = getattr(found.counts.get(split), quantity, 0)
            published = getattr(found.published.get(split), quantity, None)
            if published is None:
                cells.append(f"{here:,}" if here else "-")
            elif here == published:
                cells.append(f"{here:,}  OK")
            else:
                cells.append(f"{here:,}  differs (published: {published:,})")
        rows.append((split, *cells))
    console.print_table(f"{found.label} in {found.root}", ("split", "images", "captions", "identities"), rows)
    if images_read:
        print(f"{found.num_images_read} images were read, {len(found.unreadable)} cannot be decoded")
    for problem in found.problems[:_PROBLEMS_SHOWN]:
        print(problem)
    if len(found.problems) > _PROBLEMS_SHOWN:
        print(f"... and {len(found.problems) - _PROBLEMS_SHOWN} more; --json lists all")
    if found.published:
        verdict = "differ from the published ones" if found.differences else "are the published ones"
        print(f"sizes {verdict}; {len(found.problems)} problems")
    else:
        print(f"no published sizes to compare with; {len(found.problems)} problems")
    for note in found.notes:
        console.note(note)


@datasets.command()
def show(
    name: _Name,
    root: _Root,
    sheet: Annotated[Path, typer.Option(help="Picture to write (.png).")],
    split: Annotated[str, typer.Option(help="train, val, test, query, gallery or all.")] = "test",
    people: Annotated[int, typer.Option(min=1, help="Number of people, spread over the split.")] = 8,
    settings: _Settings = None,
    accept_retracted: _AcceptRetracted = False,
    as_json: _Json = False,
) -> None:
    """Write a picture of a few people (or vehicles) with their captions."""
    from ..data import load_dataset
    from ..evaluation.contact_sheet import SheetRow, SheetTile, check_sheet_path, draw_contact_sheet

    check_sheet_path(sheet)
    records = load_dataset(name, root, split, **loader_options(settings, accept_retracted))
    by_person: dict[object, list[PersonRecord]] = {}
    for record in records:
        by_person.setdefault(record.person_id, []).append(record)
    groups = list(by_person.items())
    chosen = [groups[index * len(groups) // min(people, len(groups))] for index in range(min(people, len(groups)))]
    rows = []
    for person, group in chosen:
        name_of = "identity unknown" if person is None else f"identity {person}"
        title = next((caption for record in group for caption in record.captions), name_of)
        tiles = [SheetTile(str(record.image_path), _tile_label(record)) for record in group[:_TILES_SHOWN]]
        rows.append(SheetRow(title, tiles))
    draw_contact_sheet(rows, sheet)
    if as_json:
        shown = sum(len(row.tiles) for row in rows)
        console.print_json({"sheet": str(sheet), "split": split, "people": len(rows), "images": shown})
    else:
        print(f"sheet written to {sheet}")


def _tile_label(record: PersonRecord) -> str:
    """Short enough for the width of a tile: `query 12 c3`."""
    words = [str(record.metadata["split"])] if record.metadata.get("split") in ("query", "gallery") else []
    words += [] if record.person_id is None else [str(record.person_id)]
    words += [] if record.camera_id is None else [f"c{record.camera_id}"]
    return " ".join(words)


@datasets.command()
def validate(
    path: Annotated[Path, typer.Argument(help="A JSONL or CSV file, or a folder of images.")],
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every image.")] = False,
    progress: _Progress = True,
    as_json: _Json = False,
) -> None:
    """Check your own data and list its problems."""
    from ..data import validate_records

    report = validate_records(path, read_images=deep, progress=progress)
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
    progress: _Progress = True,
    as_json: _Json = False,
) -> None:
    """Draw synthetic pedestrians with captions, in the CUHK-PEDES layout."""
    from ..data import SyntheticPedestrians

    people = SyntheticPedestrians(identities, images, seed=seed)
    folder = people.write(root, progress=progress)
    if as_json:
        console.print_json({"folder": str(folder), "identities": identities, "images": len(people), "seed": seed})
    else:
        print(folder)
