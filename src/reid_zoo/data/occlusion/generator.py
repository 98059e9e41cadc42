"""OGor: occluded versions of CUHK-PEDES, ICFG-PEDES and RSTPReid from a seed."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from ...errors import ConfigurationError, DatasetError
from ...validation import check_choice
from ..dataset_folders import refuse_missing_images
from ..dataset_info import dataset_info
from ..records import PersonDataset
from ..text_person_benchmarks import ANNOTATION_LAYOUTS, stream_text_person_benchmark
from .annotation_rewriting import AnnotationRecord, annotation_files, assign_splits
from .compositing import OccludedImage, draw_placement, paste_instance
from .geometry import POSITION_MODES, SIZE_MODES, Box, PositionMode, SizeMode
from .image_writing import ENCODINGS, ImageEncoding, encode_image, read_image, write_whole_file
from .instances import InstanceLibrary, pixel_hash
from .layout import PROCESSED_FOLDER, occluded_image_path
from .manifest import (
    JOURNAL_NAME,
    MANIFEST_FORMAT,
    MANIFEST_NAME,
    ManifestEntry,
    OcclusionManifest,
    encode_line,
    encode_lines,
    file_hash,
    read_manifest,
)
from .output_folder import ImageTask, claim_folder, is_finished
from .random_streams import placement_stream
from .selection import SELECTION_MODES, AnnotatedImage, SelectionMode, select_first_of_run, select_random_fraction
from .verification import OcclusionVerification, verify_manifest

__all__ = ["OcclusionGenerator", "OcclusionSummary"]

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class OcclusionSummary:
    """What one run has made.

    Attributes:
        folder: The data set's folder, to be loaded as the occluded set.
        manifest: The manifest file in it.
        images: Number of images of the set.
        occluded: How many of them have an occluder.
        written: How many of the images this run wrote; the others were there from an earlier run.
        occluded_by_split: Split → number of occluded images.
        occluded_by_class: Class of occluder → number of images.
    """

    folder: Path
    manifest: Path
    images: int
    occluded: int
    written: int
    occluded_by_split: Mapping[str, int]
    occluded_by_class: Mapping[str, int]


class OcclusionGenerator:
    """Makes the occluded version of a text-based person retrieval benchmark (OGor of MGCC).

    The same seed gives the same pixels on every machine, whatever the order and the number of workers: the draws of an
    image come from the seed and its path only. Defaults: the paper's share of 30 % with the released tool's sizes and
    positions; `selection="first_of_run"` with the other defaults reproduces the released tool, apart from its unseeded
    choice of the instance.

    Args:
        dataset: `"cuhk-pedes"`, `"icfg-pedes"` or `"rstpreid"`.
        instances: The library of occluders; the built-in one by default.
        seed: Seed of everything, not negative.
        selection: `"random_fraction"` (paper) or `"first_of_run"` (released tool).
        fraction: Share of the images of each split to occlude, or split → share (a split left out: 0);
            for `"random_fraction"` only.
        keep_clean: Leave at least one image of each identity clean; for `"random_fraction"` only.
        size: `"class_ratio"` (released tool) or `"uniform"` (paper).
        position: `"class_anchor"` (released tool), `"random_horizontal"` (the paper's text) or `"algorithm1"` (its
            Algorithm 1, which draws again until the occluder lies inside).
        encoding: `"released"`: every image is encoded again, JPEG with quality 75. `"high_quality"`: images without
            occluder are copied byte for byte, the others saved as JPEG of quality 95.
        drop_single_image_ids: CUHK-PEDES: leave identities 1369, 4116 and 6116 out of the files below `processed_data/`
            and close the gaps, as the released code does. Their images are written all the same.
        icfg_test_limit: ICFG-PEDES: in `processed_data/`, test records after this many become val (released code:
            10000). It changes no image.

    Raises:
        ConfigurationError: For an unknown or inconsistent option; the message names it.
    """

    def __init__(
        self,
        dataset: str,
        instances: InstanceLibrary | None = None,
        *,
        seed: int = 0,
        selection: SelectionMode = "random_fraction",
        fraction: float | Mapping[str, float] = 0.3,
        keep_clean: bool = False,
        size: SizeMode = "class_ratio",
        position: PositionMode = "class_anchor",
        encoding: ImageEncoding = "released",
        drop_single_image_ids: bool = True,
        icfg_test_limit: int | None = None,
    ) -> None:
        check_choice("occlusion", "dataset", dataset, ANNOTATION_LAYOUTS)
        check_choice("occlusion", "selection", selection, SELECTION_MODES)
        check_choice("occlusion", "size", size, SIZE_MODES)
        check_choice("occlusion", "position", position, POSITION_MODES)
        check_choice("occlusion", "encoding", encoding, ENCODINGS)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ConfigurationError(f"occlusion.seed is {seed!r}, but must be a whole number from 0.")
        assign_splits(dataset, [], icfg_test_limit)
        self.dataset = dataset
        self.instances = InstanceLibrary.procedural() if instances is None else instances
        self.seed = seed
        self.selection: SelectionMode = selection
        self.fractions = _check_fractions(fraction)
        self.keep_clean = keep_clean
        self.size: SizeMode = size
        self.position: PositionMode = position
        self.encoding: ImageEncoding = encoding
        self.drop_single_image_ids = drop_single_image_ids
        self.icfg_test_limit = icfg_test_limit
        if selection == "first_of_run" and keep_clean:
            raise ConfigurationError("occlusion.keep_clean works with selection='random_fraction' only.")

    @property
    def options(self) -> dict[str, Any]:
        """The options as the manifest holds them."""
        drawn = self.selection == "random_fraction"
        return {
            "selection": self.selection,
            "fraction": dict(self.fractions) if drawn else None,
            "keep_clean": self.keep_clean,
            "size": self.size,
            "position": self.position,
            "encoding": self.encoding,
            "drop_single_image_ids": self.drop_single_image_ids,
            "icfg_test_limit": self.icfg_test_limit,
        }

    # --- in memory ---------------------------------------------------------------------------------------------------

    def select(self, records: Iterable[AnnotatedImage]) -> set[str]:
        """Which images are occluded.

        Args:
            records: All records of the data set, in file order.

        Returns:
            Paths of the images. Where several records name an image, `"first_of_run"` follows the last of them, since
            the released tool writes it once for each.
        """
        records = list(records)
        if self.selection == "random_fraction":
            return select_random_fraction(records, self.fractions, self.seed, keep_clean=self.keep_clean)
        flags = select_first_of_run(records)
        return {path for path, flag in {r.path: flag for r, flag in zip(records, flags, strict=True)}.items() if flag}

    def occlude(self, image: Image.Image, path: str) -> OccludedImage:
        """Put the occluder of one image in front of it, in memory.

        Args:
            image: The holistic image.
            path: Its path below `imgs/`, with forward slashes: decides, with the seed, what is pasted where.
        """
        rng = placement_stream(self.seed, path)
        instance, box = draw_placement(image.size, rng, self.instances, size=self.size, position=self.position)
        return paste_instance(image, instance, box)

    # --- a whole data set --------------------------------------------------------------------------------------------

    def generate(
        self, data_root: str | Path, output: str | Path, *, num_workers: int = 1, progress: bool = False
    ) -> OcclusionSummary:
        """Write the occluded version of a data set.

        The work can be killed at any time and started again: finished images are kept, half-written files never count.
        The result lies in `<output>/Occluded-CUHK-PEDES/` (`Occluded-ICFG-PEDES/`, …): every image, occluded or not, in the
        folders that `occluded_image_path` names, a copy of the annotation file, `processed_data/` and
        `occlusion_manifest.jsonl`. With `output` the same folder as `data_root`, everything is put beside the holistic
        images, as the released tool does.

        Args:
            data_root: The folder that contains `CUHK-PEDES/` (…), or that folder itself.
            output: Folder to write into, made if missing.
            num_workers: Number of threads; changes nothing but the time.
            progress: Show a progress bar on stderr.

        Raises:
            DatasetError: If the data set is not as it should be (see `load_dataset`), or if the output
                folder holds something that was not made here, or made with other options.
            ImageReadError: If an image cannot be decoded.
            ConfigurationError: If `num_workers` is below 1.
        """
        records, annotation = self._read(data_root)
        return self._write(records, annotation, self._plan(records), data_root, output, num_workers, progress)

    @classmethod
    def rebuild(
        cls,
        manifest: str | Path,
        data_root: str | Path,
        output: str | Path,
        instances: InstanceLibrary | None = None,
        *,
        num_workers: int = 1,
        progress: bool = False,
    ) -> OcclusionSummary:
        """Write an occluded set again from its manifest: the recorded instances into the recorded boxes.

        Args:
            manifest: The manifest, or the folder that holds it.
            data_root: As in `generate`.
            output: As in `generate`.
            instances: The library that the set was made with; the built-in one by default.
            num_workers: As in `generate`.
            progress: As in `generate`.

        Raises:
            DatasetError: As in `generate`; also if the data set, an image or an instance is not the recorded one, or
                if the pixels do not come out as recorded.
        """
        wanted = read_manifest(manifest)
        generator = cls._from_header(wanted, instances)
        records, annotation = generator._read(data_root)
        if file_hash(annotation) != wanted.header.get("annotation", {}).get("sha256"):
            raise DatasetError(f"{annotation}: is not the annotation file that the manifest was made with.")
        plan = generator._plan(records, wanted)
        return generator._write(records, annotation, plan, data_root, output, num_workers, progress)

    @staticmethod
    def verify(
        manifest: str | Path, data_root: str | Path | None = None, instances: InstanceLibrary | None = None
    ) -> OcclusionVerification:
        """Compare an occluded set with its manifest.

        Args:
            manifest: The manifest, or the folder that holds it; the images lie beside it.
            data_root: The holistic set. If given, its files are compared too, and every image is composed again.
            instances: The library the set was made with, for composing; the built-in one by default.

        Returns:
            What is missing, changed or left over; `ok` if nothing is.

        Raises:
            DatasetError: If the manifest cannot be read.
        """
        return verify_manifest(read_manifest(manifest), data_root, instances)

    @classmethod
    def _from_header(cls, manifest: OcclusionManifest, instances: InstanceLibrary | None) -> OcclusionGenerator:
        header = manifest.header
        try:
            options = dict(header["options"])
            if options["fraction"] is None:
                del options["fraction"]
            generator = cls(header["dataset"], instances, seed=header["seed"], **options)
            recorded = dict(header["library"]["instances"])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{manifest.folder / MANIFEST_NAME}: its header cannot be used ({type(error).__name__}: {error})."
            ) from None
        actual = generator.instances.hashes()
        for name, sha256 in recorded.items():
            if actual.get(name) != sha256:
                raise DatasetError(
                    f"The manifest was made with another {name} than this library has; give the library it was made with."
                )
        return generator

    def _read(self, data_root: str | Path) -> tuple[PersonDataset, Path]:
        """All records, and the annotation file that they come from."""
        stream = stream_text_person_benchmark(self.dataset, data_root, "all")
        records = stream.collect()
        refuse_missing_images(records, stream.source)
        return records, stream.source

    # --- planning ----------------------------------------------------------------------------------------------------

    def _plan(self, records: PersonDataset, wanted: OcclusionManifest | None = None) -> list[ImageTask]:
        images = records.root / "imgs"
        paths = [record.image_path.relative_to(images).as_posix() for record in records]
        splits = [str(record.metadata["split"]) for record in records]
        recorded = {entry.image: entry for entry in wanted.entries} if wanted else None
        chosen: set[str] = set()
        if recorded is None:
            people = [int(record.person_id or 0) for record in records]
            chosen = self.select(map(AnnotatedImage, paths, splits, people))
        tasks: dict[str, ImageTask] = {}
        for path, split in zip(paths, splits, strict=True):
            if path in tasks:
                continue
            name = f"imgs/{path}"
            entry = None
            if recorded is not None:
                entry = recorded.get(name)
                if entry is None:
                    raise DatasetError(
                        f"{records.root}: {name} is not in the manifest; it belongs to another data set."
                    )
            is_occluded = path in chosen if entry is None else entry.instance is not None
            tasks[path] = ImageTask(
                name, images / path, occluded_image_path(self.dataset, name), split, is_occluded, entry
            )
        if recorded is not None and len(recorded) != len(tasks):
            raise DatasetError(f"{records.root}: has {len(tasks)} images, the manifest {len(recorded)}.")
        return list(tasks.values())

    # --- writing -----------------------------------------------------------------------------------------------------

    def _write(
        self,
        records: PersonDataset,
        annotation: Path,
        tasks: list[ImageTask],
        data_root: str | Path,
        output: str | Path,
        num_workers: int,
        progress: bool,
    ) -> OcclusionSummary:
        if num_workers < 1:
            raise ConfigurationError(f"num_workers is {num_workers}, but must be at least 1.")
        places = {os.path.realpath(data_root), os.path.realpath(records.root)}
        in_place = os.path.realpath(output) in places
        folder = (
            records.root
            if in_place
            else Path(os.path.abspath(output)) / dataset_info(f"occluded-{self.dataset}").folders[0]
        )
        header = {
            "format": MANIFEST_FORMAT,
            "dataset": self.dataset,
            "seed": self.seed,
            "options": self.options,
            "annotation": {"file": annotation.name, "sha256": file_hash(annotation)},
            "library": {"source": self.instances.source, "instances": self.instances.hashes()},
        }
        done = claim_folder(folder, header, in_place=in_place)
        kept = {task.output: done[task.output] for task in tasks if is_finished(folder, task, done)}
        journal = folder / JOURNAL_NAME
        write_whole_file(journal, encode_lines(header, kept.values()))
        entries = dict(kept)
        missing = [task for task in tasks if task.output not in kept]
        with (
            journal.open("ab") as lines,
            tqdm(total=len(tasks), initial=len(kept), desc="occluding", unit="image", disable=not progress) as bar,
        ):
            for entry in _run(lambda task: self._make(folder, task), missing, num_workers):
                entries[entry.output] = entry
                lines.write(encode_line(entry))
                lines.flush()
                bar.update()
        files = self._write_annotations(records, annotation, folder, in_place=in_place)
        occluded = [task for task in tasks if task.occluded]
        header |= {"files": files, "images": len(tasks), "occluded": len(occluded)}
        ordered = [entries[task.output] for task in tasks]
        write_whole_file(folder / MANIFEST_NAME, encode_lines(header, ordered))
        journal.unlink()
        return OcclusionSummary(
            folder=folder,
            manifest=folder / MANIFEST_NAME,
            images=len(tasks),
            occluded=len(occluded),
            written=len(missing),
            occluded_by_split=dict(Counter(task.split for task in occluded)),
            occluded_by_class=dict(
                sorted(Counter(self.instances[e.instance].class_name for e in ordered if e.instance).items())
            ),
        )

    def _make(self, folder: Path, task: ImageTask) -> ManifestEntry:
        """Write one image; runs in a worker thread."""
        try:
            content = task.source.read_bytes()
        except OSError as error:
            raise DatasetError(f"{task.source}: cannot be read ({error.strerror}).") from None
        source_sha256 = hashlib.sha256(content).hexdigest()
        if task.recorded is not None and task.recorded.source_sha256 != source_sha256:
            raise DatasetError(f"{task.source}: is not the file that the manifest was made with.")
        pasted: OccludedImage | None = None
        pixels_sha256: str | None = None
        if task.occluded or self.encoding == "released":
            image = read_image(task.source)
            if task.occluded:
                pasted = self._paste(image, task)
                image = pasted.image
            pixels_sha256 = pixel_hash(image)
            if task.recorded is not None and task.recorded.pixels_sha256 != pixels_sha256:
                raise DatasetError(f"{task.image}: the pixels do not come out as the manifest records them.")
            content = encode_image(image, task.output, self.encoding)
        write_whole_file(folder / task.output, content)
        return ManifestEntry(
            image=task.image,
            output=task.output,
            instance=pasted.instance.name if pasted else None,
            instance_sha256=pasted.instance.sha256 if pasted else None,
            box=pasted.box if pasted else None,
            visible_box=pasted.visible_box if pasted else None,
            visible_fraction=pasted.visible_fraction if pasted else 1.0,
            source_sha256=source_sha256,
            output_sha256=hashlib.sha256(content).hexdigest(),
            pixels_sha256=pixels_sha256,
        )

    def _paste(self, image: Image.Image, task: ImageTask) -> OccludedImage:
        recorded: tuple[str, Box] | None = None
        if task.recorded is not None and task.recorded.instance is not None and task.recorded.box is not None:
            recorded = task.recorded.instance, task.recorded.box
        if recorded is None:
            return self.occlude(image, task.image.removeprefix("imgs/"))
        return paste_instance(image, self.instances[recorded[0]], recorded[1])

    def _write_annotations(
        self, records: PersonDataset, annotation: Path, folder: Path, *, in_place: bool
    ) -> dict[str, str]:
        """Write the annotation files; returns path → hash."""
        rows = [
            AnnotationRecord(
                path=record.image_path.relative_to(records.root / "imgs").as_posix(),
                split=str(record.metadata["split"]),
                person_id=int(record.person_id or 0),
                captions=record.captions,
            )
            for record in records
        ]
        contents = {
            f"{PROCESSED_FOLDER}/{name}": content
            for name, content in annotation_files(
                self.dataset,
                rows,
                drop_single_image_ids=self.drop_single_image_ids,
                icfg_test_limit=self.icfg_test_limit,
            ).items()
        }
        if not in_place:
            contents[annotation.name] = annotation.read_bytes()
        for name, content in contents.items():
            write_whole_file(folder / name, content)
        return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _check_fractions(fraction: float | Mapping[str, float]) -> dict[str, float]:
    given = dict(fraction) if isinstance(fraction, Mapping) else dict.fromkeys(_SPLITS, fraction)
    for split, share in given.items():
        check_choice("occlusion", "fraction (split)", split, _SPLITS)
        is_number = isinstance(share, int | float) and not isinstance(share, bool)
        if not is_number or not math.isfinite(share) or not 0 <= share <= 1:
            raise ConfigurationError(f"occlusion.fraction is {share!r} for {split}, but must be between 0 and 1.")
    return {split: float(given.get(split, 0)) for split in _SPLITS}


def _run(
    make: Callable[[ImageTask], ManifestEntry], tasks: list[ImageTask], num_workers: int
) -> Iterator[ManifestEntry]:
    """The entries of all tasks in the order in which they are finished."""
    if num_workers == 1:
        yield from map(make, tasks)
        return
    with ThreadPoolExecutor(num_workers) as pool:
        pending: set[Future[ManifestEntry]] = set()
        try:
            for task in tasks:
                pending.add(pool.submit(make, task))
                if len(pending) >= 4 * num_workers:
                    finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in finished)
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
