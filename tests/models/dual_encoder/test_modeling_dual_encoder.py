"""The plain baselines as a user meets them: every switch, what is trained and what is not, loading and published towers."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel, BertConfig, BertModel, CLIPConfig, CLIPModel, ViTConfig, ViTModel
from transformers.utils import logging as transformers_logging

from reid_zoo import ReIDModel, ReIDModelForTraining, ReIDProcessor
from reid_zoo.errors import CheckpointError, ConfigurationError
from reid_zoo.losses import CMPMLoss, IdentityLoss, InfoNCELoss, SDMLoss
from reid_zoo.models.dual_encoder.configuration_dual_encoder import LOSS_TERMS, DualEncoderConfig
from reid_zoo.models.dual_encoder.modeling_dual_encoder import DualEncoderForTraining, DualEncoderModel
from reid_zoo.models.encoders.configuration_clip_text_transformer import ReIDCLIPTextConfig
from reid_zoo.models.irra.configuration_irra import IRRAConfig
from reid_zoo.models.irra.modeling_irra import IRRAModel
from tiny_clip_models import (
    BATCH,
    CLASSES,
    DIMENSION,
    END,
    LABELS,
    LENGTH,
    VOCABULARY,
    config_fields,
    images,
    same_weights,
)
from tiny_clip_models import sentences as clip_sentences

torch.set_num_threads(1)

ENDS = (5, 11, 7, 3, 9, 8)
ALL_TERMS = {"loss_terms": list(LOSS_TERMS)}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def dual_encoder_config(**fields) -> DualEncoderConfig:
    if fields.get("text_encoder") == "bert":
        fields["text_config"] = {**NO_DROPOUT, **fields.get("text_config", {})}
    shared = config_fields(**fields)
    return DualEncoderConfig(**{name: value for name, value in shared.items() if not name.startswith("cross_modal")})


def build(model_class: type = DualEncoderForTraining, seed: int = 0, **fields):
    """A model whose every weight matters: noise on top of the initialisation."""
    torch.manual_seed(seed)
    model = model_class(dual_encoder_config(**fields))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def sentences(text_encoder: str = "clip") -> dict[str, torch.Tensor]:
    """As a processor gives them: padding 0 behind what is real, for BERT without an end-of-text id."""
    ids = clip_sentences(ENDS)
    mask = (torch.arange(LENGTH) <= torch.tensor(ENDS)[:, None]).long()
    return {"input_ids": ids if text_encoder == "clip" else ids.masked_fill(ids == END, 3), "attention_mask": mask}


def step(model, **changes):
    model.train()
    batch = {"pixel_values": images(), **sentences(model.config.text_encoder), "person_labels": LABELS, **changes}
    output = model(**batch)
    output.loss.backward()
    return output


def trained(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture
def log(caplog):
    transformers_logging.enable_propagation()
    yield caplog
    transformers_logging.disable_propagation()


# ---------------------------------------------------------------- configuration


def test_the_defaults_are_clip_fine_tuned_with_the_matching_loss():
    config = DualEncoderConfig()
    assert (config.text_encoder, config.training, config.loss_terms) == ("clip", "fine_tuned", ["sdm"])
    assert config.vision_config.image_size == [384, 128]
    assert config.max_text_length == 77
    bert = DualEncoderConfig.from_preset("base-bert")
    assert isinstance(bert.text_config, BertConfig)
    assert (bert.text_config.hidden_size, bert.max_text_length) == (768, 77)
    assert bert.vision_config.patch_bias


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text_encoder": "gru"}, "text_encoder is 'gru', but must be one of 'clip', 'bert'"),
        ({"training": "frozen"}, "training is 'frozen'"),
        ({"loss_terms": ["sdm", "mlm"]}, "loss_terms"),
        ({"loss_terms": []}, "loss_terms"),
        ({"itc_loss_weight": -1}, "itc_loss_weight is -1, but cannot be negative"),
        ({"temperature": 0}, "temperature is 0, but must be positive"),
        ({"text_encoder": "bert", "training": "zero_shot"}, "needs towers that were trained together"),
        ({"text_encoder": "bert", "text_config": {"hiden_size": 3}}, "did you mean 'hidden_size'"),
        ({"text_config": {"type_vocab_size": 3}}, "text_config: unknown field 'type_vocab_size'"),
        ({"text_encoder": "bert", "text_config": {"hidden_size": 30, "num_attention_heads": 4}}, "divide the width 30"),
        ({"text_encoder": "bert", "max_text_length": 600}, "max_text_length = 600 exceeds"),
        ({"text_encoder": "bert", "text_config": ReIDCLIPTextConfig()}, "must be a dictionary or a BertConfig"),
        ({"text_config": BertConfig()}, "must be a dictionary or a ReIDCLIPTextConfig"),
        ({"cross_modal_num_layers": 2}, "unknown field 'cross_modal_num_layers'"),
    ],
)
def test_configurations_that_cannot_be(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        DualEncoderConfig(**fields)


@pytest.mark.parametrize("preset", ["tiny", "tiny-bert"])
def test_presets_survive_saving(tmp_path, preset):
    config = DualEncoderConfig.from_preset(preset, loss_terms=["itc"])
    config.save_pretrained(tmp_path)
    again = DualEncoderConfig.from_pretrained(tmp_path)
    assert type(again.text_config) is type(config.text_config)
    assert again.to_diff_dict() == config.to_diff_dict()


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("text_encoder", ["clip", "bert"])
def test_the_loss_is_the_weighted_sum_of_its_terms(text_encoder):
    weights = {"sdm": 0.5, "cmpm": 2.0, "itc": 3.0, "id": 0.25}
    model = build(
        text_encoder=text_encoder, **ALL_TERMS, **{f"{name}_loss_weight": value for name, value in weights.items()}
    )
    output = step(model)
    assert list(output.loss_terms) == list(LOSS_TERMS)
    torch.testing.assert_close(output.loss, sum(weights[name] * value for name, value in output.loss_terms.items()))
    image, text = (f.granularities["global"] for f in (output.image_features, output.text_features))
    config = model.config
    expected = {
        "sdm": SDMLoss(config.temperature, config.label_epsilon)(image, text, LABELS),
        "cmpm": CMPMLoss(config.label_epsilon)(image, text, LABELS),
        "itc": InfoNCELoss(config.temperature)(image, text),
    }
    for name, value in expected.items():
        assert torch.equal(output.loss_terms[name], value), name
    classifier = IdentityLoss(DIMENSION, CLASSES)
    classifier.load_state_dict(model.identity_loss.state_dict())
    assert torch.equal(output.loss_terms["id"], classifier((image, text), LABELS))
    assert set(output.accuracies) == {"image_id", "text_id"}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("fields", [{"temperature": 0.1}, {"label_epsilon": 1e-3}])
def test_temperature_and_label_epsilon_reach_the_losses(fields):
    assert abs(step(build(**fields)).loss - step(build()).loss) > 1e-3


def test_there_is_a_classifier_only_for_the_identity_loss():
    assert build().identity_loss is None
    assert step(build()).accuracies == {}
    swapped = step(build(**ALL_TERMS), person_labels=LABELS.flip(0))
    assert abs(swapped.loss_terms["id"] - step(build(**ALL_TERMS)).loss_terms["id"]) > 1e-4


def test_linear_probe_of_clip_trains_one_linear_layer_behind_each_frozen_tower():
    model = build(training="linear_probe", **ALL_TERMS)
    probes = {f"dual_encoder.{name}_probe.{part}" for name in ("image", "text") for part in ("weight", "bias")}
    assert trained(model) == probes | {"identity_loss.classifier.weight", "identity_loss.classifier.bias"}
    step(model)
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trained(model)
    tokens = model.dual_encoder.encode_images(images())
    plain = super(DualEncoderModel, model.dual_encoder).encode_images(images())
    torch.testing.assert_close(tokens, model.dual_encoder.image_probe(plain))
    assert tokens.shape == (BATCH, 9, DIMENSION)


def test_a_new_linear_probe_starts_as_what_the_frozen_towers_say(tmp_path):
    plain = build(DualEncoderModel)
    plain.save_pretrained(tmp_path)
    config = DualEncoderConfig.from_pretrained(tmp_path, training="linear_probe")
    probed = DualEncoderForTraining.from_pretrained(tmp_path, config=config)
    assert trained(probed) == {
        f"dual_encoder.{name}_probe.{part}" for name in ("image", "text") for part in ("weight", "bias")
    }
    with torch.no_grad():
        for found, expected in (
            (probed.get_image_features(images()), plain.get_image_features(images())),
            (probed.get_text_features(**sentences()), plain.get_text_features(**sentences())),
        ):
            torch.testing.assert_close(found.embeds, expected.embeds)


def test_linear_probe_of_bert_trains_the_two_linear_layers():
    model = build(training="linear_probe", text_encoder="bert")
    assert trained(model) == {"dual_encoder.visual_projection.weight", "dual_encoder.text_projection.weight"}
    step(model)


def test_zero_shot_trains_nothing(tmp_path):
    model = build(training="zero_shot", **ALL_TERMS)
    assert trained(model) == set()
    model.save_pretrained(tmp_path)
    assert trained(DualEncoderForTraining.from_pretrained(tmp_path)) == set()
    assert trained(DualEncoderModel.from_pretrained(tmp_path)) == set()
    assert model(images(), **sentences(), person_labels=LABELS).loss.isfinite()


# ---------------------------------------------------------------- features


def test_with_clip_it_is_the_inference_model_of_irra():
    model = build(DualEncoderModel)
    irra = IRRAModel(IRRAConfig(**config_fields())).eval()
    irra.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model.get_image_features(images()).embeds, irra.get_image_features(images()).embeds)
        assert torch.equal(model.get_text_features(**sentences()).embeds, irra.get_text_features(**sentences()).embeds)


@torch.no_grad()
def test_bert_is_followed_by_a_linear_layer_on_every_token():
    model = build(DualEncoderModel, text_encoder="bert")
    features, batch = model.get_text_features(**sentences("bert")), sentences("bert")
    hidden = model.text_model(**batch).last_hidden_state
    torch.testing.assert_close(features.tokens, hidden @ model.text_projection.weight.T)
    assert torch.equal(features.granularities["global"], features.tokens[:, 0])
    assert torch.equal(features.token_mask, batch["attention_mask"].bool())
    torch.testing.assert_close(features.embeds.norm(dim=1), torch.ones(BATCH))
    without_mask = model.get_text_features(batch["input_ids"])
    assert torch.equal(without_mask.embeds, features.embeds)
    assert torch.equal(without_mask.token_mask, features.token_mask)
    both = model(pixel_values=images(), **batch)
    torch.testing.assert_close(both.similarity, features.embeds @ both.image_features.embeds.T)


@pytest.mark.parametrize("text_encoder", ["clip", "bert"])
@torch.no_grad()
def test_padding_and_batch_size_do_not_change_features(text_encoder):
    model, batch = build(DualEncoderModel, text_encoder=text_encoder), sentences(text_encoder)
    together = model.get_text_features(**batch).embeds
    for row, end in enumerate(ENDS):
        alone = {name: value[row : row + 1, : end + 1] for name, value in batch.items()}
        # other shapes, other kernels: rounding only
        torch.testing.assert_close(model.get_text_features(**alone).embeds[0], together[row], rtol=0, atol=1e-5)


# ---------------------------------------------------------------- loading and saving


@pytest.mark.parametrize("fields", [{}, {"text_encoder": "bert"}, {"training": "linear_probe"}], ids=str)
@pytest.mark.parametrize("model_class", [DualEncoderModel, DualEncoderForTraining])
def test_save_and_load_is_bit_exact(tmp_path, log, model_class, fields):
    model = build(model_class, **copy.deepcopy(fields), **ALL_TERMS)
    model.save_pretrained(tmp_path)
    auto = ReIDModel if model_class is DualEncoderModel else ReIDModelForTraining
    for load in (model_class.from_pretrained, auto.from_pretrained):
        again = load(tmp_path)
        assert type(again) is model_class
        assert same_weights(model, again)
        assert trained(again) == trained(model)
        assert again.config.text_config.vocab_size == VOCABULARY
    if model_class is DualEncoderModel:
        assert type(AutoModel.from_pretrained(tmp_path)) is DualEncoderModel
    assert not log.records


@pytest.mark.parametrize("text_encoder", ["clip", "bert"])
def test_training_checkpoint_loads_silently_for_inference_and_back(tmp_path, log, text_encoder):
    training = build(text_encoder=text_encoder, **ALL_TERMS)
    training.save_pretrained(tmp_path / "training")
    inference = DualEncoderModel.from_pretrained(tmp_path / "training")
    assert not log.records, "a left-out head is expected"
    assert same_weights(training.dual_encoder, inference)
    inference.save_pretrained(tmp_path / "inference")
    log.clear()
    again = DualEncoderForTraining.from_pretrained(tmp_path / "inference")
    assert same_weights(again.dual_encoder, inference)
    assert any("identity_loss.classifier.weight" in record.getMessage() for record in log.records), "a new head is said"
    assert again.identity_loss.classifier.weight.std().item() == pytest.approx(0.001, rel=0.4)  # 64 numbers


@torch.no_grad()
def test_processors_of_both_kinds_fit(tmp_path):
    from reid_zoo.training.vocabulary import learn_clip_tokenizer, learn_wordpiece_tokenizer

    words = ["a woman in a red coat", "a man in a blue coat with a black bag"]
    for text_encoder in ("clip", "bert"):
        length = 14
        if text_encoder == "clip":
            tokenizer = learn_clip_tokenizer(words * 2, 530, mask_token=False)
            processor = ReIDProcessor.build_for_clip(tokenizer, image_size=(32, 16), max_text_length=length)
        else:
            tokenizer = learn_wordpiece_tokenizer(words * 2)
            processor = ReIDProcessor.build(tokenizer, image_size=(32, 16), max_text_length=length)
        text = {"vocab_size": len(tokenizer), "max_position_embeddings": length}
        model = build(DualEncoderModel, text_encoder=text_encoder, text_config=text)
        together = model.get_text_features(**processor(text=words)).embeds
        alone = torch.cat([model.get_text_features(**processor(text=word)).embeds for word in words])
        torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)
        assert (together[0] - together[1]).abs().max() > 1e-3


# ---------------------------------------------------------------- published towers

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folders of a CLIP, a ViT and a BERT of another width."""
    root = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    clip = CLIPConfig(
        vision_config={**SIZES, "image_size": 32, "patch_size": 8},
        text_config={**SIZES, "vocab_size": VOCABULARY, "max_position_embeddings": LENGTH, "eos_token_id": END},
        projection_dim=DIMENSION,
    )
    CLIPModel(clip).save_pretrained(root / "clip")
    ViTModel(ViTConfig(**SIZES, image_size=32, patch_size=8), add_pooling_layer=False).save_pretrained(root / "vit")
    narrow = {**SIZES, "hidden_size": 24}
    bert = BertConfig(**narrow, vocab_size=VOCABULARY, max_position_embeddings=LENGTH, **NO_DROPOUT)
    BertModel(bert, add_pooling_layer=False).save_pretrained(root / "bert")
    return root


@torch.no_grad()
def test_zero_shot_clip_from_its_folder(published):
    source = CLIPModel.from_pretrained(published / "clip").eval()
    model = DualEncoderModel.from_towers(published / "clip", image_size=(32, 32), training="zero_shot")
    ids, pixels = sentences()["input_ids"], images(BATCH, 32, 32)
    for found, expected in (
        (model.get_image_features(pixels), source.get_image_features(pixels).pooler_output),
        (model.get_text_features(ids), source.get_text_features(ids).pooler_output),
    ):
        # the same sums in another order
        torch.testing.assert_close(found.granularities["global"], expected, rtol=0, atol=1e-5)
    assert trained(model) == set()
    assert DualEncoderModel.from_towers(published / "clip").config.vision_config.image_size == [384, 128]


@pytest.mark.parametrize("image_tower", ["vit", "clip"])
@torch.no_grad()
def test_bert_beside_either_image_tower(published, image_tower):
    fields = {"text_encoder": "bert", "projection_dim": DIMENSION, "num_classes": 3}
    model = DualEncoderForTraining.from_towers(
        published / image_tower, published / "bert", image_size=(64, 16), **fields
    )
    config = model.config
    assert (config.vision_config.hidden_size, config.text_config.hidden_size) == (32, 24)
    assert config.vision_config.image_size == [64, 16]
    source = BertModel.from_pretrained(published / "bert", add_pooling_layer=False).eval()
    batch = sentences("bert")
    expected = source(**batch).last_hidden_state @ model.dual_encoder.text_projection.weight.T
    torch.testing.assert_close(model.get_text_features(**batch).tokens, expected)
    default = DualEncoderModel.from_towers(published / image_tower, published / "bert", **fields)
    assert default.config.vision_config.image_size == [384, 128]
    new = DualEncoderModel.from_towers(published / image_tower, preset="tiny-bert", image_size=32)
    assert new.config.text_config.num_hidden_layers == 2


def test_towers_of_the_wrong_kind(published, tmp_path):
    with pytest.raises(CheckpointError, match="holds no CLIP"):
        DualEncoderModel.from_towers(published / "clip", published / "bert")
    with pytest.raises(CheckpointError, match="must be a BERT"):
        DualEncoderModel.from_towers(published / "vit", published / "clip", text_encoder="bert")
    save_file({"visual.proj": torch.zeros(2, 2)}, tmp_path / "clip.safetensors")
    with pytest.raises(CheckpointError, match=r"clip\.safetensors"):
        DualEncoderModel.from_towers(tmp_path / "clip.safetensors")
