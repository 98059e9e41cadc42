"""Configuration of CLIP's text tower."""

from __future__ import annotations

import json

import pytest

from reid_zoo.errors import ConfigurationError
from reid_zoo.models.encoders.configuration_clip_text_transformer import ReIDCLIPTextConfig
from reid_zoo.models.irra.configuration_irra import IRRAConfig


def test_defaults_are_the_text_tower_of_clip_vit_b16():
    config = ReIDCLIPTextConfig()
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (49408, 512, 12)
    assert (config.num_attention_heads, config.intermediate_size, config.max_position_embeddings) == (8, 2048, 77)
    assert (config.hidden_act, config.layer_norm_eps) == ("quick_gelu", 1e-5)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"hidden_size": 500}, "hidden_size = 500 is not a multiple of num_attention_heads = 8"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"max_position_embeddings": 0}, "max_position_embeddings is 0"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"hiden_size": 512}, "did you mean 'hidden_size'"),
    ],
)
def test_a_bad_value_is_refused_by_name(fields, named):
    with pytest.raises(ConfigurationError, match=named) as caught:
        ReIDCLIPTextConfig(**fields)
    assert "\n" not in str(caught.value)


def test_it_survives_a_file_on_its_own_and_inside_a_methods(tmp_path):
    fields = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 4, "hidden_act": "gelu"}
    ReIDCLIPTextConfig(**fields).save_pretrained(tmp_path / "tower")
    again = ReIDCLIPTextConfig.from_pretrained(tmp_path / "tower")
    assert {name: getattr(again, name) for name in fields} == fields
    IRRAConfig(text_config=fields).save_pretrained(tmp_path / "method")
    stored = json.loads((tmp_path / "method" / "config.json").read_text())["text_config"]
    assert {name: stored[name] for name in fields} == fields
    inner = IRRAConfig.from_pretrained(tmp_path / "method").text_config
    assert isinstance(inner, ReIDCLIPTextConfig)
    assert {name: getattr(inner, name) for name in fields} == fields
