"""IRRA reproduces the authors' code: features, masked-word logits, every loss term, accuracies and gradients."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from clip_dual_encoder_case import (
    FAMILY_NOT_SETTINGS,
    assert_manifest_is_consumed,
    assert_optimizer_groups,
    clip_overrides,
    official_gradients,
)
from golden_case import KEPT, GoldenCase, expects_cases, find_cases

from reid_zoo.conversion import convert_official_checkpoint
from reid_zoo.models.irra.configuration_irra import IRRAConfig
from reid_zoo.models.irra.conversion_irra import convert_state_dict, infer_config
from reid_zoo.models.irra.modeling_irra import IRRAForTraining

SETTINGS = {
    "temperature": "temperature",
    "cmt_depth": "cross_modal_num_layers",
    "id_loss_weight": "id_loss_weight",
    "mlm_loss_weight": "mlm_loss_weight",
    "num_classes": "num_classes",
}
LOSS_NAMES = {"sdm": "sdm", "id": "id", "mlm": "mlm", "itc": "itc", "cmpm": "cmpm_projection"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    root = metafunc.config.getoption("--golden-root") / "irra"
    if "case_folder" in metafunc.fixturenames:
        folders = find_cases(root.parent, "irra")
        metafunc.parametrize("case_folder", folders, ids=[folder.name for folder in folders])
    for fixture, pattern in (("manifest", "manifest_full*.json"), ("groups_file", "optimizer_groups_full*.json")):
        if fixture in metafunc.fixturenames:
            files = sorted(root.glob(pattern))
            metafunc.parametrize(fixture, files, ids=[file.stem for file in files])


def test_there_are_cases_and_every_file_is_known(request):
    root = request.config.getoption("--golden-root")
    if not expects_cases(root, "irra"):
        return
    cases = find_cases(root, "irra")
    assert cases or root != KEPT  # another root may hold side files only
    for path in (root / "irra").iterdir():
        assert path in cases or path.name.startswith(("manifest_full", "optimizer_groups_full")), path


def overrides_of(config: dict) -> dict:
    """Settings of a case → arguments of the conversion. Every entry of the case must find its place."""
    overrides = clip_overrides(config)
    for name, value in config.items():
        if name in SETTINGS:
            overrides[SETTINGS[name]] = value
        else:
            assert name in FAMILY_NOT_SETTINGS, f"no place for {name}"
    return overrides


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_model_case(case_folder, attention):
    case = GoldenCase(case_folder)
    overrides = overrides_of(case.config)
    model = convert_official_checkpoint("irra", case.checkpoint, **overrides, loss_terms=list(LOSS_NAMES))
    model.set_attn_implementation(attention)
    pixels, ids, first = case.inputs["pixel_values"], case.inputs["input_ids"], case.config["store_first_n"]
    masked = {"masked_input_ids": case.inputs["mlm_ids"], "masked_labels": case.inputs["mlm_labels"]}

    with torch.no_grad():
        images, texts = model.get_image_features(pixels), model.get_text_features(ids)
        case.compare("image_embeds", images.granularities["global"])
        case.compare("text_embeds", texts.granularities["global"])
        case.compare("image_token_embeds_first_n", images.tokens[:first])
        case.compare("similarity_t2i", model.similarity(texts, images))
        assert torch.equal(texts.token_mask.long(), case.inputs["attention_mask"])
        masked_tokens = model.irra.encode_texts(case.inputs["mlm_ids"])
        case.compare("mlm_text_token_embeds_first_n", masked_tokens[:first])
        reasoning = model.implicit_relation_reasoning
        case.compare("mlm_hidden_first_n", reasoning.encoder(masked_tokens, images.tokens)[:first])
        case.compare("mlm_logits_first_n", reasoning(masked_tokens, images.tokens)[:first])

    model.train()
    everything = model(pixels, ids, case.inputs["pids"], **masked)
    for ours, theirs in LOSS_NAMES.items():
        case.compare(f"loss.{theirs}", everything.loss_terms[ours])
    for ours, theirs in {"image_id": "img_acc", "text_id": "txt_acc", "mlm": "mlm_acc"}.items():
        case.compare(f"acc.{theirs}", everything.accuracies[ours])

    model.config.loss_terms = ["sdm", "id", "mlm"]
    output = model(pixels, ids, case.inputs["pids"], **masked)
    case.compare("loss.total", output.loss)
    output.loss.backward()
    gradients = official_gradients(convert_state_dict, "irra", case.checkpoint, model)
    assert {f"grad.{key}" for key in case.config["grad_keys"]} == {k for k in case.expected if k.startswith("grad.")}
    for key in case.config["grad_keys"]:
        case.compare_gradient(f"grad.{key}", gradients)
    case.assert_everything_compared()


def test_full_size_manifest_is_consumed(manifest):
    """Every key of the full-size checkpoint goes into the model with its shape, and nothing is missing."""
    config, model = assert_manifest_is_consumed(manifest, "irra", infer_config, convert_state_dict, IRRAForTraining)
    assert config == IRRAConfig(num_classes=config.num_classes)
    towers = sum(parameter.numel() for parameter in model.irra.parameters())
    assert towers == 149_617_664  # the spec's figure


def test_optimizer_groups_of_the_full_size_model(groups_file):
    assert_optimizer_groups(groups_file, "irra", infer_config, convert_state_dict, IRRAForTraining)
