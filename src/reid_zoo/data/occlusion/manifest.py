"""The manifest of an occluded set: what was pasted where, with hashes to rebuild and verify it by.

A manifest is a JSONL file. Its first line is the header (data set, seed, options, hashes of annotation file and
instances), every other line one image. While a set is being made, the lines of finished images are appended to a journal
beside it, in the order in which they are finished; a line cut off by a killed process is passed over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import DatasetError
from .geometry import Box

__all__ = [
    "JOURNAL_NAME",
    "MANIFEST_FORMAT",
    "MANIFEST_NAME",
    "ManifestEntry",
    "OcclusionManifest",
    "encode_line",
    "encode_lines",
    "file_hash",
    "read_lines",
    "read_manifest",
]

MANIFEST_NAME = "occlusion_manifest.jsonl"
JOURNAL_NAME = "occlusion_manifest.unfinished.jsonl"
MANIFEST_FORMAT = "reid_zoo occlusion manifest 1"


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One image. Paths are relative to the data set's folder, with forward slashes; hashes are SHA-256.

    Attributes:
        image: The holistic image.
        output: The image that was written.
        instance: Name of what was pasted, `None` for an image without occluder.
        instance_sha256: `pixel_hash` of the cut-out.
        box: Where it was pasted (left, top, right, bottom), before clipping.
        visible_box: The part of the box inside the image.
        visible_fraction: Share of the image that can still be seen, 1 without occluder.
        source_sha256: Hash of the holistic file.
        output_sha256: Hash of the written file.
        pixels_sha256: `pixel_hash` of the picture before it was encoded, the same on every machine that decodes the
            source alike; `None` for a file that was copied byte for byte.
    """

    image: str
    output: str
    instance: str | None
    instance_sha256: str | None
    box: Box | None
    visible_box: Box | None
    visible_fraction: float
    source_sha256: str
    output_sha256: str
    pixels_sha256: str | None

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> ManifestEntry:
        """An entry of the fields of one line; raises TypeError, ValueError or KeyError if they do not fit."""
        plain = {name: values[name] for name in (entry_field.name for entry_field in fields(cls))}
        for name in ("box", "visible_box"):
            if plain[name] is not None:
                left, top, right, bottom = plain[name]
                if not all(type(value) is int for value in (left, top, right, bottom)) or right < left or bottom < top:
                    raise ValueError(f"{name} is {plain[name]}")
                plain[name] = left, top, right, bottom
        texts = ("image", "output", "source_sha256", "output_sha256")
        if not all(isinstance(plain[name], str) for name in texts) or (plain["instance"] is None) != (
            plain["box"] is None
        ):
            raise ValueError("a field has the wrong type")
        if any(part in ("", "..", ".") or "\\" in part for name in texts[:2] for part in plain[name].split("/")):
            raise ValueError("a path leaves the folder")
        return cls(**plain)


@dataclass(frozen=True, slots=True)
class OcclusionManifest:
    """A whole manifest.

    Attributes:
        folder: The data set's folder, which holds the manifest.
        header: `format`, `dataset`, `seed`, `options`, `annotation`, `library`; when finished also `files` (hashes of
            the annotation files written) and `images`, `occluded` (counts).
        entries: One per image, in the order of the annotation file.
    """

    folder: Path
    header: dict[str, Any]
    entries: tuple[ManifestEntry, ...]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encode_line(entry: ManifestEntry) -> bytes:
    """The line of one image, with its line break."""
    return _encode(asdict(entry))


def encode_lines(header: Mapping[str, Any], entries: Iterable[ManifestEntry]) -> bytes:
    """A whole manifest, or the beginning of a journal."""
    return _encode(header) + b"".join(map(encode_line, entries))


def _encode(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode("ascii") + b"\n"


def read_lines(path: Path, *, allow_cut: bool = False) -> OcclusionManifest:
    """Read a manifest, or the journal of one.

    Args:
        path: The file.
        allow_cut: Pass over a last line without line break.

    Raises:
        DatasetError: If the file cannot be read or is not a manifest; names the line.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}).") from None
    if lines.pop() and not allow_cut:
        raise DatasetError(f"{path}: line {len(lines) + 1} is cut off; the manifest is damaged.")
    header: dict[str, Any] = {}
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            if number > 1:
                entries.append(ManifestEntry.from_fields(values))
            elif values["format"] == MANIFEST_FORMAT:
                header = values
            else:
                raise ValueError(f"format {values['format']!r} is not {MANIFEST_FORMAT!r}")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise DatasetError(f"{path}: line {number} is not one of an occlusion manifest ({reason}).") from None
    if not header:
        raise DatasetError(f"{path}: is empty, not an occlusion manifest.")
    return OcclusionManifest(path.parent, header, tuple(entries))


def read_manifest(path: str | Path) -> OcclusionManifest:
    """Read the manifest of a finished set.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        DatasetError: If there is none, the set is not finished, or the file is damaged.
    """
    file = Path(path)
    if file.is_dir():
        if (file / JOURNAL_NAME).exists() and not (file / MANIFEST_NAME).exists():
            raise DatasetError(f"{file}: this occluded set is not finished; run the command that makes it again.")
        file = file / MANIFEST_NAME
    if not file.is_file():
        raise DatasetError(f"{file}: no such file; give a manifest, or the folder of an occluded set.")
    manifest = read_lines(file)
    counted = manifest.header.get("images")
    if counted != len(manifest.entries):
        raise DatasetError(f"{file}: holds {len(manifest.entries)} images, its header says {counted}; it is damaged.")
    return manifest
