"""Configuration of IRRA: defaults, what is refused, what survives a file."""

from __future__ import annotations

import pytest

from reid_zoo.auto import ReIDConfig, load_config
from reid_zoo.errors import ConfigurationError
from reid_zoo.models.encoders.configuration_clip_text_transformer import ReIDCLIPTextConfig
from reid_zoo.models.encoders.configuration_vision_transformer import ReIDVisionConfig
from reid_zoo.models.irra.configuration_irra import IRRAConfig


def test_defaults_are_the_released_model():
    config = IRRAConfig()
    assert config.vision_config.image_size == [384, 128]
    assert config.vision_config.num_tokens == 193
    assert (config.projection_dim, config.embedding_size, config.max_text_length) == (512, 512, 77)
    assert (config.cross_modal_num_layers, config.cross_modal_num_attention_heads) == (4, 8)
    assert (config.temperature, config.mask_token_id) == (0.02, 49405)
    assert config.loss_terms == ["sdm", "id", "mlm"]
    assert isinstance(config.vision_config, ReIDVisionConfig)
    assert isinstance(config.text_config, ReIDCLIPTextConfig)


def test_values_follow_from_others():
    config = IRRAConfig(projection_dim=128, text_config={"vocab_size": 100, "max_position_embeddings": 30})
    assert config.cross_modal_num_attention_heads == 2
    assert (config.max_text_length, config.mask_token_id) == (30, 97)
    assert IRRAConfig(projection_dim=32).cross_modal_num_attention_heads == 1
    assert IRRAConfig(vision_config={"num_hidden_layers": 3}).vision_config.image_size == [384, 128]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"loss_terms": []}, "loss_terms"),
        ({"loss_terms": ["sdm", "sdm"]}, "loss_terms"),
        ({"loss_terms": ["sdm", "gvfc"]}, "loss_terms"),
        ({"loss_terms": "sdm"}, "loss_terms"),
        ({"temperature": 0}, "temperature"),
        ({"label_epsilon": -1.0}, "label_epsilon"),
        ({"num_classes": 0}, "num_classes"),
        ({"projection_dim": 0}, "projection_dim"),
        ({"id_loss_weight": -1}, "id_loss_weight"),
        ({"mlm_loss_weight": -0.5}, "mlm_loss_weight"),
        ({"mask_probability": 1.5}, "mask_probability"),
        ({"mask_share": -0.1}, "mask_share"),
        ({"mask_share": 0.8, "random_share": 0.3}, "mask_share = 0.8 and random_share = 0.3 exceed 1"),
        ({"mask_token_id": 49408}, "mask_token_id"),
        ({"mask_token_id": 1}, "mask_token_id"),
        ({"max_text_length": 78}, "max_text_length = 78 exceeds text_config.max_position_embeddings = 77"),
        ({"cross_modal_num_attention_heads": 7}, "cross_modal_num_attention_heads = 7"),
        ({"cross_modal_num_layers": -1}, "cross_modal_num_layers"),
        ({"vision_config": {"image_size": [384, 10]}}, "image_size"),
        ({"text_config": {"num_attention_heads": 7}}, "num_attention_heads = 7"),
        ({"temperature": "warm"}, "temperature"),
        ({"loss_tems": ["sdm"]}, "did you mean 'loss_terms'"),
        ({"text_config": {"vocabulary_size": 9}}, "vocab_size"),
    ],
)
def test_a_bad_value_is_refused_by_name(fields, named):
    with pytest.raises(ConfigurationError, match=named) as caught:
        IRRAConfig(**fields)
    assert "\n" not in str(caught.value)


def test_changed_from_the_default_survives_a_file(tmp_path):
    config = IRRAConfig.from_preset("tiny", loss_terms=["sdm"], mask_matching_captions=False, num_classes=5)
    config.save_pretrained(tmp_path)
    config.transformers_version = IRRAConfig.from_pretrained(tmp_path).transformers_version  # only a file says it
    for load in (IRRAConfig.from_pretrained, ReIDConfig.from_pretrained, load_config):
        again = load(tmp_path)
        assert type(again) is IRRAConfig
        assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize("name", IRRAConfig.presets)
def test_presets_merge_single_fields_of_a_tower(name):
    config = IRRAConfig.from_preset(name)
    changed = IRRAConfig.from_preset(name, vision_config={"num_hidden_layers": 1})
    assert changed.vision_config.num_hidden_layers == 1
    assert changed.vision_config.hidden_size == config.vision_config.hidden_size
    assert IRRAConfig.from_preset(name) == config  # the table itself is not touched


def test_preset_base_is_the_default():
    assert IRRAConfig.from_preset("base") == IRRAConfig()
