"""A set of queries and a gallery for image-to-image tests, made of a set with captions."""

from __future__ import annotations

from dataclasses import replace

from reid_zoo.data.records import PersonDataset


def divided(people: PersonDataset, cameras: bool = True) -> PersonDataset:
    """The same images as queries and a gallery, two cameras."""
    records = [
        replace(
            record,
            captions=(),
            camera_id=index % 2 if cameras else None,
            metadata={"split": "query" if index % 3 == 0 else "gallery"},
        )
        for index, record in enumerate(people)
    ]
    return PersonDataset(records, name="drawn", split="test", root=people.root)
