"""A new method is one folder, one registry entry and one line in the contract's cases (CONTRIBUTING.md): tried out here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

FOLDER = {
    "__init__.py": "",
    "configuration_toy.py": """
from typing import ClassVar

from reid_zoo.models.configuration_base import checked_config
from reid_zoo.models.configuration_clip_dual_encoder import CLIPDualEncoderConfig


@checked_config
class ToyConfig(CLIPDualEncoderConfig):
    model_type: ClassVar[str] = "toy"
    presets: ClassVar = {"base": {}}
""",
    "modeling_toy.py": """
from typing import ClassVar

from reid_zoo.losses import InfoNCELoss
from reid_zoo.models.clip_dual_encoder import CLIPDualEncoderModel, CLIPDualEncoderPreTrainedModel
from reid_zoo.outputs import ReIDTrainingOutput
from torch import nn

from .configuration_toy import ToyConfig


class ToyPreTrainedModel(CLIPDualEncoderPreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^head\\."]


class ToyModel(ToyPreTrainedModel, CLIPDualEncoderModel):
    def __init__(self, config):
        super().__init__(config)
        self.post_init()


class ToyForTraining(ToyPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.toy = ToyModel(config)
        self.head = nn.Linear(config.projection_dim, config.projection_dim)
        self.itc_loss = InfoNCELoss(config.temperature)
        self.post_init()

    def get_image_features(self, pixel_values, **kwargs):
        return self.toy.get_image_features(pixel_values, **kwargs)

    def get_text_features(self, input_ids, *args, **kwargs):
        return self.toy.get_text_features(input_ids, *args, **kwargs)

    def forward(self, pixel_values, input_ids, person_labels=None, attention_mask=None):
        images, texts = self.get_image_features(pixel_values), self.get_text_features(input_ids)
        pair = [self.head(features.granularities["global"]) for features in (images, texts)]
        loss = self.itc_loss(*pair)
        return ReIDTrainingOutput(
            loss=loss, loss_terms={"itc": loss}, image_features=images, text_features=texts
        )
""",
    "conversion_toy.py": """
import re

from reid_zoo.models.conversion_report import ConversionReport

from .configuration_toy import ToyConfig

SIGNATURE = re.compile(r"toy_model\\..*")


def convert_checkpoint(checkpoint, **overrides):
    report = ConversionReport("toy", num_converted=len(checkpoint))
    state = {key.replace("toy_model.", "toy."): value for key, value in checkpoint.items()}
    return ToyConfig(**overrides), state, report
""",
}

# Loaded by pytest before it collects anything.
REGISTRATION = f"""
import sys

sys.path.insert(0, {str(TESTS)!r})
import reid_zoo
from reid_zoo.models.registry import METHODS, Method

METHODS["toy"] = Method("toy", "Toy", "toy", "Toy", "none", "none", queries=("text", "image"), num_parameters=1)

import contract_cases

contract_cases.CASES += (contract_cases.ContractCase("toy"),)
"""

OWN_TEST = """
import json

import torch
from contract_cases import CASES, build_config, build_training_model
from reid_zoo.cli.main import app
from reid_zoo.conversion import convert_official_checkpoint
from typer.testing import CliRunner


def test_toy_is_listed():
    listed = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)["models"]
    assert "toy" in [entry["model_type"] for entry in listed]


def test_toy_converts():
    model = build_training_model(CASES[-1])
    official = {key.replace("toy.", "toy_model."): value for key, value in model.state_dict().items()}
    converted = convert_official_checkpoint("toy", official, **build_config(CASES[-1]).to_dict())
    assert all(torch.equal(value, converted.state_dict()[key]) for key, value in model.state_dict().items())
"""


def test_a_folder_an_entry_and_a_line_are_enough(tmp_path):
    (tmp_path / "toy").mkdir()
    for name, text in FOLDER.items():
        (tmp_path / "toy" / name).write_text(text)
    (tmp_path / "toy_registration.py").write_text(REGISTRATION)
    (tmp_path / "test_toy.py").write_text(OWN_TEST)
    contract = sorted((TESTS / "models").glob("test_model_contract*.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "toy_registration", "-p", "no:cacheprovider", "-k", "toy"]
        + [str(path) for path in [*contract, tmp_path / "test_toy.py"]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    summary = done.stdout.strip().splitlines()[-1]
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert int(summary.split(" passed")[0].split()[-1]) > 30, summary
