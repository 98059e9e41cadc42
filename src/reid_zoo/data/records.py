"""The typed records that every loader yields and everything downstream reads.

One `PersonRecord` is one annotated image (one row of an annotation file). A `PersonDataset` is an ordered, immutable
list of them for one split; file order is kept because it fixes the order of galleries, queries and ties.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from ..errors import DatasetError

__all__ = ["CaptionedImage", "MetadataValue", "PersonDataset", "PersonRecord"]

MetadataValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class PersonRecord:
    """One image of one person.

    Attributes:
        image_path: Absolute path of the image file.
        image_id: Running index of the record inside its split; all captions of an image share it.
        captions: Sentences that describe the image; may be empty for image-only data, may have more than two.
        person_id: Identity as the annotation file gives it (not relabelled), `None` where unknown.
        camera_id: Camera, 0-based for the benchmarks, `None` where unknown.
        metadata: Further scalar fields of the record, for filters in a gallery.
    """

    image_path: Path
    image_id: int
    captions: tuple[str, ...] = ()
    person_id: int | str | None = None
    camera_id: int | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


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
        split: `"train"`, `"val"`, `"test"` or `"all"`.
        root: Folder the data set was read from.
    """

    def __init__(self, records: Sequence[PersonRecord], *, name: str, split: str, root: Path) -> None:
        self.records = tuple(records)
        self.name = name
        self.split = split
        self.root = root

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
            f"PersonDataset(name={self.name!r}, split={self.split!r}, images={len(self)}, "
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
