"""Checkpoints that are either whole or not there: an interrupted run goes on bit by bit as if nothing had happened.

A checkpoint is written into a hidden folder, gets a manifest with the size and hash of every file, and is then renamed. What a
killed process leaves behind is therefore never taken for a checkpoint, and what is damaged later is found out before it is
loaded. Beside what transformers' Trainer saves (weights, optimiser, schedule, random states), a checkpoint holds what methods
remember of the running epoch and the averaged weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from ..errors import CheckpointError

__all__ = [
    "DamagedCheckpointWarning",
    "FindBestCheckpoint",
    "RestoreEpochMemory",
    "ResumableTrainer",
    "checkpoint_damage",
    "discard_checkpoints",
    "last_complete_checkpoint",
    "list_checkpoints",
    "load_epoch_memory",
    "save_epoch_memory",
    "write_if_changed",
    "write_manifest",
]

MANIFEST_FILE = "checkpoint_manifest.json"
_UNFINISHED = ".unfinished-checkpoints"
_STATE_FILE = "trainer_state.json"
_NAME = re.compile(r"checkpoint-(\d+)")


class DamagedCheckpointWarning(UserWarning):
    """A checkpoint that is not whole is passed over."""


def write_if_changed(file: Path, text: str) -> None:
    """Give a file a content, at once: whoever reads it finds the old one or the new one, never a part."""
    if file.is_file() and file.read_bytes() == text.encode():
        return
    unfinished = file.with_name(f"{file.name}.partial")
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    os.replace(unfinished, file)


def write_manifest(folder: Path) -> None:
    """Write down the size in bytes and the SHA-256 of every file of a checkpoint; the last thing that is written."""
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": _hash(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST_FILE
    }
    with (folder / MANIFEST_FILE).open("w", encoding="utf-8") as file:
        json.dump({"files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def checkpoint_damage(folder: str | Path) -> str | None:
    """Why a checkpoint cannot be loaded, in a few words; `None` if it is as it was written.

    Args:
        folder: A `checkpoint-N` folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return "it does not exist"
    try:
        files = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))["files"]
        for name, expected in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["size"] or _hash(path) != expected["sha256"]:
                return f"{name} is not what was written"
    except FileNotFoundError:
        return f"it was not written to its end (no {MANIFEST_FILE})"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST_FILE} cannot be read"
    return None


def last_complete_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest checkpoint of a run that is undamaged; one line of warning for every newer one that is not.

    Args:
        output_dir: Folder of the run.

    Returns:
        Its `checkpoint-N` folder, or `None` if there is none.
    """
    for folder in reversed(list_checkpoints(Path(output_dir))):
        damage = checkpoint_damage(folder)
        if damage is None:
            return folder
        warnings.warn(
            f"{folder} is passed over: {damage}; an older checkpoint is looked for.",
            DamagedCheckpointWarning,
            stacklevel=2,
        )
    return None


def discard_checkpoints(output_dir: str | Path) -> int:
    """Delete all checkpoints of a run that is started over; returns how many there were."""
    folders = list_checkpoints(Path(output_dir))
    for folder in folders:
        _remove(folder)
    return len(folders)


def save_epoch_memory(model: nn.Module, file: Path) -> None:
    """Save what the modules of a model remember of the running epoch; no file if that is nothing.

    Args:
        model: Modules with `epoch_memory()` (name → tensor) and `restore_epoch_memory(tensors)` are asked.
        file: `.safetensors` file to write.
    """
    tensors: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        remember = getattr(module, "epoch_memory", None)
        if remember is not None:
            tensors |= {f"{name}:{key}": value.contiguous() for key, value in remember().items()}
    if tensors:
        save_file(tensors, file)


def load_epoch_memory(model: nn.Module, file: Path) -> None:
    """Give the modules back what `save_epoch_memory` saved; nothing if there is no such file."""
    if not file.is_file():
        return
    modules = dict(model.named_modules())
    found: dict[str, dict[str, Tensor]] = {}
    for path, tensor in load_file(file).items():
        name, _, key = path.rpartition(":")
        found.setdefault(name, {})[key] = tensor
    for name, tensors in found.items():
        restore: Any = modules[name].restore_epoch_memory
        restore(tensors)


class RestoreEpochMemory(TrainerCallback):
    """Before the first step after an interruption in the middle of an epoch: gives modules their memory of it back."""

    def __init__(self) -> None:
        self.checkpoint: Path | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Load once; at the boundary of two epochs there is nothing to remember."""
        checkpoint, self.checkpoint = self.checkpoint, None
        if checkpoint is not None and float(state.epoch or 0) % 1 != 0:
            load_epoch_memory(model, checkpoint / _memory_file(args.process_index))


class FindBestCheckpoint(TrainerCallback):
    """When a run goes on: its best checkpoint so far is looked for beside the one that it goes on from.

    The stored state holds a path, which is another one once the folder was moved or is reached from another working directory;
    transformers would then forget the checkpoint, and end with the weights of the last step in its place.
    """

    def __init__(self) -> None:
        self.checkpoint: Path | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Behind the loading of the state, before anything is compared with it.

        Raises:
            CheckpointError: If the model that is to be loaded in the end is not there, or damaged.
        """
        if self.checkpoint is None or not state.best_global_step:
            return
        best = self.checkpoint.parent / f"checkpoint-{state.best_global_step}"
        state.best_model_checkpoint = str(best) if best.is_dir() else None
        if args.load_best_model_at_end and (damage := checkpoint_damage(best)) is not None:
            raise CheckpointError(
                f"{best}, the best checkpoint so far, cannot be loaded: {damage}; put it back, or start over with --no-resume."
            )


class ResumableTrainer(Trainer):
    """transformers' Trainer with checkpoints as described at the head of this module.

    Attributes:
        resumed_from: Checkpoint that the run went on from.
    """

    args: Any
    state: Any
    model: Any
    accelerator: Any
    resumed_from: Path | None = None
    _checkpoint_root: str | None = None
    _epoch_memory: RestoreEpochMemory | None = None
    _best: FindBestCheckpoint | None = None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; a damaged checkpoint is never loaded.

        Args:
            resume_from_checkpoint: A checkpoint, or true for the newest complete one in `output_dir`.
            args: As in transformers.
            kwargs: As in transformers.

        Raises:
            CheckpointError: If the given checkpoint is damaged, or there is no complete one.
        """
        if resume_from_checkpoint is True:
            found = last_complete_checkpoint(self.args.output_dir)
            if found is None:
                raise CheckpointError(f"{self.args.output_dir} holds no complete checkpoint to go on from.")
            resume_from_checkpoint = str(found)
        elif resume_from_checkpoint:
            damage = checkpoint_damage(resume_from_checkpoint)
            if damage is not None:
                raise CheckpointError(f"{resume_from_checkpoint} cannot be resumed: {damage}.")
        self.go_on_from(Path(resume_from_checkpoint) if resume_from_checkpoint else None)
        return super().train(resume_from_checkpoint or None, *args, **kwargs)

    def go_on_from(self, checkpoint: Path | None) -> None:
        """Prepare for training that goes on from a complete checkpoint, or starts from the beginning (`None`)."""
        self.resumed_from = checkpoint
        if self._epoch_memory is None:
            self._epoch_memory = RestoreEpochMemory()
            self.add_callback(self._epoch_memory)
        if self._best is None:
            self._best = FindBestCheckpoint()
            self.add_callback(self._best)
        self._epoch_memory.checkpoint = self._best.checkpoint = checkpoint

    def save_checkpoint_extras(self, folder: Path) -> None:
        """Write further files of a checkpoint; called on every process, with the folder that becomes the checkpoint."""
        save_epoch_memory(self.accelerator.unwrap_model(self.model), folder / _memory_file(self.args.process_index))

    def _get_output_dir(self, trial: Any) -> str:
        return self._checkpoint_root or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run = Path(super()._get_output_dir(trial))
        target = run / f"checkpoint-{self.state.global_step}"
        unfinished = run / _UNFINISHED
        if self.args.should_save:
            shutil.rmtree(unfinished, ignore_errors=True)  # what a killed run left
        self.accelerator.wait_for_everyone()
        self._checkpoint_root = str(unfinished)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._checkpoint_root = None
        written = unfinished / target.name
        self.save_checkpoint_extras(written)
        self._name_best_checkpoint(run, target)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self.state.save_to_json(str(written / _STATE_FILE))
            write_manifest(written)
            if target.exists():
                _remove(target)
            written.rename(target)
            unfinished.rmdir()
            self._remove_old_checkpoints(run)
        self.accelerator.wait_for_everyone()

    def _name_best_checkpoint(self, run: Path, target: Path) -> None:
        """The path under which the best checkpoint is found once this one has its name."""
        if self.state.best_global_step:
            best = run / f"checkpoint-{self.state.best_global_step}"
            if best == target or best.is_dir():
                self.state.best_model_checkpoint = str(best)

    def _remove_old_checkpoints(self, run: Path) -> None:
        """Keep the newest `save_total_limit` checkpoints, and what was best at the time of each of them.

        Should the newest be damaged, a run goes on from the one before, and with the best one of then.
        """
        limit = self.args.save_total_limit
        if not limit or limit < 1:
            return
        folders = list_checkpoints(run)
        best = {f"checkpoint-{_best_step(folder)}" for folder in folders[-limit:]}
        for folder in folders[:-limit]:
            if folder.name not in best:
                _remove(folder)


def _best_step(checkpoint: Path) -> int | None:
    """Step of the best checkpoint when this one was written; `None` if there was none, or it is not whole."""
    try:
        step: int | None = json.loads((checkpoint / _STATE_FILE).read_text(encoding="utf-8")).get("best_global_step")
    except (OSError, ValueError, AttributeError):
        return None
    return step


def _memory_file(process: int) -> str:
    return f"epoch_memory_{process}.safetensors"


def list_checkpoints(run: Path) -> list[Path]:
    """The `checkpoint-N` folders of a run, complete or not, the newest last."""
    if not run.is_dir():
        return []
    found = [(int(match[1]), path) for path in run.iterdir() if (match := _NAME.fullmatch(path.name)) and path.is_dir()]
    return [path for _, path in sorted(found)]


def _remove(folder: Path) -> None:
    """Take the name away first: a half-deleted checkpoint is none."""
    hidden = folder.parent / _UNFINISHED / f"removed-{folder.name}"
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.parent.mkdir(exist_ok=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)
    if not any(hidden.parent.iterdir()):
        hidden.parent.rmdir()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
