"""The first of two training stages: prompts are learned for image features that never change, and handed over.

CLIP-ReID spec, sections 5 and 6. The training itself is done by [`ReIDTrainer`]; here is what is particular: the features of
all training images, computed once, and the proof that the second stage uses what the first one learned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import TrainerCallback
from transformers.utils import SAFE_WEIGHTS_NAME

from ..data.collators import EvaluationImages
from ..data.records import PersonDataset
from ..data.samplers import SeededIndex
from ..distributed import gather_batch, num_processes, process_index
from ..errors import CheckpointError
from ..processing import ReIDProcessor
from .checkpointing import discard_checkpoints, write_if_changed

__all__ = [
    "HandOver",
    "ImageFeatures",
    "cache_image_features",
    "discard_stage_one",
    "finish_stage_one",
    "load_stage_one",
]

HAND_OVER_FILE = "learned.json"


class ImageFeatures(Dataset):
    """Items of the first stage: features of an image, and its identity.

    Args:
        features: `(n, E)`.
        records: The n images.
    """

    def __init__(self, features: Tensor, records: PersonDataset) -> None:
        labels = records.person_labels()
        self.features = features
        self.labels = [labels[record.person_id] for record in records if record.person_id is not None]
        self.items = records.records

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int | SeededIndex) -> dict[str, Any]:
        """`image_features` `(E,)`, `person_label`."""
        number = index.index if isinstance(index, SeededIndex) else index
        return {"image_features": self.features[number], "person_label": self.labels[number]}

    @staticmethod
    def collate(items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """`image_features` `(B, E)`, `person_labels` `(B,)`."""
        return {
            "image_features": torch.stack([item["image_features"] for item in items]),
            "person_labels": torch.tensor([item["person_label"] for item in items]),
        }


@torch.no_grad()
def cache_image_features(
    model: Any, records: PersonDataset, processor: ReIDProcessor, *, batch_size: int = 64, num_workers: int = 0
) -> Tensor:
    """Features of all images, once, prepared as for retrieval and in evaluation mode; every process encodes its share.

    Args:
        model: A training model with `stage_one_image_features`.
        records: n records.
        processor: The model's processor.
        batch_size: Images per step.
        num_workers: Processes that decode images; 0 for none.

    Returns:
        `(n, E)` float32 on the processor's memory, in the order of the records.
    """
    parts, own = num_processes(), process_index()
    share = records.records[len(records) * own // parts : len(records) * (own + 1) // parts]
    loader = DataLoader(EvaluationImages(share, processor), batch_size=batch_size, num_workers=num_workers)
    found = [model.stage_one_image_features(pixels.to(model.device)) for pixels in loader]
    features: Tensor = gather_batch(torch.cat(found))[0]
    return features.cpu()


@dataclass(frozen=True, slots=True)
class _Learned:
    """What is written beside the result of the first stage once it is complete."""

    parameters: list[str]
    sha256: str
    steps: int


class HandOver(TrainerCallback):
    """What the first stage learned; refuses to train or to end a second stage with anything else.

    Args:
        parameters: Names of the parameters that the first stage trained.
        sha256: Digest of their values.
        steps: Steps of the first stage.
    """

    def __init__(self, parameters: Sequence[str], sha256: str, steps: int) -> None:
        self.parameters = tuple(parameters)
        self.sha256 = sha256
        self.steps = steps

    def check(self, model: Any) -> None:
        """Compare a model with what the first stage learned.

        Raises:
            CheckpointError: If they differ.
        """
        if digest(model, self.parameters) != self.sha256:
            raise CheckpointError(
                f"{', '.join(self.parameters)} of the second stage are not what the first stage learned; the folder mixes "
                "two runs: use another one, or start over with --no-resume."
            )

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Behind the loading of a checkpoint, before the first step."""
        self.check(model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """The second stage keeps them."""
        self.check(model)


def digest(model: Any, parameters: Sequence[str]) -> str:
    """SHA-256 of the values of some parameters."""
    found = dict(getattr(model, "module", model).named_parameters())
    total = hashlib.sha256()
    for name in parameters:
        total.update(found[name].detach().float().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def finish_stage_one(model: Any, folder: Path, steps: int, *, write: bool = True) -> HandOver:
    """Say in `folder`, which holds the saved model, that the first stage is complete, and what it learned.

    The model goes on with what was saved, which are averaged values if the stage averaged them.

    Args:
        model: The model, still in stage 1.
        folder: Where the stage wrote to.
        steps: Its steps.
        write: Whether this process writes files.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    _take_weights(model, folder, names)
    learned = _Learned(names, digest(model, names), steps)
    if write:
        write_if_changed(folder / HAND_OVER_FILE, json.dumps(asdict(learned), indent=1) + "\n")
    return HandOver(learned.parameters, learned.sha256, steps)


@torch.no_grad()
def _take_weights(model: Any, folder: Path, names: Sequence[str]) -> None:
    parameters = dict(model.named_parameters())
    with safe_open(folder / SAFE_WEIGHTS_NAME, framework="pt") as weights:
        for name in names:
            parameters[name].copy_(weights.get_tensor(name))


def discard_stage_one(folder: Path) -> None:
    """Forget a first stage, complete or not, of a run that is started over."""
    (folder / HAND_OVER_FILE).unlink(missing_ok=True)
    discard_checkpoints(folder)


def load_stage_one(model: Any, folder: Path) -> HandOver | None:
    """Give a model what a complete first stage learned; `None` if there is none in `folder`.

    Raises:
        CheckpointError: If the saved weights are not those that the stage ended with.
    """
    note = folder / HAND_OVER_FILE
    if not note.is_file():
        return None
    try:
        learned = _Learned(**json.loads(note.read_text(encoding="utf-8")))
        _take_weights(model, folder, learned.parameters)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot read what the first stage left in {folder}: {' '.join(str(error).split())}; start over with --no-resume."
        ) from error
    hand_over = HandOver(learned.parameters, learned.sha256, learned.steps)
    hand_over.check(model)
    model.set_training_stage(2)  # forget text features of former prompts
    return hand_over
