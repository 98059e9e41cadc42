"""Which images of a data set are occluded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .random_streams import selection_draw

__all__ = ["SELECTION_MODES", "AnnotatedImage", "SelectionMode", "select_first_of_run", "select_random_fraction"]

SelectionMode = Literal["random_fraction", "first_of_run"]
SELECTION_MODES: tuple[SelectionMode, ...] = ("random_fraction", "first_of_run")


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """What the selection looks at: one record of the annotation file.

    Attributes:
        path: Path below `imgs/`, with forward slashes.
        split: `"train"`, `"val"` or `"test"`.
        person_id: Identity as the file gives it.
    """

    path: str
    split: str
    person_id: int


def select_first_of_run(records: Sequence[AnnotatedImage]) -> list[bool]:
    """The released tool's rule: a record is occluded if its identity is not the one of the record before it.

    Args:
        records: All records of all splits, in file order.

    Returns:
        One flag per record.
    """
    before = [None, *(record.person_id for record in records)]
    return [record.person_id != previous for record, previous in zip(records, before, strict=False)]


def select_random_fraction(
    records: Sequence[AnnotatedImage], fractions: Mapping[str, float], seed: int, *, keep_clean: bool = False
) -> set[str]:
    """The paper's rule: a share of the images of each split, drawn at random.

    The images are ranked by a draw of their own and the first ones taken, so a larger share of the same seed contains a
    smaller one (without `keep_clean`), and the order of the records does not matter.

    Args:
        records: All records of all splits. An image that several records name counts once, in the split of the first.
        fractions: Split → share in [0, 1]; the number of images is rounded half up.
        seed: Seed of the occluded set.
        keep_clean: Leave at least one image of each identity and split clean, which can make the share smaller.

    Returns:
        Paths of the images to occlude.
    """
    images: dict[str, AnnotatedImage] = {}
    for record in records:
        images.setdefault(record.path, record)
    chosen: set[str] = set()
    for split, fraction in fractions.items():
        members = [image for image in images.values() if image.split == split]
        wanted = math.floor(fraction * len(members) + 0.5)
        clean = Counter(image.person_id for image in members)
        for image in sorted(members, key=lambda member: (selection_draw(seed, member.path), member.path)):
            if wanted == 0:
                break
            if keep_clean and clean[image.person_id] == 1:
                continue
            clean[image.person_id] -= 1
            wanted -= 1
            chosen.add(image.path)
    return chosen
