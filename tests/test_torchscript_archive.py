"""Weights come out of a TorchScript archive as its own `state_dict` has them, and nothing in it is executed."""

from __future__ import annotations

import os
import pickle
import zipfile

import open_clip
import pytest
import torch
from torch import nn

from reid_zoo.checkpoint_files import read_checkpoint
from reid_zoo.errors import CheckpointError
from reid_zoo.torchscript_archive import is_torchscript_archive

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Program(nn.Module):
    """Parameters, buffers, a shared part, a view, and a tensor that is neither parameter nor buffer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.alias = self.first
        self.register_buffer("input_resolution", torch.tensor(16))
        self.register_buffer("view", torch.arange(12.0).reshape(3, 4)[:, 1:].T)
        self.constant = torch.ones(2)
        self.names = [1, 2]

    def forward(self, x):
        return self.second(self.first(x)) + self.view.sum() + self.constant.sum() + len(self.names)


def assert_same(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_it_is_the_state_dictionary_of_the_program(tmp_path, dtype):
    file = tmp_path / "program.pt"
    torch.jit.script(Program().to(dtype).eval()).save(file)
    assert is_torchscript_archive(file)
    assert_same(read_checkpoint(file), torch.jit.load(file).state_dict())


def test_a_traced_clip(tmp_path):
    model = open_clip.CLIP(
        embed_dim=8,
        vision_cfg=open_clip.CLIPVisionCfg(layers=1, width=64, head_width=32, patch_size=8, image_size=16),
        text_cfg=open_clip.CLIPTextCfg(context_length=8, vocab_size=20, width=64, heads=2, layers=1),
    ).eval()
    traced = torch.jit.trace(model, (torch.randn(1, 3, 16, 16), torch.zeros(1, 8, dtype=torch.long)), check_trace=False)
    traced.save(tmp_path / "clip.pt")
    found = read_checkpoint(tmp_path / "clip.pt")
    assert_same(found, torch.jit.load(tmp_path / "clip.pt").state_dict())
    assert_same({key: found[key] for key in model.state_dict()}, model.state_dict())


def test_checkpoints_of_torch_save_are_none(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "plain.pt")
    (tmp_path / "text.pt").write_text("nothing")
    assert not is_torchscript_archive(tmp_path / "plain.pt")
    assert not is_torchscript_archive(tmp_path / "text.pt")


class Evil:
    def __init__(self, file) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def archive(file, content: bytes) -> None:
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("evil/data.pkl", content)
        target.writestr("evil/constants.pkl", pickle.dumps(()))


def test_nothing_in_an_archive_is_executed(tmp_path):
    archive(tmp_path / "evil.pt", pickle.dumps(Evil(tmp_path / "made"), protocol=2))
    with pytest.raises(CheckpointError, match=r"evil\.pt cannot be read as a checkpoint: it mentions posix\.mkdir"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("missing", ["data.pkl", "data/0"])
def test_a_damaged_archive_is_named(tmp_path, missing):
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "part.pt", "w") as part:
        for name in whole.namelist():
            if not name.endswith(missing):
                part.writestr(name, whole.read(name))
    with pytest.raises(CheckpointError, match=r"part\.pt cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "part.pt")
