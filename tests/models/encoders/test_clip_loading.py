"""A whole CLIP read from every published format embeds sentences and images as the library it comes from does."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from reid_zoo.errors import CheckpointError, ConfigurationError
from reid_zoo.models.encoders.clip_loading import CLIPTextTower, load_clip_text_tower
from reid_zoo.models.encoders.clip_text_transformer import CLIPTextTransformer, end_of_text_indices
from reid_zoo.models.irra.modeling_irra import IRRAModel
from reid_zoo.models.vfe_tps.modeling_vfe_tps import VFETPSForTraining

torch.set_num_threads(1)

# Rounding of float32 on both sides, relative to values around 1.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
VOCABULARY, LENGTH, DIMENSION = 30, 10, 16
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def randomise(model: nn.Module) -> nn.Module:
    """Weights for which every rule of the conversion matters: no zeros, no ones, layer norms included."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm_weight = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.3 * noise if is_norm_weight else 0.15 * noise)
    return model.eval()


def sentences() -> Tensor:
    ids = torch.randint(1, VOCABULARY - 2, (4, LENGTH), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = VOCABULARY - 2
    for row, end in enumerate((2, 9, 5, 7)):
        ids[row, end], ids[row, end + 1 :] = VOCABULARY - 1, 0
    return ids


def pixels(height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def embed(tower: CLIPTextTower) -> Tensor:
    model = CLIPTextTransformer(tower.config)
    model.load_state_dict(tower.state)
    tokens = model.eval()(sentences()).last_hidden_state
    return tokens[torch.arange(4), end_of_text_indices(sentences())] @ tower.text_projection.T


def open_clip_model(*, quick_gelu: bool, custom_text: bool = False):
    import open_clip

    kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    return randomise(
        kind(
            embed_dim=DIMENSION,
            vision_cfg={
                "image_size": 32,
                "layers": 2,
                "width": 32,
                "head_width": 16,
                "patch_size": 8,
                "mlp_ratio": 2.0,
            },
            text_cfg={
                "context_length": LENGTH,
                "vocab_size": VOCABULARY,
                "width": 32,
                "heads": 2,
                "layers": 2,
                "mlp_ratio": 2.0,
            },
            quick_gelu=quick_gelu,
        )
    )


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.contiguous() for key, value in model.state_dict().items() if value.is_floating_point()}


def open_clip_config(*, quick_gelu: bool) -> str:
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    model = {"embed_dim": DIMENSION, "quick_gelu": quick_gelu, "vision_cfg": vision, "text_cfg": {"heads": 2}}
    return json.dumps({"model_cfg": model})


def transformers_model(activation: str = "quick_gelu") -> CLIPModel:
    vision = {**SIZES, "image_size": 32, "patch_size": 8, "hidden_act": activation, "projection_dim": DIMENSION}
    text = {
        **SIZES,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": LENGTH,
        "hidden_act": activation,
        "eos_token_id": VOCABULARY - 1,
        "projection_dim": DIMENSION,
    }
    return randomise(CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=DIMENSION)))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_transformers_clip(tmp_path, activation):
    source = transformers_model(activation)
    source.save_pretrained(tmp_path)
    for place in (tmp_path, tmp_path / "model.safetensors"):
        tower = load_clip_text_tower(place)
        assert tower.config.hidden_act == activation
        torch.testing.assert_close(embed(tower), source.get_text_features(sentences()).pooler_output, **CLOSE)
        assert torch.equal(tower.visual_projection, source.visual_projection.weight)


@pytest.mark.parametrize("custom_text", [False, True], ids=["CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize("quick_gelu", [False, True])
@torch.no_grad()
def test_open_clip(tmp_path, quick_gelu, custom_text):
    source = open_clip_model(quick_gelu=quick_gelu, custom_text=custom_text)
    save_file(weights(source), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(open_clip_config(quick_gelu=quick_gelu))
    for place in (tmp_path, tmp_path / "open_clip_model.safetensors"):
        tower = load_clip_text_tower(place)
        torch.testing.assert_close(embed(tower), source.encode_text(sentences()), **CLOSE)
        assert torch.equal(tower.visual_projection, source.visual.proj.T)


@torch.no_grad()
def test_openai_clip_in_half_precision(tmp_path):
    """The released state dictionary: half-precision weights, and three numbers that no other CLIP carries."""
    source = open_clip_model(quick_gelu=True)
    halved = {key: value.half() for key, value in weights(source).items()}
    source.load_state_dict(halved, strict=False)
    numbers = {"input_resolution": 32, "context_length": LENGTH, "vocab_size": VOCABULARY}
    torch.save(halved | {key: torch.tensor(value) for key, value in numbers.items()}, tmp_path / "ViT-B-16.pt")
    tower = load_clip_text_tower(tmp_path / "ViT-B-16.pt", num_attention_heads=2)
    assert tower.config.hidden_act == "quick_gelu"
    assert {value.dtype for value in (*tower.state.values(), tower.text_projection)} == {torch.float32}
    torch.testing.assert_close(embed(tower), source.encode_text(sentences()), **CLOSE)


@pytest.mark.parametrize("model_class", [IRRAModel, VFETPSForTraining])
@torch.no_grad()
def test_a_model_from_towers_ranks_as_the_library_does(tmp_path, model_class):
    source = transformers_model()
    source.save_pretrained(tmp_path)
    model = model_class.from_towers(tmp_path, image_size=32, num_classes=3)
    images, texts = model.get_image_features(pixels()), model.get_text_features(sentences())
    expected_images = source.get_image_features(pixels()).pooler_output
    expected_texts = source.get_text_features(sentences()).pooler_output
    torch.testing.assert_close(images.granularities["global"], expected_images, **CLOSE)
    torch.testing.assert_close(texts.granularities["global"], expected_texts, **CLOSE)
    cosines = torch.cosine_similarity(expected_texts[:, None], expected_images[None], dim=2)
    torch.testing.assert_close(model.similarity(texts, images), cosines, **CLOSE)


@torch.no_grad()
def test_another_clip_for_the_sentences_must_have_the_same_joint_width(tmp_path):
    source = transformers_model()
    source.save_pretrained(tmp_path / "images")
    other = randomise(CLIPModel(CLIPConfig.from_dict(source.config.to_dict() | {"projection_dim": DIMENSION})))
    other.text_projection.weight.neg_()
    other.save_pretrained(tmp_path / "texts")
    model = IRRAModel.from_towers(tmp_path / "images", tmp_path / "texts", image_size=32)
    expected = other.get_text_features(sentences()).pooler_output
    torch.testing.assert_close(model.get_text_features(sentences()).granularities["global"], expected, **CLOSE)
    narrow = CLIPModel(CLIPConfig.from_dict(source.config.to_dict() | {"projection_dim": 8}))
    narrow.save_pretrained(tmp_path / "narrow")
    with pytest.raises(CheckpointError, match=r"projects images to 16 numbers, .*narrow texts to 8"):
        IRRAModel.from_towers(tmp_path / "images", tmp_path / "narrow", image_size=32)


def test_a_bare_file_must_be_told_its_activation(tmp_path):
    save_file(weights(open_clip_model(quick_gelu=False)), tmp_path / "clip.safetensors")
    with pytest.raises(CheckpointError, match=r"does not tell its activation: give text_config=\{'hidden_act'"):
        load_clip_text_tower(tmp_path / "clip.safetensors")
    assert load_clip_text_tower(tmp_path / "clip.safetensors", hidden_act="gelu").config.hidden_act == "gelu"


def test_what_is_no_whole_clip_is_refused_by_name(tmp_path):
    state = weights(open_clip_model(quick_gelu=True))
    for missing in ("text_projection", "visual.proj"):
        save_file({key: value for key, value in state.items() if key != missing}, tmp_path / "clip.safetensors")
        with pytest.raises(CheckpointError, match=r"clip\.safetensors is no whole CLIP"):
            load_clip_text_tower(tmp_path / "clip.safetensors", hidden_act="quick_gelu")
    for missing, named in (
        ("ln_final.weight", "final_layernorm.weight"),
        ("transformer.resblocks.1.mlp.c_fc.bias", "layers.1.mlp.fc1.bias"),
        ("token_embedding.weight", "token_embedding.weight"),
    ):
        save_file({key: value for key, value in state.items() if key != missing}, tmp_path / "clip.safetensors")
        with pytest.raises(CheckpointError, match=named):
            load_clip_text_tower(tmp_path / "clip.safetensors", hidden_act="quick_gelu")
    save_file(state | {"transformer.resblocks.0.adapter.weight": torch.zeros(2)}, tmp_path / "clip.safetensors")
    with pytest.raises(CheckpointError, match="adapter"):
        load_clip_text_tower(tmp_path / "clip.safetensors", hidden_act="quick_gelu")


def test_nothing_there_and_unknown_fields(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_clip_text_tower(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="holds no CLIP"):
        load_clip_text_tower(tmp_path)
    with pytest.raises(ConfigurationError, match="did you mean 'hidden_act'"):
        load_clip_text_tower(tmp_path, hiden_act="gelu")


def test_a_field_that_the_weights_contradict(tmp_path):
    transformers_model().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"token_embedding\.weight has shape"):
        load_clip_text_tower(tmp_path, vocab_size=VOCABULARY + 1)
    with pytest.raises(ConfigurationError, match="num_attention_heads = 5"):
        load_clip_text_tower(tmp_path, num_attention_heads=5)
