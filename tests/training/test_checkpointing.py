"""Manifests of checkpoints: what is damaged is found, what is whole is not."""

from __future__ import annotations

import pytest
import torch

from reid_zoo.errors import CheckpointError
from reid_zoo.losses import FeatureCalibrationLoss
from reid_zoo.training import ReIDTrainer, ReIDTrainingArguments, load_recipe
from reid_zoo.training.checkpointing import (
    checkpoint_damage,
    discard_checkpoints,
    last_complete_checkpoint,
    list_checkpoints,
    load_epoch_memory,
    save_epoch_memory,
    write_if_changed,
    write_manifest,
)
from tiny_models import tiny_model


def checkpoint(run, step):
    folder = run / f"checkpoint-{step}"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(range(100)))
    (folder / "inner" / "state").write_text("state")
    write_manifest(folder)
    return folder


def test_what_was_written_is_whole(tmp_path):
    assert checkpoint_damage(checkpoint(tmp_path, 1)) is None


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "weights").write_bytes(bytes(range(50))), "weights is not what was written"),
        (lambda folder: (folder / "weights").write_bytes(bytes(100)), "weights is not what was written"),
        (lambda folder: (folder / "inner" / "state").unlink(), "inner/state is missing"),
        (lambda folder: (folder / "checkpoint_manifest.json").unlink(), "not written to its end"),
        (lambda folder: (folder / "checkpoint_manifest.json").write_text('{"fil'), "cannot be read"),
        (lambda folder: (folder / "checkpoint_manifest.json").write_text("[]"), "cannot be read"),
    ],
)
def test_damage_is_told(tmp_path, damage, reason):
    folder = checkpoint(tmp_path, 1)
    damage(folder)
    assert reason in str(checkpoint_damage(folder))


def test_the_newest_whole_checkpoint_is_taken(tmp_path):
    for step in (9, 10, 100):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-200").write_text("no folder")
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    (tmp_path / "checkpoint-100" / "weights").unlink()
    with pytest.warns(UserWarning, match="checkpoint-100 is passed over: weights is missing"):
        assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert discard_checkpoints(tmp_path) == 3
    assert last_complete_checkpoint(tmp_path) is None
    assert (tmp_path / "checkpoint-best").is_dir()
    assert discard_checkpoints(tmp_path / "nowhere") == 0


def test_a_damaged_checkpoint_is_not_resumed(tmp_path):
    arguments = ReIDTrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    trainer = ReIDTrainer(tiny_model(), arguments, optimization=load_recipe("cfine-tiny").optimization)
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        trainer.train(resume_from_checkpoint=True)
    folder = checkpoint(tmp_path, 3)
    (folder / "weights").unlink()
    with pytest.raises(CheckpointError, match="checkpoint-3 cannot be resumed: weights is missing"):
        trainer.train(resume_from_checkpoint=str(folder))


def test_the_memory_of_an_epoch_comes_back(tmp_path):
    features, labels = torch.randn(6, 4), torch.tensor([2, 0, 2, 1, 0, 2])
    model, other = (torch.nn.ModuleDict({"loss": FeatureCalibrationLoss("history")}) for _ in range(2))
    file = tmp_path / "memory.safetensors"
    save_epoch_memory(model, file)
    assert not file.exists()
    load_epoch_memory(model, file)
    model["loss"].remember(features, labels)
    other["loss"].remember(features.flip(0), labels)  # is forgotten
    save_epoch_memory(model, file)
    load_epoch_memory(other, file)
    new, owners = torch.randn(3, 4), torch.tensor([2, 0, 2])
    assert torch.equal(model["loss"](new, owners), other["loss"](new, owners))
    other["loss"].reset_history()
    assert not torch.equal(model["loss"](new, owners), other["loss"](new, owners))


def test_a_file_is_replaced_as_a_whole_and_only_if_it_changes(tmp_path):
    file = tmp_path / "recipe.yaml"
    write_if_changed(file, "é: 1\n")
    first = file.stat()
    write_if_changed(file, "é: 1\n")
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (first.st_mtime_ns, first.st_ino)
    with file.open(encoding="utf-8") as reader:  # who reads it meanwhile finds the old one
        write_if_changed(file, "é: 2\n")
        assert reader.read() == "é: 1\n"
    assert file.read_text(encoding="utf-8") == "é: 2\n"
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
