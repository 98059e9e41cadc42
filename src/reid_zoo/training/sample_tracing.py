"""Which samples a batch is made of, so that an error can name them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["SAMPLE_INDICES", "TracedDataset", "TracingCollator"]

SAMPLE_INDICES = "sample_indices"
_SAMPLE_INDEX = "sample_index"


class TracedDataset:
    """A data set whose items (dictionaries) say their own number; everything else is the data set's.

    Args:
        dataset: Indexed with a number, or with something that has an `index` (a number and a seed).
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "dataset":  # while it is unpickled, and so that items are got one by one
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        item = self.dataset[key]
        return {**item, _SAMPLE_INDEX: key if isinstance(key, int) else key.index} if isinstance(item, dict) else item


class TracingCollator:
    """A collator that hands the numbers of a [`TracedDataset`] on, as `sample_indices` `(B,)`.

    Args:
        collate: The collator of the items as they were.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[Any]) -> Any:
        """Items → a batch."""
        if not all(isinstance(item, dict) and _SAMPLE_INDEX in item for item in items):
            return self.collate(items)
        indices = [item[_SAMPLE_INDEX] for item in items]
        batch = self.collate([{key: value for key, value in item.items() if key != _SAMPLE_INDEX} for item in items])
        traced: dict[str, Tensor] = {**batch, SAMPLE_INDICES: torch.tensor(indices)}
        return traced
