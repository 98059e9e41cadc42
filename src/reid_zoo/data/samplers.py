"""In which order training sees its items: at random, or P identities with K items each; the same for every restart.

The order of a pass is a function of seed and number of the pass alone, and every item carries a seed of its own for its
augmentation. What a run sees therefore depends neither on the number of workers nor on where it was interrupted.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch.utils.data import Sampler

from ..errors import ConfigurationError
from ..validation import Within, check_rule

__all__ = ["IdentitySampler", "ItemOrder", "RandomOrder", "SeededIndex", "TrainingSampler"]

_LARGEST_SEED = 2**63


@dataclass(frozen=True, slots=True)
class SeededIndex:
    """What a dataset of this package may be indexed with.

    Attributes:
        index: Number of the item.
        seed: Seed of everything random about it.
    """

    index: int
    seed: int


class ItemOrder(Protocol):
    """An order of items for every pass over the data."""

    def epoch_length(self, epoch: int) -> int:
        """Number of items of a pass (0-based)."""
        ...

    def epoch_indices(self, epoch: int) -> list[int]:
        """The items of a pass."""
        ...


class RandomOrder:
    """Every item once per pass, shuffled.

    Args:
        num_items: Number of items.
        seed: Seed; every pass has a shuffle of its own.
    """

    def __init__(self, num_items: int, seed: int = 0) -> None:
        self.num_items = num_items
        self.seed = seed

    def epoch_length(self, epoch: int) -> int:
        """See [`ItemOrder`]."""
        return self.num_items

    def epoch_indices(self, epoch: int) -> list[int]:
        """See [`ItemOrder`]."""
        generator = torch.Generator().manual_seed(_seed(self.seed, epoch))
        return torch.randperm(self.num_items, generator=generator).tolist()


class IdentitySampler(Sampler[int]):
    """P identities with K items each in every batch (CLIP-ReID spec, section 9; VFE-TPS spec, section 5.5).

    A pass: the items of every identity are shuffled (of an identity with fewer than K, K are drawn with replacement) and cut
    into groups of K; what is left over is dropped. While at least P identities have groups left, P of them are drawn without
    replacement, and each gives one group. So all batches are complete, and the length differs a little from pass to pass.

    Args:
        labels: Identity of every item.
        identities_per_batch: P.
        images_per_identity: K; an item may also be an (image, caption) pair.
        seed: Seed. All processes of a distributed run must have the same one.

    Raises:
        ConfigurationError: If P or K is smaller than 2, or there are fewer than P identities.
    """

    def __init__(
        self, labels: Sequence[int], identities_per_batch: int = 16, images_per_identity: int = 4, seed: int = 0
    ) -> None:
        for name, value in (
            ("identities_per_batch", identities_per_batch),
            ("images_per_identity", images_per_identity),
        ):
            if value < 2:
                raise ConfigurationError(
                    f"IdentitySampler.{name} is {value}, but a batch needs at least 2 of them: without there is no "
                    "positive or no negative."
                )
        self.items: dict[int, list[int]] = {}
        for index, label in enumerate(labels):
            self.items.setdefault(int(label), []).append(index)
        if len(self.items) < identities_per_batch:
            raise ConfigurationError(
                f"a batch takes {identities_per_batch} identities with {images_per_identity} images each, but the training "
                f"data has only {len(self.items)}; lower the batch size."
            )
        self.identities_per_batch = identities_per_batch
        self.images_per_identity = images_per_identity
        self.seed = seed
        self.epoch = 0
        self._lengths: dict[int, int] = {}

    def set_epoch(self, epoch: int) -> None:
        """Which pass iteration gives (0-based)."""
        self.epoch = epoch

    def _draw_identities(self, generator: random.Random) -> Iterator[list[int]]:
        """The identities of one batch after the other."""
        groups = {label: max(1, len(items) // self.images_per_identity) for label, items in self.items.items()}
        available = list(groups)
        while len(available) >= self.identities_per_batch:
            places = generator.sample(range(len(available)), self.identities_per_batch)
            yield [available[place] for place in places]
            for place in sorted(places, reverse=True):
                groups[available[place]] -= 1
                if not groups[available[place]]:  # the last one takes its place: nothing else has to move
                    available[place] = available[-1]
                    available.pop()

    def epoch_length(self, epoch: int) -> int:
        """Number of items of a pass (0-based); its batches times P·K."""
        if epoch not in self._lengths:
            batches = sum(1 for _ in self._draw_identities(self._generator(epoch, "identities")))
            self._lengths[epoch] = batches * self.identities_per_batch * self.images_per_identity
        return self._lengths[epoch]

    def epoch_indices(self, epoch: int) -> list[int]:
        """The items of a pass, batch after batch, the K of an identity next to each other."""
        generator, count = self._generator(epoch, "items"), self.images_per_identity
        shuffled = {}
        for label, items in self.items.items():
            enough = items if len(items) >= count else generator.choices(items, k=count)
            shuffled[label] = iter(generator.sample(enough, len(enough)))
        return [
            next(shuffled[label])
            for chosen in self._draw_identities(self._generator(epoch, "identities"))
            for label in chosen
            for _ in range(count)
        ]

    def _generator(self, epoch: int, purpose: str) -> random.Random:
        return random.Random(f"{self.seed} {epoch} {purpose}")

    def __iter__(self) -> Iterator[int]:
        return iter(self.epoch_indices(self.epoch))

    def __len__(self) -> int:
        """Of the pass that iteration gives."""
        return self.epoch_length(self.epoch)


class TrainingSampler(Sampler[SeededIndex]):
    """The items of a whole training run, pass after pass, handed out in equally long epochs.

    transformers' Trainer wants epochs of one length. Passes of [`IdentitySampler`] differ, so an epoch of the Trainer may
    begin some batches before or behind a pass; the order of all batches is that of the passes. With passes of one length the
    two are the same.

    Args:
        order: The order of every pass.
        num_epochs: Passes of the run; of a fraction, the last pass gives only that part.
        batch_size: Items per batch, those of all processes together.
        batches_per_step: Batches whose gradients are accumulated.
        drop_last: Whether the incomplete batch at the end of a pass is left out.
        seed: Seed of the items' own seeds.

    Raises:
        ConfigurationError: If a number is out of range, or a pass does not fill one step, and what is incomplete is left out.
    """

    def __init__(
        self,
        order: ItemOrder,
        num_epochs: float,
        batch_size: int,
        *,
        batches_per_step: int = 1,
        drop_last: bool = True,
        seed: int = 0,
    ) -> None:
        check_rule("TrainingSampler", "num_epochs", num_epochs, Within(0, open_low=True))
        for name, value in (("batch_size", batch_size), ("batches_per_step", batches_per_step)):
            check_rule("TrainingSampler", name, value, Within(1))
        self.order = order
        self.drop_last = drop_last
        self.seed = seed
        self.epoch = 0
        self.items_per_step = batch_size * batches_per_step
        lengths = [order.epoch_length(number) for number in range(math.ceil(num_epochs))]
        if not lengths or min(lengths) < (self.items_per_step if drop_last else 1):
            raise ConfigurationError(
                f"{min(lengths, default=0)} training items do not fill one step of {batches_per_step} × {batch_size}; "
                "lower optimization.batch_size."
            )
        if drop_last:  # where passes differ, a step must not reach from one into the next
            unit = batch_size if len(set(lengths)) == 1 else self.items_per_step
            lengths = [length // unit * unit for length in lengths]
        steps = [math.ceil(length / self.items_per_step) for length in lengths]
        if num_epochs < len(lengths):
            steps[-1] = max(1, math.ceil(steps[-1] * (num_epochs - len(lengths) + 1)))
        self._starts = [0, *accumulate(lengths)]
        self.epoch_ends: tuple[int, ...] = tuple(accumulate(steps))
        """Steps after which each pass is over."""
        if len(set(lengths)) == 1:
            self.items_per_epoch = lengths[0]
        else:
            self.items_per_epoch = math.ceil(sum(steps) / len(steps)) * self.items_per_step

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch of the Trainer."""
        return math.ceil(self.items_per_epoch / self.items_per_step)

    @property
    def num_steps(self) -> int:
        """Steps of the run."""
        return self.epoch_ends[-1]

    def set_epoch(self, epoch: int) -> None:
        """Which epoch of the Trainer iteration gives (0-based)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.items_per_epoch

    def __iter__(self) -> Iterator[SeededIndex]:
        start = self.epoch * self.items_per_epoch
        end = start + self.items_per_epoch
        number = bisect_right(self._starts, start) - 1
        while start < end and number < len(self._starts) - 1:
            first, behind = self._starts[number], self._starts[number + 1]
            stop = min(end, behind)
            for position, index in enumerate(self.order.epoch_indices(number)[start - first : stop - first], start):
                yield SeededIndex(index, _seed(self.seed, position))
            start, number = stop, number + 1


def _seed(*numbers: int) -> int:
    """One seed from several numbers, without the patterns that adding them would leave."""
    return random.Random(" ".join(map(str, numbers))).randrange(_LARGEST_SEED)
