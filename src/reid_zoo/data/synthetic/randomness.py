"""Random draws whose values never change: not with the machine, and not with the release of numpy.

numpy promises a fixed stream for its bit generators and `SeedSequence`, but not for the methods of `Generator`
(NEP 19), so every draw here is made from raw 64-bit words with integer arithmetic only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

__all__ = ["RandomStream"]

T = TypeVar("T")

_BLOCK = 32


class RandomStream:
    """An independent stream of integer draws for one purpose.

    Args:
        seed: Seed of the whole data set, not negative.
        key: Numbers that name the purpose (kind of draw, identity, image …). Different keys give independent streams.
    """

    def __init__(self, seed: int, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key))
        self._words: list[int] = []

    def below(self, bound: int) -> int:
        """A whole number in `[0, bound)`, uniform up to 2⁻³²."""
        if not self._words:
            self._words = self._bits.random_raw(_BLOCK).tolist()
        return ((self._words.pop() >> 32) * bound) >> 32

    def between(self, low: int, high: int) -> int:
        """A whole number in `[low, high]`, both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        """True with a probability of `percent` in a hundred."""
        return self.below(100) < percent

    def choice(self, options: Sequence[T]) -> T:
        """One of `options`, all equally likely."""
        return options[self.below(len(options))]

    def weighted(self, options: Sequence[tuple[T, int]]) -> T:
        """One of the values of `(value, weight)` pairs, weights being whole numbers."""
        draw = self.below(sum(weight for _, weight in options))
        for value, weight in options:
            draw -= weight
            if draw < 0:
                return value
        raise AssertionError("weights are positive, so one option was reached")

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """The options in random order (Fisher-Yates)."""
        items = list(options)
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]
        return items

    def raw_bytes(self, count: int) -> np.ndarray:
        """Uniform bytes, an array of shape (count,) and type uint8, the same on either byte order."""
        words = self._bits.random_raw(-(-count // 8)).astype("<u8")
        return words.view(np.uint8)[:count]
