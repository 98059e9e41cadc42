"""One stream of random draws per image and purpose, from the seed and the image's path only.

So the draws of an image depend neither on the order of the images, nor on the number of workers, nor on what else is in
the data set.
"""

from __future__ import annotations

import hashlib

from ..synthetic.randomness import RandomStream

__all__ = ["placement_stream", "selection_draw"]

_SELECTION, _PLACEMENT = range(2)


def _path_key(path: str) -> int:
    return int.from_bytes(hashlib.sha256(path.encode("utf-8")).digest()[:16], "big")


def selection_draw(seed: int, path: str) -> float:
    """A number in [0, 1) that decides whether an image is occluded.

    Args:
        seed: Seed of the occluded set, not negative.
        path: Path of the image as the annotation file gives it, with forward slashes.
    """
    stream = RandomStream(seed, _SELECTION, _path_key(path))
    return (stream.below(2**32) + stream.below(2**20) / 2**20) / 2**32


def placement_stream(seed: int, path: str) -> RandomStream:
    """The draws of what is pasted where; arguments as in `selection_draw`."""
    return RandomStream(seed, _PLACEMENT, _path_key(path))
