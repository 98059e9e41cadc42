"""CLIP-ReID's configuration: defaults of the release, what follows from what, and errors that name the field."""

from __future__ import annotations

import pytest

from reid_zoo.errors import ConfigurationError
from reid_zoo.models.clip_reid.configuration_clip_reid import CLIPReIDConfig
from reid_zoo.models.encoders.configuration_clip_resnet import ReIDCLIPResNetConfig
from reid_zoo.models.encoders.configuration_vision_transformer import ReIDVisionConfig


def test_defaults_are_the_release_on_person_images():
    config = CLIPReIDConfig()
    assert config.vision_config.image_size == [256, 128]
    assert config.vision_config.grid_size == (16, 8)
    assert config.embedding_size == 768 + 512
    assert (config.id_loss_weight, config.triplet_loss_weight, config.i2t_loss_weight) == (0.25, 1, 1)
    assert (config.label_smoothing, config.triplet_margin, config.neck_feature) == (0.1, 0.3, "before")
    assert config.text_loss_terms == ["i2t"]
    assert config.end_position == 11


def test_a_resnet_has_its_own_sizes_and_weights():
    config = CLIPReIDConfig(backbone="rn50")
    assert isinstance(config.vision_config, ReIDCLIPResNetConfig)
    assert config.vision_config.grid_size == (16, 8)
    assert config.embedding_size == 2048 + 1024
    assert config.id_loss_weight == 1.0


def test_a_baseline_has_no_text():
    config = CLIPReIDConfig(training_mode="baseline")
    assert config.text_loss_terms == []
    assert config.id_loss_weight == 1.0
    assert not config.uses_text
    assert CLIPReIDConfig(training_mode="one_stage").text_loss_terms == ["i2t_in_batch", "t2i_in_batch"]


def test_side_information_rows_are_cameras_times_views():
    both = CLIPReIDConfig(sie_camera=True, sie_view=True, num_cameras=20, num_views=8)
    assert both.num_side_information_rows == 160
    assert CLIPReIDConfig(sie_camera=True, num_cameras=15, num_views=8).num_side_information_rows == 15
    assert (both.uses_camera_ids, both.uses_view_ids) == (True, True)
    assert not CLIPReIDConfig().uses_camera_ids


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"backbone": "rn50", "vision_config": {"stem_width": 8, "layers": [1, 2, 1, 1], "image_size": [224, 224]}},
        {"vision_config": {"patch_stride": 12}, "sie_camera": True, "num_cameras": 6, "triplet_margin": None},
        {"training_mode": "baseline", "num_classes": 5, "projection_dim": 8},
    ],
    ids=["default", "resnet", "sie-olp", "baseline"],
)
def test_a_saved_configuration_is_the_same(tmp_path, fields):
    config = CLIPReIDConfig(**fields)
    config.save_pretrained(tmp_path)
    loaded = CLIPReIDConfig.from_pretrained(tmp_path)
    loaded.transformers_version = None  # only a saved configuration has one
    assert loaded.to_dict() == config.to_dict()
    assert type(loaded.vision_config) is type(config.vision_config)


def test_a_tower_configuration_can_be_given_as_an_object():
    config = CLIPReIDConfig(backbone="rn50", vision_config=ReIDCLIPResNetConfig(stem_width=4, image_size=[64, 32]))
    assert config.hidden_size == 128


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"backbone": "resnet101"}, "backbone is 'resnet101'"),
        ({"backbone": "rn50", "vision_config": ReIDVisionConfig()}, "vision_config is a ReIDVisionConfig"),
        ({"backbone": "rn50", "vision_config": {"patch_size": 16}}, "unknown field 'patch_size'"),
        ({"backbone": "rn50", "sie_camera": True, "num_cameras": 6}, "a ResNet has no class token"),
        ({"sie_camera": True}, "sie_camera needs num_cameras"),
        ({"sie_view": True, "num_cameras": 3}, "sie_view needs num_views"),
        ({"sie_tokens": "patches"}, "sie_tokens is 'patches'"),
        ({"neck_feature": "between"}, "neck_feature"),
        ({"prompt_object": "bird"}, "prompt_object is 'bird'"),
        ({"training_mode": "three_stage"}, "training_mode"),
        ({"training_mode": "baseline", "text_loss_terms": ["i2t"]}, "has no text_loss_terms"),
        ({"training_mode": "one_stage", "text_loss_terms": ["i2t"]}, "needs fixed prompts"),
        ({"text_loss_terms": ["i2t", "i2t"]}, "each once"),
        ({"text_loss_terms": ["t2t"]}, "t2i_in_batch"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"id_loss_weight": -1.0}, "id_loss_weight is -1.0"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"num_context_tokens": 80}, "takes 88 tokens"),
        ({"vision_config": {"image_size": [250, 12]}}, "image_size"),
        ({"vision_config": {"image_size": [250, 128]}, "backbone": "rn50"}, "multiples of 16"),
        ({"vision_config": {"layers": [3, 4, 6]}, "backbone": "rn50"}, "four positive numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_fields_are_named(fields, named):
    with pytest.raises(ConfigurationError, match=named.replace("(", r"\(")):
        CLIPReIDConfig(**fields)
