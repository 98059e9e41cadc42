"""Towers filled from published formats compute what the library they come from computes."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    ViTConfig,
    ViTModel,
)

from reid_zoo.errors import CheckpointError, ConfigurationError
from reid_zoo.models.cfine.configuration_cfine import CFineConfig
from reid_zoo.models.cfine.modeling_cfine import CFineForTraining, CFineModel
from reid_zoo.models.encoders.position_grid import resample_position_grid
from reid_zoo.models.encoders.tower_loading import load_image_tower, load_text_tower
from reid_zoo.models.encoders.vision_transformer import VisionTransformer

torch.set_num_threads(1)

# Both sides compute in float32 with differently fused projections: rounding only.
CLOSE = {"rtol": 0, "atol": 2e-5}
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 8}


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Weights for which every rule of the conversion matters: no zeros, no ones, layer norms included."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm_weight = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.3 * noise if is_norm_weight else 0.15 * noise)
    return model.eval()


def built(tower) -> VisionTransformer:
    model = VisionTransformer(tower.config)
    model.load_state_dict(tower.state)
    return model.eval()


def pixels(height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def clip_config():
    return CLIPVisionConfig(**SIZES, image_size=32)


@torch.no_grad()
def tokens_of_clip(model: CLIPVisionModel, images: torch.Tensor) -> torch.Tensor:
    return model.post_layernorm(model(images).last_hidden_state)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_transformers_clip_vision_model(tmp_path, activation):
    source = randomise(CLIPVisionModel(CLIPVisionConfig(**SIZES, image_size=32, hidden_act=activation)))
    source.save_pretrained(tmp_path)
    tower = load_image_tower(tmp_path)
    assert tower.config.hidden_act == activation
    torch.testing.assert_close(built(tower)(pixels()).last_hidden_state, tokens_of_clip(source, pixels()), **CLOSE)


@torch.no_grad()
def test_clip_folders_with_projection_and_text_tower(tmp_path, clip_config, caplog):
    projected = randomise(CLIPVisionModelWithProjection(clip_config))
    projected.save_pretrained(tmp_path / "projected")
    both = randomise(
        CLIPModel(
            CLIPConfig(vision_config=clip_config.to_dict(), text_config={"num_hidden_layers": 1, "vocab_size": 9})
        )
    )
    both.half().save_pretrained(tmp_path / "both")
    caplog.clear()
    for name, vision in (("projected", projected.vision_model), ("both", both.float().vision_model)):
        tower = load_image_tower(tmp_path / name)
        assert {value.dtype for value in tower.state.values()} == {torch.float32}
        torch.testing.assert_close(built(tower)(pixels()).last_hidden_state, tokens_of_clip(vision, pixels()), **CLOSE)
    assert not caplog.records  # left-out heads are expected and not worth a warning


def test_a_weight_file_inside_a_transformers_folder_means_the_folder(tmp_path, clip_config):
    randomise(CLIPVisionModel(clip_config)).save_pretrained(tmp_path)
    by_file, by_folder = load_image_tower(tmp_path / "model.safetensors"), load_image_tower(tmp_path)
    assert by_file.config == by_folder.config
    assert all(torch.equal(by_file.state[key], by_folder.state[key]) for key in by_folder.state)


def open_clip_model(quick_gelu: bool):
    import open_clip

    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8},
        text_cfg={"context_length": 8, "vocab_size": 20, "width": 32, "heads": 2, "layers": 1},
        quick_gelu=quick_gelu,
    )
    return randomise(model)


@torch.no_grad()
def tokens_of_open_clip(model, images: torch.Tensor) -> torch.Tensor:
    """All tokens after the last layer norm, before the projection."""
    visual = model.visual
    visual.output_tokens, visual.proj = True, None
    pooled, patches = visual(images)
    normed = visual.ln_post(visual.transformer(visual._embeds(images)))
    torch.testing.assert_close(pooled, normed[:, 0])
    assert patches.shape[1] == normed.shape[1] - 1
    return normed


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_open_clip_folder(tmp_path, quick_gelu, file):
    source = open_clip_model(quick_gelu)
    state = {key: value.contiguous() for key, value in source.state_dict().items()}
    (save_file if file.endswith("safetensors") else torch.save)(state, tmp_path / file)
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {"embed_dim": 16, "quick_gelu": quick_gelu, "vision_cfg": vision}})
    )
    expected = tokens_of_open_clip(source, pixels())
    for place in (tmp_path, tmp_path / file):
        tower = load_image_tower(place)
        assert tower.config.hidden_act == ("quick_gelu" if quick_gelu else "gelu")
        torch.testing.assert_close(built(tower)(pixels()).last_hidden_state, expected, **CLOSE)


@pytest.mark.parametrize("wrapped", [False, True])
def test_bare_open_clip_file_needs_to_be_told_its_activation(tmp_path, wrapped):
    source = open_clip_model(quick_gelu=False)
    state = source.state_dict()
    if wrapped:  # as open_clip's training writes it
        state = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(state, tmp_path / "epoch_3.pt")
    with pytest.raises(CheckpointError, match="hidden_act"):
        load_image_tower(tmp_path / "epoch_3.pt")
    tower = load_image_tower(tmp_path / "epoch_3.pt", hidden_act="gelu", num_attention_heads=4)
    torch.testing.assert_close(built(tower)(pixels()).last_hidden_state, tokens_of_open_clip(source, pixels()), **CLOSE)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_openai_state_dictionary_in_half_precision(tmp_path, suffix):
    source = open_clip_model(quick_gelu=True).half()
    state = {key: value.contiguous() for key, value in source.state_dict().items()}
    marks = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(8), "vocab_size": torch.tensor(20)}
    file = tmp_path / f"ViT-toy{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state | marks, file)
    tower = load_image_tower(file, num_attention_heads=4)
    assert tower.config.hidden_act == "quick_gelu"
    assert {value.dtype for value in tower.state.values()} == {torch.float32}
    torch.testing.assert_close(
        built(tower)(pixels()).last_hidden_state, tokens_of_open_clip(source.float(), pixels()), **CLOSE
    )
    assert load_image_tower(file).config.num_attention_heads == 1  # OpenAI's rule: width / 64


@pytest.mark.parametrize("qkv_bias", [True, False])
@torch.no_grad()
def test_transformers_vit(tmp_path, qkv_bias):
    source = randomise(ViTModel(ViTConfig(**SIZES, image_size=32, qkv_bias=qkv_bias, hidden_dropout_prob=0.1)))
    source.save_pretrained(tmp_path)
    tower = load_image_tower(tmp_path)
    assert (tower.config.hidden_act, tower.config.layer_norm_eps) == ("gelu", 1e-12)
    assert tower.config.hidden_dropout_prob == 0.1
    torch.testing.assert_close(built(tower)(pixels()).last_hidden_state, source(pixels()).last_hidden_state, **CLOSE)


def jax_arrays(source: ViTModel) -> dict[str, np.ndarray]:
    """The weights of `source` as the original release stores them."""
    state = {key: value.numpy() for key, value in source.state_dict().items()}
    width, heads = source.config.hidden_size, source.config.num_attention_heads
    arrays = {
        "cls": state["embeddings.cls_token"],
        "embedding/kernel": state["embeddings.patch_embeddings.projection.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["embeddings.patch_embeddings.projection.bias"],
        "Transformer/posembed_input/pos_embedding": state["embeddings.position_embeddings"],
        "Transformer/encoder_norm/scale": state["layernorm.weight"],
        "Transformer/encoder_norm/bias": state["layernorm.bias"],
        "head/kernel": np.zeros((width, 10), dtype=np.float32),
        "head/bias": np.zeros(10, dtype=np.float32),
    }
    for layer in range(source.config.num_hidden_layers):
        block, ours = f"Transformer/encoderblock_{layer}", f"layers.{layer}"
        for jax, norm in (("LayerNorm_0", "layernorm_before"), ("LayerNorm_2", "layernorm_after")):
            arrays[f"{block}/{jax}/scale"] = state[f"{ours}.{norm}.weight"]
            arrays[f"{block}/{jax}/bias"] = state[f"{ours}.{norm}.bias"]
        for jax, mine in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
            attention = f"{block}/MultiHeadDotProductAttention_1/{jax}"
            weight = state[f"{ours}.attention.{mine}.weight"]
            arrays[f"{attention}/kernel"] = weight.T.reshape(width, heads, width // heads)
            arrays[f"{attention}/bias"] = state[f"{ours}.attention.{mine}.bias"].reshape(heads, width // heads)
        out = f"{block}/MultiHeadDotProductAttention_1/out"
        arrays[f"{out}/kernel"] = state[f"{ours}.attention.o_proj.weight"].T.reshape(heads, width // heads, width)
        arrays[f"{out}/bias"] = state[f"{ours}.attention.o_proj.bias"]
        for jax, mine in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
            arrays[f"{block}/MlpBlock_3/{jax}/kernel"] = state[f"{ours}.mlp.{mine}.weight"].T
            arrays[f"{block}/MlpBlock_3/{jax}/bias"] = state[f"{ours}.mlp.{mine}.bias"]
    return arrays


@pytest.fixture(scope="module")
def vit():
    return randomise(ViTModel(ViTConfig(**SIZES, image_size=48, layer_norm_eps=1e-6), add_pooling_layer=False))


@torch.no_grad()
def test_jax_release_of_an_imagenet_vit(tmp_path, vit):
    file = tmp_path / "ViT.npz"
    np.savez(file, **jax_arrays(vit))
    tower = load_image_tower(file)
    assert (tower.config.num_attention_heads, tower.config.hidden_act) == (4, "gelu")
    assert (tower.config.layer_norm_eps, tower.config.hidden_dropout_prob) == (1e-6, 0.1)
    assert tower.config.image_size == [48, 48]
    images = pixels(48, 48)
    torch.testing.assert_close(built(tower)(images).last_hidden_state, vit(images).last_hidden_state, **CLOSE)

    small = load_image_tower(file, image_size=(32, 16))
    positions = resample_position_grid(vit.embeddings.position_embeddings[0], (6, 6), (4, 2))
    torch.testing.assert_close(small.state["embeddings.position_embedding"], positions)
    assert built(small)(pixels(32, 16)).last_hidden_state.shape == (3, 9, 64)


def test_damaged_jax_files(tmp_path, vit):
    arrays = jax_arrays(vit)
    arrays.pop("Transformer/encoderblock_1/MlpBlock_3/Dense_1/bias")
    np.savez(tmp_path / "incomplete.npz", **arrays)
    with pytest.raises(CheckpointError, match=r"incomplete\.npz.*Dense_1/bias"):
        load_image_tower(tmp_path / "incomplete.npz")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(CheckpointError, match=r"torn\.npz"):
        load_image_tower(tmp_path / "torn.npz")
    np.savez(tmp_path / "objects.npz", cls=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match=r"objects\.npz"):  # an object array is a pickle
        load_image_tower(tmp_path / "objects.npz")


@torch.no_grad()
def test_timm_vision_transformer(tmp_path):
    from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer

    source = randomise(
        TimmVisionTransformer(img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=4, mlp_ratio=2, num_classes=5)
    )
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    tower = load_image_tower(tmp_path / "vit.pth", num_attention_heads=4)
    expected = source.forward_features(pixels())
    torch.testing.assert_close(built(tower)(pixels()).last_hidden_state, expected, **CLOSE)

    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(source.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "vit_toy_patch8"}))
    from_folder = load_image_tower(folder, num_attention_heads=4)
    assert all(torch.equal(from_folder.state[key], value) for key, value in tower.state.items())

    clip_like = randomise(
        TimmVisionTransformer(
            img_size=32,
            patch_size=8,
            embed_dim=64,
            depth=1,
            num_heads=4,
            pre_norm=True,
            num_classes=0,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-5),
        )
    )
    torch.save(clip_like.state_dict(), tmp_path / "clip_like.pth")
    with pytest.raises(CheckpointError, match="hidden_act"):
        load_image_tower(tmp_path / "clip_like.pth")
    tower = load_image_tower(tmp_path / "clip_like.pth", hidden_act="gelu", num_attention_heads=4)
    torch.testing.assert_close(built(tower)(pixels()).last_hidden_state, clip_like.forward_features(pixels()), **CLOSE)


def tiny_bert(width: int = 64) -> BertConfig:
    return BertConfig(
        vocab_size=40,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=32,
    )


@pytest.mark.parametrize("source_class", [BertModel, BertForMaskedLM])
@torch.no_grad()
def test_bert(tmp_path, source_class):
    source = randomise(source_class(tiny_bert()))
    source.save_pretrained(tmp_path)
    tower = load_text_tower(tmp_path, hidden_dropout_prob=0.3)
    assert tower.config.hidden_dropout_prob == 0.3
    model = BertModel(tower.config, add_pooling_layer=False).eval()
    model.load_state_dict(tower.state)
    ids = torch.arange(20).reshape(2, 10)
    expected = getattr(source, "bert", source)(ids).last_hidden_state
    torch.testing.assert_close(model(ids).last_hidden_state, expected, **CLOSE)


@pytest.fixture(scope="module")
def towers(tmp_path_factory, clip_config):
    root = tmp_path_factory.mktemp("towers")
    randomise(CLIPVisionModel(clip_config)).save_pretrained(root / "clip")
    randomise(BertModel(tiny_bert())).save_pretrained(root / "bert")
    randomise(BertModel(tiny_bert(width=32))).save_pretrained(root / "narrow")
    return root


# 17 patches and 20 words leave few tokens per group
FIELDS = {"max_text_length": 20, "image_token_ratio": 0.25, "num_classes": 5}


@pytest.mark.parametrize("model_class", [CFineModel, CFineForTraining])
@torch.no_grad()
def test_cfine_from_two_towers(towers, tmp_path, model_class):
    model = model_class.from_towers(towers / "clip", towers / "bert", **FIELDS)
    assert not model.training
    assert model.config.gld_num_attention_heads == 4
    features = model.get_image_features(pixels())
    expected = tokens_of_clip(CLIPVisionModel.from_pretrained(towers / "clip"), pixels())
    torch.testing.assert_close(features.tokens, expected, **CLOSE)
    ids = torch.arange(40).reshape(2, 20)
    mask = torch.ones_like(ids)
    bert = BertModel.from_pretrained(towers / "bert")
    torch.testing.assert_close(
        model.get_text_features(ids, attention_mask=mask).tokens, bert(ids, mask).last_hidden_state, **CLOSE
    )
    model.save_pretrained(tmp_path / "saved")
    again = model_class.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(again.get_image_features(pixels()).embeds, features.embeds, rtol=0, atol=0)


def test_other_image_size_and_single_fields(towers):
    model = CFineModel.from_towers(
        towers / "clip",
        towers / "bert",
        image_size=(64, 24),
        vision_config={"hidden_dropout_prob": 0.25},
        text_config={"hidden_dropout_prob": 0.0},
        similarity="sum",
        **FIELDS,
    )
    assert model.config.vision_config.image_size == [64, 24]
    assert model.config.vision_config.hidden_dropout_prob == 0.25
    assert model.config.text_config.hidden_dropout_prob == 0.0
    assert model.config.similarity == "sum"
    source = load_file(towers / "clip" / "model.safetensors")
    key = next(key for key in source if key.endswith("position_embedding.weight"))
    expected = resample_position_grid(source[key], (4, 4), (8, 3))
    torch.testing.assert_close(model.vision_tower.embeddings.position_embedding.data, expected)
    assert CFineModel.from_towers(towers / "clip", image_size=48, **FIELDS).config.vision_config.image_size == [48, 48]


def test_without_text_tower_a_new_one_of_the_same_width_is_made(towers):
    model = CFineModel.from_towers(towers / "clip", preset="tiny", text_config={"vocab_size": 50}, num_classes=5)
    assert model.config.text_config.hidden_size == 64
    assert model.config.text_config.vocab_size == 50
    assert model.config.text_config.num_hidden_layers == CFineConfig.from_preset("tiny").text_config.num_hidden_layers
    assert model.config.max_text_length == CFineConfig.from_preset("tiny").max_text_length


def test_a_grid_that_is_not_square_is_taken_as_given(towers, tmp_path):
    tower = load_image_tower(towers / "clip", image_size=(48, 16))  # 12 patches
    visual = {
        "visual.class_embedding": tower.state["embeddings.class_embedding"],
        "visual.positional_embedding": tower.state["embeddings.position_embedding"],
        "visual.conv1.weight": tower.state["embeddings.patch_embedding.weight"],
    }
    for key, value in tower.state.items():
        key = key.replace("pre_layernorm", "ln_pre").replace("post_layernorm", "ln_post").replace("layer_norm", "ln_")
        key = key.replace("layers.", "transformer.resblocks.").replace("self_attn.in_proj.", "attn.in_proj_")
        key = key.replace("self_attn", "attn").replace("fc1", "c_fc").replace("fc2", "c_proj")
        if not key.startswith("embeddings."):
            visual[f"visual.{key}"] = value
    save_file(visual, tmp_path / "oblong.safetensors")
    options = {"hidden_act": "quick_gelu", "num_attention_heads": 4}
    again = load_image_tower(tmp_path / "oblong.safetensors", image_size=(48, 16), **options)
    assert all(torch.equal(again.state[key], value) for key, value in tower.state.items())
    with pytest.raises(ConfigurationError, match="square"):
        load_image_tower(tmp_path / "oblong.safetensors", image_size=(64, 32), **options)
    # 16 patches as 4×4 in the source, 8×2 wanted: as many rows, yet they must be resampled
    square = load_image_tower(towers / "clip")
    oblong = load_image_tower(towers / "clip", image_size=(64, 16))
    key = "embeddings.position_embedding"
    torch.testing.assert_close(oblong.state[key], resample_position_grid(square.state[key], (4, 4), (8, 2)))


def test_towers_of_different_width(towers):
    with pytest.raises(CheckpointError, match=r"clip 64.*narrow 32"):
        CFineModel.from_towers(towers / "clip", towers / "narrow", **FIELDS)


@pytest.mark.parametrize(
    "name", ["no/such/folder", "./nowhere", "missing.npz", "missing/model.safetensors", "nobody/nothing"]
)
def test_nothing_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for load in (load_image_tower, load_text_tower):
        with pytest.raises(CheckpointError, match=name):
            load(name)


def test_unknown_formats_are_refused_by_name(towers, tmp_path):
    with pytest.raises(CheckpointError, match="'bert' model; the image tower must be a CLIP or a ViT"):
        load_image_tower(towers / "bert")
    with pytest.raises(CheckpointError, match="'clip_vision_model' model; the text tower must be a BERT"):
        load_text_tower(towers / "clip")
    with pytest.raises(CheckpointError, match="is a file; give the folder"):
        load_text_tower(towers / "bert" / "model.safetensors")
    with pytest.raises(CheckpointError, match="holds no image tower"):
        load_image_tower(tmp_path)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_text_tower(tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt.*holds a, "):
        load_image_tower(tmp_path / "other.pt")
    torch.save({"visual.layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pt")
    with pytest.raises(CheckpointError, match=r"resnet\.pt.*not a plain vision transformer"):
        load_image_tower(tmp_path / "resnet.pt")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load_image_tower(tmp_path / "broken")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_torchscript_archives_as_openai_publishes_them(tmp_path):
    source = open_clip_model(quick_gelu=True).eval()
    source.register_buffer("input_resolution", torch.tensor(32))  # one of OpenAI's marks
    example = pixels()[:1], torch.zeros(1, 8, dtype=torch.long)
    torch.jit.trace(source, example, check_trace=False).save(tmp_path / "ViT-B-16.pt")
    tower = load_image_tower(tmp_path / "ViT-B-16.pt", num_attention_heads=4)
    assert tower.config.hidden_act == "quick_gelu"
    torch.testing.assert_close(built(tower)(pixels()).last_hidden_state, tokens_of_open_clip(source, pixels()), **CLOSE)


def test_incomplete_checkpoints_name_what_is_missing(tmp_path, towers):
    state = open_clip_model(quick_gelu=True).half().state_dict()
    for missing, named in {
        "visual.ln_post.bias": "post_layernorm.bias",
        "visual.positional_embedding": "position embedding",
        "visual.conv1.weight": "patch_embedding.weight",
        "visual.transformer.resblocks.1.mlp.c_fc.weight": r"layers\.1\.mlp\.fc1\.weight",
    }.items():
        torch.save({key: value for key, value in state.items() if key != missing}, tmp_path / "part.pt")
        with pytest.raises(CheckpointError, match=rf"part\.pt.*{named}"):
            load_image_tower(tmp_path / "part.pt", num_attention_heads=4)
    torch.save(state | {"visual.transformer.resblocks.0.ls_1.gamma": torch.ones(64)}, tmp_path / "more.pt")
    with pytest.raises(CheckpointError, match=r"ls_1\.gamma"):
        load_image_tower(tmp_path / "more.pt")
    for kind, load in (("clip", load_image_tower), ("bert", load_text_tower)):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "config.json").write_text((towers / kind / "config.json").read_text())
        weights = load_file(towers / kind / "model.safetensors")
        dropped = next(key for key in weights if key.endswith(("layer_norm1.weight", "query.weight")))
        save_file(
            {key: value for key, value in weights.items() if key != dropped},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )
        with pytest.raises(CheckpointError, match=dropped.rsplit(".", 2)[1]):
            load(folder)


def test_options_that_the_weights_contradict(tmp_path, towers):
    with pytest.raises(CheckpointError, match="has shape"):
        load_image_tower(towers / "clip", intermediate_size=100)
    with pytest.raises(ConfigurationError, match="hiden_act"):
        load_image_tower(towers / "clip", hiden_act="gelu")
    with pytest.raises(ConfigurationError, match="hidden_drop"):
        load_text_tower(towers / "bert", hidden_drop=0.1)
    with pytest.raises(ConfigurationError, match="image_size"):
        load_image_tower(towers / "clip", image_size=(3, 32))
    with pytest.raises(ConfigurationError, match="give image_size once"):
        CFineModel.from_towers(towers / "clip", image_size=(32, 32), vision_config={"image_size": 64})
    with pytest.raises(ConfigurationError, match="unknown preset"):
        CFineModel.from_towers(towers / "clip", preset="huge")


def test_heads_that_no_rule_tells(tmp_path, vit):
    arrays = jax_arrays(vit)
    for name in ("query", "key", "value"):  # some copies of the release store flat kernels
        key = f"Transformer/encoderblock_0/MultiHeadDotProductAttention_1/{name}/kernel"
        arrays[key] = arrays[key].reshape(64, 64)
    np.savez(tmp_path / "flat.npz", **arrays)
    assert load_image_tower(tmp_path / "flat.npz").config.num_attention_heads == 1
    state = {"visual.class_embedding": torch.zeros(1280), "visual.positional_embedding": torch.zeros(5, 1280)}
    state["visual.conv1.weight"] = torch.zeros(1280, 3, 1, 1)
    state["visual.transformer.resblocks.0.mlp.c_fc.weight"] = torch.zeros(1, 1280)
    torch.save(state, tmp_path / "huge.pt")
    with pytest.raises(CheckpointError, match=r"1280.*num_attention_heads"):
        load_image_tower(tmp_path / "huge.pt", hidden_act="gelu")


def test_approximate_gelu_is_refused(tmp_path):
    source = open_clip_model(quick_gelu=False)
    save_file({k: v.contiguous() for k, v in source.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    config = {"model_cfg": {"vision_cfg": {"act_kwargs": {"approximate": "tanh"}}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="act_kwargs"):
        load_image_tower(tmp_path)
