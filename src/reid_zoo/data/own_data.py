"""A user's own data: a folder of images, or a JSONL or CSV file with one record per image.

Fields of a record; only `image` must be there:

| field | JSONL | CSV |
|---|---|---|
| `image` | path, relative to `image_root` (by default the folder of the file), that does not leave it | the same |
| `captions` | list of strings | one cell, captions separated by a vertical bar, or columns `caption_1`... |
| `person_id` | whole number or string, of one kind throughout | numbers if every cell of the column is, else strings |
| `camera_id` | whole number from 0 | the same |
| `view_id` | whole number from 0 | the same |
| `split` | `train`, `val`, `test`, `query` or `gallery`; in every record or in none | the same |
| any other | string, number, true or false, of one kind throughout: metadata | likewise, typed by column |

JSON's null and an empty cell mean that the field is absent. One image is one record: all its captions belong there.
`query` and `gallery` together are the `test` split of images that are searched by images.
`validate_records` reports every problem of a file at once; `load_own_data` refuses a file that has any.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigurationError, DatasetError, ImageReadError
from .caption_text import is_empty_caption
from .dataset_folders import refuse_without_positives
from .images import find_images, load_image
from .record_files import INT64, RawRecord, ReportProblem, ValidationProblem, read_csv, read_jsonl
from .records import SPLITS, MetadataValue, PersonDataset, PersonRecord

__all__ = ["ValidationProblem", "ValidationReport", "load_named", "load_own_data", "validate_records"]

_SPLIT_NAMES = ", ".join(map(repr, SPLITS[:-1])) + f" or {SPLITS[-1]!r}"
_SUFFIXES: dict[str, tuple[str, ...]] = {"jsonl": (".jsonl", ".ndjson"), "csv": (".csv",)}
_READERS = {"jsonl": read_jsonl, "csv": read_csv}


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """What `validate_records` found.

    Attributes:
        path: The file (or the folder of images) that was looked at.
        num_records: Records without a problem of their own.
        num_captions: Captions of those records.
        num_identities: Distinct `person_id` of those records.
        problems: Everything that is wrong, in the order of the lines.
    """

    path: Path
    num_records: int
    num_captions: int
    num_identities: int
    problems: tuple[ValidationProblem, ...]

    @property
    def ok(self) -> bool:
        """Whether `load_own_data` would take it."""
        return not self.problems

    def __str__(self) -> str:
        good = f"{self.num_records} good records, {self.num_captions} captions, {self.num_identities} identities"
        verdict = "no problem" if self.ok else f"{len(self.problems)} problem(s)"
        return "\n".join([f"{self.path}: {good}, {verdict}", *(f"  {problem}" for problem in self.problems)])


def validate_records(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    check_images: bool = True,
    read_images: bool = False,
    progress: bool = False,
) -> ValidationReport:
    """Look for everything that is wrong with a user's own data.

    Args:
        path: A `.jsonl` or `.csv` file, a folder that holds exactly one, or a folder of images.
        image_root: Folder that the image paths start from; by default the folder of the file.
        check_images: Look whether the image files are there.
        read_images: Decode every image too, which takes a while.
        progress: Show a progress bar on standard error while decoding.

    Returns:
        The report; problems do not raise.

    Raises:
        DatasetError: If there is nothing to look at: no such file, an unknown kind of file, a folder without images.
        ConfigurationError: If `image_root` is given for a folder of images.
    """
    kind, source = _resolve(Path(path), "own")
    problems: list[ValidationProblem] = []
    if kind == "folder":
        _refuse_option("image_root", image_root, "a folder of images")
        rows = [_Row(None, image, (), None, None, None, None, {}) for image in find_images(source)]
    else:
        rows = _read_rows(kind, source, _image_root(source, image_root), check_images, problems)
    if read_images:
        bad = _unreadable(rows, kind, progress, problems)
        rows = [row for row in rows if row.image not in bad]
    problems.sort(key=lambda problem: problem.line or 0)
    return ValidationReport(
        path=source,
        num_records=len(rows),
        num_captions=sum(len(row.captions) for row in rows),
        num_identities=len({row.person_id for row in rows if row.person_id is not None}),
        problems=tuple(problems),
    )


def load_own_data(
    path: str | Path,
    split: str = "test",
    *,
    image_root: str | Path | None = None,
    check_images: bool = True,
    identities_from: Literal["folder"] | None = None,
) -> PersonDataset:
    """Load a user's own data: a folder of images, or a file of records.

    Args:
        path: A `.jsonl` or `.csv` file, a folder that holds exactly one, or a folder of images.
        split: `"train"`, `"val"`, `"test"`, `"query"`, `"gallery"` or `"all"`; `"test"` includes queries and gallery.
            Where no record has a `split` field, and for a folder of images, the data is not divided and every split is
            the whole of it.
        image_root: Folder that the image paths of a file start from; by default the folder of the file.
        check_images: Look whether the image files named in a file are there (those of a folder always are), and whether
            the gallery can answer any query, where there are queries with an identity.
        identities_from: `"folder"`: in a folder of images, the first sub-folder on the way to an image is its
            `person_id` (a string).

    Returns:
        The records in the order of the file, or of the paths (`2.jpg` before `10.jpg`); absolute image paths.

    Raises:
        DatasetError: With the first problem and how many more there are (`validate_records` lists them all), or if no
            query has a match in the gallery.
        ConfigurationError: For an unknown split, or an option that does not belong to this kind of data.
    """
    return load_named(
        "own", path, split, image_root=image_root, check_images=check_images, identities_from=identities_from
    )


def load_named(
    name: str,
    root: str | Path,
    split: str = "test",
    *,
    image_root: str | Path | None = None,
    check_images: bool = True,
    identities_from: Literal["folder"] | None = None,
) -> PersonDataset:
    """`load_own_data` with the kind of data given by name, for `load_dataset`.

    Args:
        name: `"folder"`, `"jsonl"`, `"csv"`, or `"own"` for whichever of them `root` is.
        root: As `path` of `load_own_data`.
        split: As there.
        image_root: As there.
        check_images: As there.
        identities_from: As there.

    Returns:
        As there; the data set carries `name`.

    Raises:
        DatasetError: As there, and if `root` is not of the kind that was named.
        ConfigurationError: As there.
    """
    if split not in (*SPLITS, "all"):
        raise ConfigurationError(f"Unknown split {split!r}; choose {', '.join(map(repr, SPLITS))} or 'all'.")
    if identities_from not in (None, "folder"):
        raise ConfigurationError(f"identities_from is {identities_from!r}; choose 'folder' or None.")
    kind, source = _resolve(Path(root), name)
    if kind == "folder":
        _refuse_option("image_root", image_root, "a folder of images")
        rows = _folder_rows(source, identities_from)
        return _dataset(rows, name, split, source)
    _refuse_option("identities_from", identities_from, "a file of records (give person_id there)")
    problems: list[ValidationProblem] = []
    rows = _read_rows(kind, source, _image_root(source, image_root), check_images, problems)
    if problems:
        first = min(problems, key=lambda problem: problem.line or 0)
        more = f" (and {len(problems) - 1} more; validate_records lists them all)" if len(problems) > 1 else ""
        raise DatasetError(f"{source}: {first}{more}.")
    if split != "all" and any(row.split is not None for row in rows):
        wanted = ("test", "query", "gallery") if split == "test" else (split,)
        chosen = [row for row in rows if row.split in wanted]
        if not chosen:
            found = Counter(row.split for row in rows)
            sizes = ", ".join(f"{name}: {found[name]}" for name in SPLITS if name in found)
            raise DatasetError(f"{source}: no record of split '{split}' ({sizes}).")
        rows = chosen
    dataset = _dataset(rows, name, split, source.parent)
    if check_images and {"query", "gallery"} <= {row.split for row in rows}:
        refuse_without_positives(dataset)
    return dataset


@dataclass(frozen=True, slots=True)
class _Row:
    """One checked record; `line` is `None` for an image of a folder."""

    line: int | None
    image: Path
    captions: tuple[str, ...]
    person_id: int | str | None
    camera_id: int | None
    view_id: int | None
    split: str | None
    metadata: Mapping[str, MetadataValue]


def _dataset(rows: Sequence[_Row], name: str, split: str, root: Path) -> PersonDataset:
    records = [
        PersonRecord(
            image_path=row.image,
            image_id=index,
            captions=row.captions,
            person_id=row.person_id,
            camera_id=row.camera_id,
            metadata={**row.metadata, **({"split": row.split} if row.split is not None else {})},
            view_id=row.view_id,
        )
        for index, row in enumerate(rows)
    ]
    return PersonDataset(records, name=name, split=split, root=root)


def _resolve(path: Path, name: str) -> tuple[str, Path]:
    """Return the kind of data, `"folder"`, `"jsonl"` or `"csv"`, and the absolute folder or file."""
    path = Path(os.path.abspath(path))
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder; give a .jsonl or .csv file, or a folder of images.")
    if name == "folder":
        return "folder", path
    kinds = [name] if name in _SUFFIXES else list(_SUFFIXES)
    endings = " or ".join(kinds)
    if not path.is_dir():
        for kind in kinds:
            if path.suffix.lower() in _SUFFIXES[kind]:
                return kind, path
        raise DatasetError(f"{path}: expected a .{endings.replace(' or ', ' or .')} file or a folder.")
    found = [
        (kind, file) for file in sorted(path.iterdir()) for kind in kinds if file.suffix.lower() in _SUFFIXES[kind]
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for _, file in found)
        raise DatasetError(f"{path}: holds more than one file of records ({names}); name the one to use.")
    if name == "own":
        return "folder", path
    raise DatasetError(f"{path}: holds no .{endings} file.")


def _refuse_option(option: str, value: object, kind: str) -> None:
    if value is not None:
        raise ConfigurationError(f"{option}={str(value)!r} does not apply to {kind}.")


def _image_root(source: Path, image_root: str | Path | None) -> Path:
    if image_root is None:
        return source.parent
    root = Path(os.path.abspath(image_root))
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder, given as image_root of {source.name}.")
    return root


def _folder_rows(folder: Path, identities_from: str | None) -> list[_Row]:
    rows = []
    for image in find_images(folder):
        inside = image.relative_to(folder).parts
        person_id = None
        if identities_from == "folder":
            if len(inside) < 2:
                raise DatasetError(
                    f"{image}: lies in no sub-folder, but identities_from='folder' takes the person_id from it; "
                    "expected <folder>/<person_id>/<image>."
                )
            person_id = inside[0]
        rows.append(_Row(None, image, (), person_id, None, None, None, {}))
    return rows


def _unreadable(rows: Sequence[_Row], kind: str, progress: bool, problems: list[ValidationProblem]) -> set[Path]:
    from tqdm.auto import tqdm

    bad: set[Path] = set()
    for row in tqdm(rows, desc="Reading images", unit="image", disable=not progress, dynamic_ncols=True):
        try:
            load_image(row.image)
        except ImageReadError as error:
            bad.add(row.image)
            problems.append(ValidationProblem(row.line, None if kind == "folder" else "image", str(error)))
    return bad


def _read_rows(
    kind: str, source: Path, image_root: Path, check_images: bool, problems: list[ValidationProblem]
) -> list[_Row]:
    """Read and check a file of records; bad records are left out of the result and appear in `problems`."""

    def report(line: int | None, field: str | None, message: str) -> None:
        problems.append(ValidationProblem(line, field, message))

    raw_records = _READERS[kind](source, report)
    if not raw_records and not problems:
        report(None, None, "holds no record")
    rows: list[_Row] = []
    line_of_image: dict[Path, int] = {}
    for raw in raw_records:
        before = len(problems)
        row = _check_record(raw, image_root, check_images, report)
        if row is not None:
            first_line = line_of_image.setdefault(row.image, raw.line)
            if first_line != raw.line:
                report(
                    raw.line, "image", f"{raw.fields['image']!r} is already on line {first_line}; one record per image"
                )
        if row is not None and len(problems) == before:
            rows.append(row)
    _check_uniform(raw_records, report)
    return rows


def _check_record(raw: RawRecord, image_root: Path, check_images: bool, report: ReportProblem) -> _Row | None:
    """Check one record, reporting all of its problems; `None` if there is no usable image path."""
    fields = dict(raw.fields)
    image = _check_image(raw.line, fields.pop("image", None), image_root, check_images, report)
    captions = _check_captions(raw.line, fields.pop("captions", []), report)

    person_id = fields.pop("person_id", None)
    if person_id is not None and not _is_identifier(person_id):
        report(raw.line, "person_id", f"is {person_id!r:.60}, expected a whole number (of 64 bits) or a text")
    camera_id = fields.pop("camera_id", None)
    view_id = fields.pop("view_id", None)
    for name, number in (("camera_id", camera_id), ("view_id", view_id)):
        if number is not None and not (_is_int64(number) and number >= 0):
            report(raw.line, name, f"is {number!r:.60}, expected a whole number from 0")
    split = fields.pop("split", None)
    if split is not None and split not in SPLITS:
        report(raw.line, "split", f"is {split!r:.60}, expected {_SPLIT_NAMES}")
    for name, value in fields.items():
        if not (
            isinstance(value, (str, bool)) or _is_int64(value) or (isinstance(value, float) and math.isfinite(value))
        ):
            report(raw.line, name, f"is {value!r:.60}, expected a text, a number (of 64 bits), true or false")
    return None if image is None else _Row(raw.line, image, captions, person_id, camera_id, view_id, split, fields)


def _check_image(line: int, value: Any, image_root: Path, check_images: bool, report: ReportProblem) -> Path | None:
    if value is None or value == "":
        report(line, "image", "is missing")
        return None
    if not isinstance(value, str) or "\0" in value:
        report(line, "image", f"is {value!r:.60}, expected a path")
        return None
    image = Path(os.path.normpath(image_root / value))
    if not image.is_relative_to(image_root):
        report(line, "image", f"{value!r:.200} lies outside {image_root}; write it relative to that folder")
        return None
    if check_images and not image.is_file():
        report(line, "image", f"{value!r:.200}: no such file in {image_root}")
    return image


def _check_captions(line: int, value: Any, report: ReportProblem) -> tuple[str, ...]:
    if not isinstance(value, list):
        report(line, "captions", f"is {value!r:.60}, expected a list of texts")
        return ()
    for position, caption in enumerate(value, 1):
        if not isinstance(caption, str):
            report(line, "captions", f"caption {position} is {caption!r:.60}, expected a text")
        elif not caption.strip():
            report(line, "captions", f"caption {position} is empty")
        elif is_empty_caption(caption):
            report(
                line, "captions", f"caption {position}, {caption!r:.60}, is empty after cleaning (no letter, no digit)"
            )
    return tuple(caption.strip() for caption in value if isinstance(caption, str))


def _check_uniform(raw_records: Sequence[RawRecord], report: ReportProblem) -> None:
    """One type per field, and a split everywhere or nowhere: else filters and comparisons would miss records."""
    first_seen: dict[str, tuple[str, int]] = {}
    for raw in raw_records:
        for name, value in raw.fields.items():
            kind = _value_kind(value)
            if kind is None or name in ("image", "captions", "camera_id", "view_id", "split"):
                continue
            if name == "person_id" and not _is_identifier(value):
                continue
            first_kind, line = first_seen.setdefault(name, (kind, raw.line))
            if kind != first_kind:
                report(raw.line, name, f"is {kind} here but {first_kind} on line {line}; use one kind throughout")
    with_split = [raw for raw in raw_records if "split" in raw.fields]
    if with_split and len(with_split) < len(raw_records):
        for raw in raw_records:
            if "split" not in raw.fields:
                report(
                    raw.line,
                    "split",
                    f"is missing, but line {with_split[0].line} has it; give it everywhere or nowhere",
                )


def _value_kind(value: object) -> str | None:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    return "a text" if isinstance(value, str) else None


def _is_int64(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in INT64


def _is_identifier(value: object) -> bool:
    return (isinstance(value, str) and value.strip() != "") or _is_int64(value)
