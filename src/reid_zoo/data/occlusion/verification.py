"""Comparing an occluded set with its manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...errors import DatasetError, ReIDZooError
from ..dataset_info import dataset_info
from .compositing import paste_instance
from .image_writing import read_image
from .instances import InstanceLibrary, pixel_hash
from .layout import OCCLUDED_SUFFIX
from .manifest import ManifestEntry, OcclusionManifest, file_hash

__all__ = ["OcclusionVerification", "verify_manifest"]


@dataclass(slots=True)
class OcclusionVerification:
    """How an occluded set differs from its manifest; all paths are relative to the data set's folder.

    Attributes:
        images: Number of images in the manifest.
        missing: Files that are not there.
        changed: Files whose bytes are not the recorded ones.
        left_over: Files in the folders of occluded images that the manifest does not know.
        changed_sources: Holistic files that are missing or not the recorded ones.
        changed_instances: Names of cut-outs that are missing in the library or not the recorded ones.
        not_reproduced: Images whose pixels do not come out as recorded when they are composed again.
    """

    images: int
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    changed_sources: list[str] = field(default_factory=list)
    changed_instances: list[str] = field(default_factory=list)
    not_reproduced: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """One line per difference."""
        kinds = {
            "missing": self.missing,
            "changed": self.changed,
            "not in the manifest": self.left_over,
            "holistic image missing or changed": self.changed_sources,
            "occluder missing or changed": self.changed_instances,
            "pixels not reproduced": self.not_reproduced,
        }
        return [f"{kind}: {name}" for kind, names in kinds.items() for name in names]

    @property
    def ok(self) -> bool:
        """Whether everything is as recorded."""
        return not self.problems


def verify_manifest(
    manifest: OcclusionManifest, data_root: str | Path | None, instances: InstanceLibrary | None
) -> OcclusionVerification:
    """See `OcclusionGenerator.verify`.

    Raises:
        DatasetError: If the header lacks a field, or `data_root` does not hold the data set.
    """
    result = OcclusionVerification(len(manifest.entries))
    try:
        files = dict(manifest.header["files"])
        dataset, annotation = manifest.header["dataset"], manifest.header["annotation"]
        recorded_instances = dict(manifest.header["library"]["instances"])
        files |= {entry.output: entry.output_sha256 for entry in manifest.entries}
        annotation_name, annotation_sha256 = annotation["file"], annotation["sha256"]
        folder_name = dataset_info(dataset).folders[0]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{manifest.folder}: the manifest's header cannot be used ({error!r}).") from None
    for name, sha256 in files.items():
        _compare(manifest.folder / name, name, sha256, result.missing, result.changed)
    result.left_over = _left_over(manifest)
    if data_root is not None:
        base = Path(data_root) / folder_name
        base = base if base.is_dir() else Path(data_root)
        if not (base / annotation_name).is_file():
            raise DatasetError(f"{base / annotation_name}: no such file; give the folder of the holistic data set.")
        _compare(base / annotation_name, annotation_name, annotation_sha256, *[result.changed_sources] * 2)
        library = InstanceLibrary.procedural() if instances is None else instances
        available = library.hashes()
        result.changed_instances = [
            name for name, sha256 in recorded_instances.items() if available.get(name) != sha256
        ]
        for entry in manifest.entries:
            _compare_sources(base, entry, result, library)
    return result


def _compare(path: Path, name: str, sha256: str, missing: list[str], changed: list[str]) -> bool:
    if not path.is_file():
        missing.append(name)
    elif file_hash(path) != sha256:
        changed.append(name)
    else:
        return True
    return False


def _left_over(manifest: OcclusionManifest) -> list[str]:
    known = {entry.output for entry in manifest.entries}
    folders = set()
    for name in known:
        parts = name.split("/")
        depth = next((place for place, part in enumerate(parts, 1) if part.endswith(OCCLUDED_SUFFIX)), len(parts) - 1)
        folders.add("/".join(parts[:depth]))
    found = set()
    for folder in folders:
        here = manifest.folder / folder
        found |= {path.relative_to(manifest.folder).as_posix() for path in here.rglob("*") if path.is_file()}
    return sorted(found - known)


def _compare_sources(base: Path, entry: ManifestEntry, result: OcclusionVerification, library: InstanceLibrary) -> None:
    lists = [result.changed_sources] * 2
    if not _compare(base / entry.image, entry.image, entry.source_sha256, *lists) or entry.pixels_sha256 is None:
        return
    if entry.instance in result.changed_instances:
        return
    try:
        image = read_image(base / entry.image)
        if entry.instance is not None and entry.box is not None:
            image = paste_instance(image, library[entry.instance], entry.box).image
        is_same = pixel_hash(image) == entry.pixels_sha256
    except ReIDZooError:
        is_same = False
    if not is_same:
        result.not_reproduced.append(entry.output)
