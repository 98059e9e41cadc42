"""Configuration of CFine: what is refused, and what survives a file."""

from __future__ import annotations

import json

import pytest
from transformers import BertConfig

from reid_zoo.auto import ReIDConfig, load_config
from reid_zoo.errors import CheckpointError, ConfigurationError
from reid_zoo.models.cfine.configuration_cfine import CFineConfig
from reid_zoo.models.encoders.configuration_vision_transformer import ReIDVisionConfig


def test_defaults_are_the_papers_model():
    config = CFineConfig()
    assert (config.hidden_size, config.embedding_size, config.gld_intermediate_size) == (768, 2304, 3072)
    assert (config.num_image_tokens_per_group, config.num_text_tokens_per_group) == (19, 20)
    assert isinstance(config.vision_config, ReIDVisionConfig)
    assert isinstance(config.text_config, BertConfig)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"gld_attention_type": "crss"}, "gld_attention_type"),
        ({"gld_cls_init": "zero"}, "gld_cls_init"),
        ({"similarity": "dot"}, "similarity"),
        ({"cfr_aggregation": "median"}, "cfr_aggregation"),
        ({"fcd_reduction": "max"}, "fcd_reduction"),
        ({"fcd_softmax": "both"}, "fcd_softmax"),
        ({"cmpm_target_norm": "l3"}, "cmpm_target_norm"),
        ({"triplet_mining": "easy"}, "triplet_mining"),
        ({"triplet_reduction": "max"}, "triplet_reduction"),
        ({"diversity_form": "cosine"}, "diversity_form"),
        ({"granularities": ["high", "low"]}, "granularities"),
        ({"granularities": ["high"]}, "granularities"),
        ({"granularities": ["low", "low"]}, "granularities"),
        ({"granularities": ["low", "lowest"]}, "granularities"),
        ({"granularities": "low"}, "granularities"),
        ({"mgf_split": False}, "mgf_split"),
        ({"vision_config": {"hidden_size": 384}}, r"vision_config\.hidden_size = 384"),
        ({"text_config": {"hidden_size": 384}}, r"text_config\.hidden_size = 384"),
        ({"text_config": {"num_attention_heads": 7}}, r"text_config\.num_attention_heads = 7"),
        ({"gld_num_attention_heads": 7}, "gld_num_attention_heads"),
        ({"gld_num_layers": 0}, "gld_num_layers"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": "many"}, "num_classes"),
        ({"cfr_temperature": 0}, "cfr_temperature"),
        ({"fcd_temperature": -1.0}, "fcd_temperature"),
        ({"cmpm_epsilon": 0.0}, "cmpm_epsilon"),
        ({"triplet_margin": "wide"}, "triplet_margin"),
        ({"max_text_length": 600}, "max_text_length"),
        ({"max_text_length": 64.5}, "max_text_length"),
        ({"cmpm_granularity_weights": [1.0]}, "cmpm_granularity_weights"),
        ({"cmpc_granularity_weights": [1.0, 1.0]}, "cmpc_granularity_weights"),
        ({"image_token_ratio": 0.001}, "image_token_ratio"),
        ({"text_token_ratio": 0.51}, "text_token_ratio"),
        ({"num_positive_words": 21}, "num_positive_words"),
        ({"num_positive_patches": 0}, "num_positive_patches"),
        ({"vision_config": {"image_size": [224, 10]}}, "image_size"),
        ({"vision_config": 3}, "vision_config is a int"),
        ({"text_config": {"vocab_size": "big"}}, "vocab_size"),
    ],
)
def test_a_bad_value_is_refused_by_name(fields, named):
    with pytest.raises(ConfigurationError, match=named) as caught:
        CFineConfig(**fields)
    assert "\n" not in str(caught.value)


def test_selection_is_checked_only_where_it_is_used():
    fields = {"granularities": ["low"], "use_cfr": False, "image_token_ratio": 0.001}
    with pytest.raises(ConfigurationError, match="image_token_ratio"):
        CFineConfig(**fields)
    assert not CFineConfig(use_fcd=False, **fields).needs_token_selection
    assert CFineConfig(use_fcd=False, num_positive_words=50).num_positive_words == 50


@pytest.mark.parametrize(
    ("fields", "suggestion"),
    [
        ({"granularites": ["low"]}, "granularities"),
        ({"vision_config": {"hiden_size": 384}}, "hidden_size"),
        ({"text_config": {"num_hidden_layer": 3}}, "num_hidden_layers"),
    ],
)
def test_a_typo_gets_a_suggestion(fields, suggestion):
    with pytest.raises(ConfigurationError, match=f"did you mean '{suggestion}'"):
        CFineConfig(**fields)


def test_changed_from_the_default_survives_a_file(tmp_path):
    config = CFineConfig.from_preset(
        "tiny", similarity="sum", granularities=["low", "high"], cmpm_granularity_weights=[1, 0.5], num_classes=17
    )
    config.save_pretrained(tmp_path)
    config.transformers_version = CFineConfig.from_pretrained(tmp_path).transformers_version  # only a file says it
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["model_type"] == "cfine"
    for load in (CFineConfig.from_pretrained, ReIDConfig.from_pretrained, load_config):
        again = load(tmp_path)
        assert again.to_dict() == config.to_dict()
        assert again.vision_config.to_dict() == config.vision_config.to_dict()
        assert (again.similarity, again.num_classes, again.granularities) == ("sum", 17, ["low", "high"])
    assert CFineConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_a_typo_in_a_file_is_refused(tmp_path):
    CFineConfig().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"cfr_agregation": "sum"}))
    with pytest.raises(ConfigurationError, match="did you mean 'cfr_aggregation'"):
        load_config(tmp_path)


def test_folders_that_hold_no_model_of_ours(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="without a model_type"):
        load_config(tmp_path)
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="a 'bert' model"):
        load_config(tmp_path)
    with pytest.raises(CheckpointError, match="cannot read a model from 'nobody/nothing'"):
        load_config("nobody/nothing")


@pytest.mark.parametrize("name", CFineConfig.presets)
def test_presets(name):
    config = CFineConfig.from_preset(name)
    changed = CFineConfig.from_preset(name, vision_config={"num_hidden_layers": 1}, num_classes=5)
    assert changed.vision_config.num_hidden_layers == 1
    assert changed.vision_config.hidden_size == config.vision_config.hidden_size
    assert changed.num_classes == 5
    assert CFineConfig.from_preset(name) == config  # the table itself is not touched


def test_preset_base_is_the_default_and_a_configuration_object_replaces():
    assert CFineConfig.from_preset("base") == CFineConfig()
    vision = ReIDVisionConfig(hidden_size=128, num_attention_heads=2, image_size=[64, 64])
    assert CFineConfig.from_preset("tiny", vision_config=vision).vision_config == vision


def test_unknown_presets_get_a_suggestion():
    with pytest.raises(ConfigurationError, match="unknown preset 'smal'; did you mean 'small'"):
        CFineConfig.from_preset("smal")
    with pytest.raises(ConfigurationError, match="did you mean 'num_classes'"):
        CFineConfig.from_preset("tiny", num_clases=3)
