"""The typed records that every loader yields and everything downstream reads.

One `PersonRecord` is one annotated image (one row of an annotation file). A `RecordStream` reads them one after the
other; a `PersonDataset` is an ordered, immutable list of them for one split. File order is kept because it fixes the
order of galleries, queries and ties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

from ..errors import DatasetError

__all__ = ["SPLITS", "CaptionedImage", "MetadataValue", "PersonDataset", "PersonRecord", "RecordStream"]

MetadataValue = str | int | float | bool

SPLITS = ("train", "val", "test", "query", "gallery")
"""Names a record's `split` may have. Image-to-image sets divide their test part into `query` and `gallery`."""


@dataclass(frozen=True, slots=True)
class PersonRecord:
    """One image of one person.

    Attributes:
        image_path: Absolute path of the image file.
        image_id: Running index of the record inside its split; all captions of an image share it.
        captions: Sentences that describe the image; may be empty for image-only data, may have more than two.
        person_id: Identity as the annotation file gives it (not relabelled), `None` where unknown.
        camera_id: Camera, 0-based for the benchmarks, `None` where unknown.
        view_id: Viewpoint class (VeRi-776: 0...7; 0 throughout for sets with one view), `None` where unknown.
        metadata: Further scalar fields of the record, for filters in a gallery.
    """

    image_path: Path
    image_id: int
    captions: tuple[str, ...] = ()
    person_id: int | str | None = None
    camera_id: int | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    view_id: int | None = None


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One (image, caption) pair: an item of training, or one text query of an evaluation."""

    record: PersonRecord
    caption: str


class PersonDataset(Sequence[PersonRecord]):
    """The records of one split of one data set, in file order.

    Args:
        records: The records.
        name: Name of the data set, e.g. `"cuhk-pedes"`.
        split: `"train"`, `"val"`, `"test"`, `"query"`, `"gallery"` or `"all"`. Of an image-to-image set, `"test"` holds
            the queries and then the gallery; the `split` in each record's metadata says which.
        root: Folder the data set was read from.
        variant: What differs from the published protocol, e.g. `"icfg_test_limit=10000"`; empty if nothing does.
    """

    def __init__(
        self, records: Sequence[PersonRecord], *, name: str, split: str, root: Path, variant: str = ""
    ) -> None:
        self.records = tuple(records)
        self.name = name
        self.split = split
        self.root = root
        self.variant = variant

    @property
    def label(self) -> str:
        """The name to print beside a result: with the variant, because such figures compare with no others."""
        return f"{self.name} [{self.variant}]" if self.variant else self.name

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> PersonRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PersonRecord]: ...
    def __getitem__(self, index: int | slice) -> PersonRecord | Sequence[PersonRecord]:
        return self.records[index]

    def __iter__(self) -> Iterator[PersonRecord]:
        return iter(self.records)

    def __repr__(self) -> str:
        return (
            f"PersonDataset(name={self.label!r}, split={self.split!r}, images={len(self)}, "
            f"captions={sum(len(record.captions) for record in self)}, identities={len(self.person_ids)})"
        )

    @property
    def person_ids(self) -> list[int | str]:
        """Distinct identities in ascending order (numbers before strings)."""
        distinct = {record.person_id for record in self.records if record.person_id is not None}
        return sorted(distinct, key=lambda value: (isinstance(value, str), value))

    def captioned_images(self) -> list[CaptionedImage]:
        """One item per (image, caption) pair, records in file order and captions in record order."""
        return [CaptionedImage(record, caption) for record in self.records for caption in record.captions]

    def part(self, split: str) -> PersonDataset:
        """The records of one split of a set that holds several, e.g. `"query"` of an image-to-image `"test"`.

        Args:
            split: The `split` that the records' metadata must name.

        Returns:
            Those records in their order, numbered anew from 0.

        Raises:
            DatasetError: If no record is of that split.
        """
        chosen = [record for record in self.records if record.metadata.get("split", self.split) == split]
        if not chosen:
            raise DatasetError(f"{self.label} ({self.split}): no record of split {split!r}, in {self.root}.")
        return PersonDataset(
            [replace(record, image_id=index) for index, record in enumerate(chosen)],
            name=self.name,
            split=split,
            root=self.root,
            variant=self.variant,
        )

    def person_labels(self) -> dict[int | str, int]:
        """Identity → contiguous training label 0…N-1, identities in ascending order.

        Raises:
            DatasetError: If a record has no identity.
        """
        for record in self.records:
            if record.person_id is None:
                raise DatasetError(
                    f"{self.name} ({self.split}): {record.image_path} has no person_id, but identity labels are needed; "
                    "add the field to every record."
                )
        return {person_id: label for label, person_id in enumerate(self.person_ids)}

    def to_hugging_face(self) -> Any:
        """The records as a `datasets.Dataset`; see `reid_zoo.data.to_hugging_face`."""
        from .hugging_face import to_hugging_face

        return to_hugging_face(self)

    @classmethod
    def from_hugging_face(cls, dataset: Any, **options: Any) -> PersonDataset:
        """The rows of a `datasets.Dataset` as records; options and errors as `reid_zoo.data.from_hugging_face`."""
        from .hugging_face import from_hugging_face

        return from_hugging_face(dataset, **options)


@dataclass(frozen=True, slots=True)
class RecordStream(Iterable[PersonRecord]):
    """One split of a data set, read record by record; can be iterated any number of times.

    The folder layout was checked when the stream was made. A bad record raises `DatasetError` when it is reached.

    Attributes:
        name: Name of the data set.
        split: As in `PersonDataset`.
        root: Folder the data set is read from.
        source: The file (or folder) that names the images, for messages.
        produce: Starts reading: a fresh iterator of records.
        variant: As in `PersonDataset`.
    """

    name: str
    split: str
    root: Path
    source: Path
    produce: Callable[[], Iterator[PersonRecord]]
    variant: str = ""

    def __iter__(self) -> Iterator[PersonRecord]:
        return self.produce()

    def collect(self) -> PersonDataset:
        """Read everything into a `PersonDataset`."""
        return PersonDataset(list(self), name=self.name, split=self.split, root=self.root, variant=self.variant)
