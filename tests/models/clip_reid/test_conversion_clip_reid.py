"""Official CLIP-ReID checkpoints: what can be inferred, what must be told, and what the report says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reid_zoo import convert_official_checkpoint
from reid_zoo.conversion import recognise_method
from reid_zoo.errors import CheckpointError

CASES = Path(__file__).parents[2] / "golden" / "cases" / "clip_reid"
VIT = {
    "image_size": [64, 32],
    "stride_size": 12,
    "vision_num_attention_heads": 1,
    "text_num_attention_heads": 2,
    "sie_camera": True,
}
RESNET = {"image_size": [96, 48], "text_num_attention_heads": 1, "vision_num_attention_heads": 2}


def checkpoint(name: str) -> dict[str, torch.Tensor]:
    return load_file(CASES / name / "checkpoint.safetensors")


def test_sizes_come_from_shapes():
    model, report = convert_official_checkpoint("clip_reid", checkpoint("case_a"), return_report=True, **VIT)
    config = model.config
    assert (config.backbone, config.hidden_size, config.projection_dim) == ("vit_b16", 64, 32)
    assert (config.num_classes, config.num_cameras, config.num_context_tokens) == (6, 4, 4)
    assert config.vision_config.patch_stride == 12
    assert report.num_converted == len(checkpoint("case_a"))
    assert not report.left_out
    assert not report.newly_initialised
    resnet = convert_official_checkpoint("clip_reid", checkpoint("case_b"), **RESNET).config
    assert (resnet.backbone, resnet.vision_config.stem_width, resnet.vision_config.layers) == ("rn50", 4, [1, 2, 1, 2])


def test_a_file_of_several_gpus_in_half_precision(tmp_path):
    state = {f"module.{key}": value.half() if value.ndim > 1 else value for key, value in checkpoint("case_a").items()}
    torch.save({"state_dict": state, "epoch": 60}, tmp_path / "ViT-B-16_60.pth")
    model, report = convert_official_checkpoint("clip_reid", tmp_path / "ViT-B-16_60.pth", return_report=True, **VIT)
    assert all(value.dtype == torch.float32 for value in model.parameters())
    assert report.upcast
    assert report.left_out == {"epoch": "not part of the network"}


def test_a_baseline_has_neither_prompts_nor_text_tower():
    state = {k: v for k, v in checkpoint("case_b").items() if not k.startswith(("prompt_learner", "text_encoder"))}
    model = convert_official_checkpoint("clip_reid", state, **RESNET)
    assert model.config.training_mode == "baseline"
    assert model.text_model is None


def test_text_can_be_left_out_and_is_named():
    model, report = convert_official_checkpoint(
        "clip_reid", checkpoint("case_a"), return_report=True, training_mode="baseline", **VIT
    )
    assert model.prompt_learner is None
    assert "prompt_learner.cls_ctx" in report.left_out
    assert all("without text" in reason for reason in report.left_out.values())


def test_side_information_can_be_left_out_and_is_named():
    told = {**VIT, "sie_camera": False, "sie_view": False}
    model, report = convert_official_checkpoint("clip_reid", checkpoint("case_a"), return_report=True, **told)
    assert model.clip_reid.side_information is None
    assert list(report.left_out) == ["cv_embed"]


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("image_size", r"image_size=\[height, width\]"),
        ("sie_camera", "sie_camera=true, sie_view=true or both"),
    ],
)
def test_what_shapes_do_not_tell_is_asked_for(missing, named):
    told = {name: value for name, value in VIT.items() if name != missing}
    with pytest.raises(CheckpointError, match=named):
        convert_official_checkpoint("clip_reid", checkpoint("case_a"), **told)


def test_cameras_and_views_need_one_of_their_numbers():
    with pytest.raises(CheckpointError, match="num_cameras or num_views"):
        convert_official_checkpoint("clip_reid", checkpoint("case_a"), **VIT, sie_view=True)
    config = convert_official_checkpoint("clip_reid", checkpoint("case_a"), **VIT, sie_view=True, num_views=2).config
    assert (config.num_cameras, config.num_views) == (2, 2)


@pytest.mark.parametrize(
    ("file", "size", "stride"),
    [
        ("manifest_full", [256, 128], None),
        ("manifest_full_vit_sie_olp_msmt17", [256, 128], 12),
        ("manifest_full_vit_sie_olp_veri", [256, 256], 12),
        ("manifest_full_rn50", [256, 128], None),
    ],
)
def test_published_settings_are_recognised_by_their_number_of_positions(file, size, stride):
    from reid_zoo.models.clip_reid.conversion_clip_reid import infer_config

    shapes = json.loads((CASES / f"{file}.json").read_text())
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
    config = infer_config(state, **({"sie_camera": True} if "cv_embed" in state else {}))
    assert config.vision_config.image_size == size
    assert getattr(config.vision_config, "patch_stride", None) == stride


def test_other_classes_keep_the_tower():
    state = {k: v for k, v in checkpoint("case_a").items() if k != "classifier_proj.weight"}
    model, report = convert_official_checkpoint("clip_reid", state, return_report=True, **VIT)
    assert report.newly_initialised == ["classifier_proj.weight"]
    assert model.classifier_proj.weight.abs().max() < 0.01


def test_unknown_and_missing_keys_are_named():
    state = checkpoint("case_a")
    with pytest.raises(CheckpointError, match="unexpected key 'center'"):
        convert_official_checkpoint("clip_reid", {**state, "center": torch.zeros(1)}, **VIT)
    del state["image_encoder.ln_post.weight"]
    with pytest.raises(CheckpointError, match=r"vision_model\.post_layernorm\.weight"):
        convert_official_checkpoint("clip_reid", state, **VIT)
    del state["image_encoder.proj"]
    with pytest.raises(CheckpointError, match=r"image_encoder\.proj"):
        convert_official_checkpoint("clip_reid", state, **VIT)
    resnet = checkpoint("case_b")
    with pytest.raises(CheckpointError, match="no overlapping patches"):
        convert_official_checkpoint("clip_reid", resnet, **RESNET, stride_size=12)


def test_methods_are_told_apart():
    assert recognise_method(checkpoint("case_a")) == "clip_reid"
    assert recognise_method(checkpoint("case_b")) == "clip_reid"
    with pytest.raises(CheckpointError, match="looks like a clip_reid checkpoint"):
        convert_official_checkpoint("cfine", checkpoint("case_a"))
    irra = load_file(CASES.parent / "irra" / "case_a" / "checkpoint.safetensors")
    with pytest.raises(CheckpointError, match="looks like a irra checkpoint"):
        convert_official_checkpoint("clip_reid", irra)
