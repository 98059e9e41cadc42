"""A CLIP of any publisher becomes the zero-shot baseline, with the features that its own library computes."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from reid_zoo.conversion import convert_official_checkpoint, recognise_method
from reid_zoo.errors import CheckpointError, ConfigurationError
from reid_zoo.models.encoders.position_grid import resample_position_grid

torch.set_num_threads(1)

CASES = Path(__file__).parents[2] / "golden" / "cases"
WIDTH, TEXT_WIDTH, DIMENSION, VOCABULARY, LENGTH, END = 64, 64, 24, 60, 12, 59
# Both sides compute in float32 with differently fused projections: rounding only, relative to the largest value.
TOLERANCE = 1e-5


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Weights for which every rule of the conversion matters: no zeros, no ones, layer norms included."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm_weight = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.3 * noise if is_norm_weight else 0.15 * noise)
    return model.eval()


def open_clip_model(quick_gelu: bool = False, custom_text: bool = False) -> torch.nn.Module:
    model_class = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    return randomise(
        model_class(
            embed_dim=DIMENSION,
            vision_cfg=open_clip.CLIPVisionCfg(layers=2, width=WIDTH, head_width=32, patch_size=8, image_size=32),
            text_cfg=open_clip.CLIPTextCfg(
                context_length=LENGTH, vocab_size=VOCABULARY, width=TEXT_WIDTH, heads=2, layers=2
            ),
            quick_gelu=quick_gelu,
        )
    )


def transformers_model() -> CLIPModel:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": LENGTH, "eos_token_id": END, "bos_token_id": END - 1}
    config = CLIPConfig(
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        text_config={**sizes, **text, "pad_token_id": 0},
        projection_dim=DIMENSION,
    )
    return randomise(CLIPModel(config))


HEADS = {"vision_num_attention_heads": 2, "text_num_attention_heads": 2}


def pixels(height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(1))


def sentences() -> torch.Tensor:
    ids = torch.randint(1, END - 1, (3, LENGTH), generator=torch.Generator().manual_seed(2))
    for row, end in enumerate((4, 7, 11)):
        ids[row, end], ids[row, end + 1 :] = END, 0
    return ids


def convert(content, **fields):
    return convert_official_checkpoint("dual_encoder", content, return_report=True, **{**HEADS, **fields})


def assert_same_features(model, image: torch.Tensor, text: torch.Tensor) -> None:
    with torch.no_grad():
        found = (model.get_image_features(pixels()), model.get_text_features(sentences()))
    for features, expected in zip(found, (image, text), strict=True):
        torch.testing.assert_close(
            features.granularities["global"], expected, rtol=0, atol=TOLERANCE * float(expected.abs().max())
        )


@pytest.mark.parametrize("custom_text", [False, True], ids=["plain", "custom-text"])
@pytest.mark.parametrize("quick_gelu", [False, True])
@torch.no_grad()
def test_open_clip(tmp_path, quick_gelu, custom_text):
    source = open_clip_model(quick_gelu, custom_text)
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in source.state_dict().items()}}, tmp_path / "c.pt"
    )
    model, report = convert(tmp_path / "c.pt", hidden_act="quick_gelu" if quick_gelu else "gelu")
    assert_same_features(model, source.encode_image(pixels()), source.encode_text(sentences()))
    assert model.config.training == "zero_shot"
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert report.newly_initialised == []
    assert report.left_out == {"logit_scale": "CLIP's learned temperature; the method's is fixed"}
    assert report.num_converted == len(source.state_dict()) - 1


@torch.no_grad()
def test_transformers(tmp_path):
    source = transformers_model()
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    model, report = convert(tmp_path / "model.safetensors", hidden_act="quick_gelu")
    image, text = source.get_image_features(pixels()), source.get_text_features(sentences())
    assert_same_features(model, image.pooler_output, text.pooler_output)
    assert report.num_converted + len(report.left_out) == len(source.state_dict())
    with_buffers = {**source.state_dict(), "text_model.embeddings.position_ids": torch.arange(LENGTH)[None]}
    assert "text_model.embeddings.position_ids" in convert(with_buffers, hidden_act="gelu")[1].left_out


@torch.no_grad()
def test_openai_state_dictionary_says_its_activation_and_is_upcast():
    source = open_clip_model(quick_gelu=True).half()
    marks = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(LENGTH)}
    model, report = convert({**source.state_dict(), **marks, "vocab_size": torch.tensor(VOCABULARY)})
    source = source.float()
    assert_same_features(model, source.encode_image(pixels()), source.encode_text(sentences()))
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert len(report.upcast) == len(source.state_dict())
    assert set(report.left_out) == {"logit_scale", "input_resolution", "context_length", "vocab_size"}
    marked = {**source.state_dict(), "input_resolution": 32}
    assert convert(marked)[0].config.text_config.hidden_act == "quick_gelu"


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
@torch.no_grad()
def test_openai_torchscript_archive(tmp_path):
    source = open_clip_model(quick_gelu=True)
    source.register_buffer("input_resolution", torch.tensor(32))
    torch.jit.trace(source, (pixels(), sentences()), check_trace=False).save(tmp_path / "ViT-B-16.pt")
    model, report = convert(tmp_path / "ViT-B-16.pt")
    assert_same_features(model, source.encode_image(pixels()), source.encode_text(sentences()))
    assert {"logit_scale", "input_resolution"} <= set(report.left_out)


@torch.no_grad()
def test_the_position_grid_is_resampled_to_the_image_size_asked_for():
    source = open_clip_model()
    model, _ = convert(source.state_dict(), hidden_act="gelu", image_size=[64, 16])
    table = source.visual.positional_embedding
    expected = resample_position_grid(table, (4, 4), (8, 2), align_corners=False)
    assert torch.equal(model.vision_tower.embeddings.position_embedding, expected)
    assert model.config.vision_config.image_size == [64, 16]
    assert model.get_image_features(pixels(64, 16)).embeds.shape == (3, DIMENSION)
    overlapping, _ = convert(source.state_dict(), hidden_act="gelu", image_size=[64, 16], stride_size=4)
    assert overlapping.config.vision_config.grid_size == (15, 3)
    expected = resample_position_grid(table, (4, 4), (15, 3), align_corners=False)
    assert torch.equal(overlapping.vision_tower.embeddings.position_embedding, expected)


@pytest.mark.parametrize("training", ["fine_tuned", "linear_probe"])
@torch.no_grad()
def test_a_clip_may_be_the_start_of_a_training(training):
    source = open_clip_model()
    fields = {"loss_terms": ["sdm", "id"], "num_classes": 5}
    model, report = convert(source.state_dict(), hidden_act="gelu", training=training, **fields)
    assert_same_features(model, source.encode_image(pixels()), source.encode_text(sentences()))
    assert report.newly_initialised == ["identity_loss.classifier.bias", "identity_loss.classifier.weight"]
    assert model.vision_tower.embeddings.class_embedding.requires_grad == (training == "fine_tuned")


def test_what_the_weights_do_not_tell_is_asked_for():
    state = open_clip_model().state_dict()
    with pytest.raises(CheckpointError, match="activation: give hidden_act=quick_gelu"):
        convert(state)
    for tower in ("vision", "text"):
        heads = {name: value for name, value in HEADS.items() if not name.startswith(tower)}
        narrow = dict(state)
        wide = {key: value[:48] if value.shape[:1] == (64,) else value for key, value in narrow.items()}
        if tower == "vision":
            wide["visual.conv1.weight"] = torch.zeros(1280, 3, 8, 8)
        else:
            wide["text_projection"] = torch.zeros(48, DIMENSION)
        with pytest.raises(CheckpointError, match=f"give {tower}_num_attention_heads=N"):
            convert_official_checkpoint("dual_encoder", wide, hidden_act="gelu", **heads)
    given = {"vision_config": {"hidden_act": "gelu"}, "text_config": {"hidden_act": "quick_gelu"}}
    model, _ = convert(state, **given)
    assert model.config.vision_config.hidden_act == "gelu"
    assert model.config.text_config.hidden_act == "quick_gelu"
    with pytest.raises(ConfigurationError, match="unknown field 'image_sizes'"):
        convert(state, hidden_act="gelu", image_sizes=[32, 32])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("text_projection"), "lacks text_projection"),
        (lambda state: state.pop("visual.proj"), "lacks visual.proj"),
        (lambda state: state.pop("visual.ln_post.bias"), "post_layernorm.bias"),
        (lambda state: state.pop("token_embedding.weight"), "token_embedding.weight"),
        (lambda state: state.update(extra=torch.zeros(2)), "unexpected key 'extra'"),
        (lambda state: state.update({"visual.extra": torch.zeros(2)}), "unexpected key 'extra'"),
        (lambda state: state.update({"visual.layer1.0.conv1.weight": torch.zeros(2)}), "ResNet"),
        (lambda state: state.update({"visual.positional_embedding": torch.zeros(8, WIDTH)}), "not 1 . a square grid"),
    ],
)
def test_damaged_checkpoints_name_what_is_wrong(change, message):
    state = dict(open_clip_model().state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=message):
        convert(state, hidden_act="gelu")


@pytest.mark.parametrize("missing", ["text_projection.weight", "visual_projection.weight"])
def test_a_transformers_clip_without_projection_is_refused(missing):
    state = {key: value for key, value in transformers_model().state_dict().items() if key != missing}
    with pytest.raises(CheckpointError, match="no whole CLIP of transformers"):
        convert(state, hidden_act="gelu")


# ---------------------------------------------------------------- the IRRA family


@pytest.fixture(scope="module")
def irra() -> dict[str, torch.Tensor]:
    return load_file(CASES / "irra" / "case_a" / "checkpoint.safetensors")


def family_fields() -> dict:
    import json

    config = json.loads((CASES / "irra" / "case_a" / "config.json").read_text())
    return {"image_size": config["image_size"], "stride_size": config.get("stride_size")}


def test_towers_of_the_family(irra):
    towers = {key: value for key, value in irra.items() if key.startswith("base_model.")}
    model, report = convert({"model": towers, "epoch": 3}, **family_fields())
    assert model.config.loss_terms == ["sdm"]
    assert model.config.training == "fine_tuned"
    assert report.left_out["epoch"] == "not part of the network"
    assert report.num_converted == len(towers) - sum(key in report.left_out for key in towers)
    reference = convert_official_checkpoint("irra", irra, **HEADS, **family_fields())
    assert all(
        torch.equal(value, reference.irra.state_dict()[key]) for key, value in model.dual_encoder.state_dict().items()
    )


def test_a_classifier_of_the_family_is_kept_where_it_is_used(irra):
    state = {key: value for key, value in irra.items() if key.startswith(("base_model.", "classifier."))}
    model, report = convert(state, **family_fields())
    assert model.config.loss_terms == ["sdm", "id"]
    assert torch.equal(model.identity_loss.classifier.weight, irra["classifier.weight"].float())
    assert model.config.num_classes == len(irra["classifier.weight"])
    without, report = convert(state, **family_fields(), loss_terms=["sdm"])
    assert without.identity_loss is None
    assert report.left_out["classifier.weight"] == "the configuration has no identity loss"
    with pytest.raises(CheckpointError, match=r"unexpected key 'other\.weight'"):
        convert({**state, "other.weight": torch.zeros(2)}, **family_fields())


def test_checkpoints_of_other_methods_are_named(irra):
    with pytest.raises(CheckpointError, match="looks like a irra checkpoint"):
        convert(irra)
    assert recognise_method(open_clip_model().state_dict()) == "dual_encoder"
    assert recognise_method(transformers_model().state_dict()) == "dual_encoder"
    with pytest.raises(CheckpointError, match="looks like a dual_encoder checkpoint"):
        convert_official_checkpoint("irra", open_clip_model().state_dict())
    for method in ("cfine", "vfe_tps", "mgcc"):
        for case in sorted((CASES / method).glob("case_*/checkpoint.safetensors")):
            assert recognise_method(load_file(case)) == method
