"""`reid-zoo index` and `reid-zoo search`."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CheckpointError, DatasetError, QueryError
from . import console

if TYPE_CHECKING:
    from ..encoding import PersonEncoder
    from ..gallery import ModelIdentity

__all__ = ["index", "load_recorded_model", "search"]

_TITLE_LENGTH = 300


def load_recorded_model(identity: ModelIdentity) -> PersonEncoder:
    """The model a gallery was made with, from where it was then."""
    from ..encoding import PersonEncoder

    try:
        return PersonEncoder.from_pretrained(identity.name, revision=identity.revision)
    except CheckpointError as error:
        raise CheckpointError(
            f"the gallery was made with {identity.describe()}, which cannot be loaded ({error}); give its place with --model."
        ) from error


def _records_of(metadata: Path) -> dict[str, dict[str, Any]]:
    from ..data.own_data import load_own_data

    values: dict[str, dict[str, Any]] = {}
    for record in load_own_data(metadata, split="all"):
        captions = list(record.captions) or None
        entry: dict[str, Any] = dict(record.metadata)
        entry |= {
            name: value
            for name, value in (
                ("person_id", record.person_id),
                ("camera_id", record.camera_id),
                ("captions", captions),
            )
            if value is not None
        }
        values[os.path.realpath(record.image_path)] = entry
    return values


def _metadata_of(files: list[Path], metadata: Path) -> list[dict[str, Any]]:
    """The record of every file; two spellings of one place (links, `..`) are the same file."""
    records = _records_of(metadata)
    places = [os.path.realpath(file) for file in files]
    known = records.keys() & set(places)
    if not known:
        raise DatasetError(
            f"{metadata} has no record of any of the {len(files)} images; its paths start at its folder."
        )
    if len(known) < len(records):
        console.note(f"{len(records) - len(known)} of {len(records)} records of {metadata} are of other images.")
    without = sum(place not in known for place in places)
    if without:
        console.note(f"{without} of {len(files)} images have no record in {metadata}.")
    return [records.get(place, {}) for place in places]


def _list_images(places: list[Path]) -> list[Path]:
    from ..data.images import find_images

    files: list[Path] = []
    for place in places:
        absolute = place.absolute()
        files += [absolute] if absolute.is_file() else find_images(absolute)
    return files


def index(
    model: Annotated[str, typer.Argument(help="Model: a folder or a Hub id.")],
    images: Annotated[list[Path], typer.Argument(help="Folders of images, or image files.")],
    gallery: Annotated[Path, typer.Option(help="Folder of the gallery; made if it is not there.")],
    metadata: Annotated[
        Path | None,
        typer.Option(
            help="JSONL or CSV with columns image, person_id, camera_id, ... to filter by; models that use cameras take "
            "camera_id (and view_id) from it."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images encoded at once.")] = 32,
    workers: Annotated[int, typer.Option(min=1, help="Decoding threads.")] = 2,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Index images into a gallery; a rerun continues and takes in what is new."""
    from ..encoding import PersonEncoder
    from ..gallery import Gallery

    files = _list_images(images)  # a missing or empty folder is refused before the model is loaded
    values = _metadata_of(files, metadata) if metadata else None
    encoder = PersonEncoder.from_pretrained(model, batch_size=batch_size)
    with Gallery.create(gallery, encoder, exist_ok=True) as opened:
        try:
            report = opened.add(files, metadata=values, batch_size=batch_size, num_workers=workers, progress=progress)
        except KeyboardInterrupt:
            raise console.Interrupted(
                f"{gallery} keeps its {len(opened)} images, run the same command again to continue."
            ) from None
        rows = len(opened)
    for failed in report.failed:
        console.note(f"skipped {failed.path}: {failed.reason}")
    if as_json:
        failures = [{"path": failed.path, "reason": failed.reason} for failed in report.failed]
        console.print_json(
            {
                "gallery": str(gallery),
                "added": report.added,
                "skipped": report.skipped,
                "failed": failures,
                "rows": rows,
            }
        )
    else:
        print(
            f"{gallery}: {report.added} added, {report.skipped} already there, {len(report.failed)} failed; "
            f"{rows} images in all"
        )
    if report.failed and not report.added and not report.skipped:
        raise QueryError("none of the images could be indexed.")


def search(
    gallery: Annotated[Path, typer.Argument(help="Folder of the gallery.")],
    query: Annotated[str | None, typer.Argument(help="Description of the person.")] = None,
    image: Annotated[Path | None, typer.Option(help="Search by an image of the person instead.")] = None,
    top_k: Annotated[int, typer.Option(help="Number of answers.")] = 10,
    candidates: Annotated[
        int | None,
        typer.Option(
            help="Images to score, for models that compare tokens (MGCC); by default all up to 10,000, beyond 20 per "
            "answer and at least 1000."
        ),
    ] = None,
    camera_id: Annotated[
        int | None, typer.Option(help="Camera of --image, for models that use it; numbered from 0.")
    ] = None,
    view_id: Annotated[
        int | None, typer.Option(help="Viewpoint of --image, for models that use it; numbered from 0.")
    ] = None,
    where: Annotated[str | None, typer.Option(help="Filter, e.g. \"camera_id = 3 and time >= '2024-05-01'\".")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write the answers as a picture (.png).")] = None,
    person_id: Annotated[
        str | None,
        typer.Option(help="The person looked for, if known: tells right from wrong answers, by frames on the sheet."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to use instead of where the gallery says it is.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Search a gallery with a sentence, or with an image."""
    from ..encoding import PersonEncoder
    from ..evaluation.contact_sheet import SheetRow, SheetTile, check_sheet_path, draw_contact_sheet
    from ..gallery import Gallery

    if (query is None) == (image is None):
        raise QueryError("give a description, or --image FILE, one of them.")
    if query is not None and not query.strip():
        raise QueryError("the query is empty; describe the person in words.")
    if sheet is not None:
        check_sheet_path(sheet)
    encoder = PersonEncoder.from_pretrained(model) if model else None
    with Gallery.open(gallery, encoder, encoder_loader=load_recorded_model) as opened:
        if person_id is not None and "person_id" not in opened.columns:
            raise QueryError(f"--person-id: {gallery} does not know who is who; index it with --metadata.")
        hits = opened.search(
            query if image is None else Path(image),
            top_k=top_k,
            where=where,
            candidates=candidates,
            camera_ids=camera_id,
            view_ids=view_id,
        )
        rows = len(opened)
    if hits and not hits[0].exact:
        console.note("not every image was scored; the answers are approximate.")
    if top_k > rows:
        console.note(f"the gallery has only {rows} images; all of them are ranked.")
    title = query or f"like {image}"
    matches = [None if person_id is None else str(hit.metadata.get("person_id")) == person_id for hit in hits]
    if sheet is not None and not hits:
        console.note("no sheet is written, because no image matches.")
    elif sheet is not None:
        tiles = [
            SheetTile(hit.image, f"{hit.rank}   {hit.score:.3f}", is_match)
            for hit, is_match in zip(hits, matches, strict=True)
        ]
        draw_contact_sheet([SheetRow(title, tiles)], sheet)
        console.say(f"sheet written to {sheet}")
    if as_json:
        answers = [
            {"rank": hit.rank, "score": hit.score, "image": hit.image, "id": hit.id, "metadata": dict(hit.metadata)}
            | ({} if is_match is None else {"is_match": is_match})
            for hit, is_match in zip(hits, matches, strict=True)
        ]
        console.print_json({"gallery": str(gallery), "query": query, "image": image, "hits": answers})
    elif not hits:
        print("no image matches")
    else:
        rows_shown = [
            (
                hit.rank,
                hit.score,
                hit.image,
                ", ".join(f"{name}={value}" for name, value in hit.metadata.items() if name != "captions"),
                *(() if is_match is None else ("right" if is_match else "wrong",)),
            )
            for hit, is_match in zip(hits, matches, strict=True)
        ]
        columns = ("rank", "score", "image", "metadata", *(() if person_id is None else ("answer",)))
        console.print_table(shorten(title, _TITLE_LENGTH, placeholder=" ..."), columns, rows_shown)
