"""Renaming CLIP's text tower: nothing is lost, and what does not belong there is named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from reid_zoo.errors import CheckpointError
from reid_zoo.models.encoders.clip_text_transformer import CLIPTextTransformer
from reid_zoo.models.encoders.configuration_clip_text_transformer import ReIDCLIPTextConfig
from reid_zoo.models.encoders.text_tower_weights import (
    convert_openai_clip_text,
    convert_transformers_clip_text,
    infer_clip_text_sizes,
    is_clip_text_key,
)

SIZES = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "max_position_embeddings": 7,
}


def tower() -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = CLIPTextTransformer(ReIDCLIPTextConfig(**SIZES, num_attention_heads=2))
    return {key: torch.randn_like(value) for key, value in model.state_dict().items()}


def as_openai(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our tower under the names of OpenAI CLIP and OpenCLIP, as the release's own code spells them."""
    names = {
        "token_embedding.weight": "token_embedding.weight",
        "position_embedding": "positional_embedding",
        "final_layernorm.weight": "ln_final.weight",
        "final_layernorm.bias": "ln_final.bias",
    }
    for layer in range(SIZES["num_hidden_layers"]):
        for part in ("weight", "bias"):
            names |= {
                f"layers.{layer}.{ours}{part}": f"transformer.resblocks.{layer}.{theirs}{part}"
                for ours, theirs in (
                    ("layer_norm1.", "ln_1."),
                    ("layer_norm2.", "ln_2."),
                    ("self_attn.in_proj.", "attn.in_proj_"),
                    ("self_attn.out_proj.", "attn.out_proj."),
                    ("mlp.fc1.", "mlp.c_fc."),
                    ("mlp.fc2.", "mlp.c_proj."),
                )
            }
    return {names[key]: value for key, value in state.items()}


def test_openai_names_come_back_as_ours():
    state = tower()
    converted = convert_openai_clip_text(as_openai(state))
    assert converted.keys() == state.keys()
    assert all(torch.equal(converted[key], state[key]) for key in state)


def test_transformers_projections_are_stacked_in_the_order_query_key_value():
    source = CLIPTextModel(CLIPTextConfig(**SIZES, num_attention_heads=2))
    state = {key.removeprefix("text_model."): value for key, value in source.state_dict().items()}
    converted = convert_transformers_clip_text(state | {"embeddings.position_ids": torch.arange(7)[None]})
    assert converted.keys() == tower().keys()
    for part in ("weight", "bias"):
        query_key_value = [state[f"encoder.layers.1.self_attn.{name}_proj.{part}"] for name in "qkv"]
        assert torch.equal(converted[f"layers.1.self_attn.in_proj.{part}"], torch.cat(query_key_value))
    state.pop("encoder.layers.1.self_attn.k_proj.bias")
    with pytest.raises(CheckpointError, match=r"layers\.1\.self_attn\.k_proj\.bias"):
        convert_transformers_clip_text(state)


@pytest.mark.parametrize("convert", [convert_openai_clip_text, convert_transformers_clip_text])
def test_a_foreign_key_is_named(convert):
    with pytest.raises(CheckpointError, match=r"text tower: unexpected key 'prompt\.weight'"):
        convert({"prompt.weight": torch.zeros(1)})


def test_sizes_are_read_from_shapes():
    state = tower()
    assert infer_clip_text_sizes(state) == SIZES
    for key in ("token_embedding.weight", "position_embedding", "layers.0.mlp.fc1.weight"):
        with pytest.raises(CheckpointError, match=f"the CLIP text tower lacks {key}"):
            infer_clip_text_sizes({name: value for name, value in state.items() if name != key})


def test_the_text_towers_keys_are_told_from_the_image_towers():
    text = [*as_openai(tower()), "text_projection"]
    assert all(is_clip_text_key(key) for key in text)
    others = ("visual.proj", "visual.transformer.resblocks.0.ln_1.weight", "logit_scale", "context_length")
    assert not any(is_clip_text_key(key) for key in others)
