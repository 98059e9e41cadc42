"""IRRA as a user meets it: every switch, invariances, loading and saving, published CLIPs."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from reid_zoo import ReIDModel, ReIDModelForTraining
from reid_zoo.data.masking import mask_words
from reid_zoo.errors import ConfigurationError
from reid_zoo.models.irra.modeling_irra import IRRAForTraining, IRRAModel
from tiny_clip_models import (
    BATCH,
    CLASSES,
    DIMENSION,
    END,
    LABELS,
    LENGTH,
    MASK,
    VOCABULARY,
    build,
    images,
    irra_config,
    same_weights,
    sentences,
    step,
)

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def reference():
    model = build()
    return model, step(copy.deepcopy(model))


SWITCHES = {
    "matching alone": {"loss_terms": ["sdm"]},
    "without masked words": {"loss_terms": ["sdm", "id"]},
    "without identities": {"loss_terms": ["sdm", "mlm"]},
    "itc": {"loss_terms": ["itc", "id", "mlm"]},
    "cmpm": {"loss_terms": ["cmpm"]},
    "temperature": {"temperature": 0.1},
    "label epsilon": {"label_epsilon": 1e-3},
    "identity weight": {"id_loss_weight": 0.5},
    "word weight": {"mlm_loss_weight": 0.5},
    "mask probability": {"mask_probability": 0.6},
    "mask share": {"mask_share": 0.1},
    "random share": {"mask_share": 0.0, "random_share": 1.0},
    "mask token": {"mask_token_id": 20},
    "clean captions": {"mask_matching_captions": False},
    "depth": {"cross_modal_num_layers": 0},
    "heads": {"cross_modal_num_attention_heads": 4},
    "overlapping patches": {"vision_config": {"patch_stride": 4}},
}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_trains_and_changes_the_loss(reference, name):
    model = build(seed=1, **copy.deepcopy(SWITCHES[name]))
    state, own = reference[0].state_dict(), model.state_dict()
    model.load_state_dict({k: state[k] if k in state and state[k].shape == own[k].shape else own[k] for k in own})
    output = step(model)
    assert output.loss.isfinite()
    assert abs(output.loss.item() - reference[1].loss.item()) > 1e-5
    assert list(output.loss_terms) == [
        term for term in ("sdm", "id", "mlm", "itc", "cmpm") if term in output.loss_terms
    ]
    assert set(output.loss_terms) == set(model.config.loss_terms)
    unused = {"vision_model.pre"} if model.config.loss_terms == ["none"] else set()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name not in unused:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name  # noqa: PT018


def test_the_loss_is_the_weighted_sum_of_its_terms():
    output = step(build(id_loss_weight=0.5, mlm_loss_weight=3.0))
    terms = output.loss_terms
    torch.testing.assert_close(output.loss, terms["sdm"] + 0.5 * terms["id"] + 3.0 * terms["mlm"])


def test_a_model_has_exactly_the_heads_its_losses_use():
    model = build(loss_terms=["sdm"])
    assert not any(name.startswith(("identity_loss", "implicit")) for name in model.state_dict())
    assert step(model).accuracies == {}
    full = step(build())
    assert set(full.accuracies) == {"image_id", "text_id", "mlm"}
    assert all(0 <= value <= 1 for value in full.accuracies.values())


def test_matching_sees_the_masked_caption_unless_told_otherwise():
    ids = sentences()
    torch.manual_seed(3)
    masked = mask_words(ids, MASK)
    released, clean = build(), build(mask_matching_captions=False)
    torch.testing.assert_close(
        step(released).text_features.embeds, released.get_text_features(masked.input_ids).embeds, rtol=0, atol=1e-5
    )
    clean_output = step(clean)
    torch.testing.assert_close(
        clean_output.text_features.embeds, clean.get_text_features(ids).embeds, rtol=0, atol=1e-5
    )
    torch.testing.assert_close(clean_output.loss_terms["mlm"], step(released).loss_terms["mlm"])
    given = step(build(), masked_input_ids=masked.input_ids, masked_labels=masked.labels)
    torch.testing.assert_close(given.loss, clean_output.loss)


def test_masked_words_need_their_labels():
    with pytest.raises(ConfigurationError, match="masked_input_ids and masked_labels together"):
        step(build(), masked_input_ids=sentences())


def test_masked_words_are_told_from_the_image():
    """Another image changes the logits of every word; other images of the batch do not."""
    model = build()
    with torch.no_grad():
        words, tokens = model.irra.encode_texts(sentences()), model.irra.encode_images(images())
        logits = model.implicit_relation_reasoning(words, tokens)
        assert logits.shape == (BATCH, LENGTH, VOCABULARY)
        changed = tokens.clone()
        changed[0] = tokens[1]
        difference = (model.implicit_relation_reasoning(words, changed) - logits).abs().amax(dim=2)
    assert (difference[0] > 1e-4).all()
    assert (difference[1:] < 1e-5).all()
    positions = torch.rand(BATCH, LENGTH) < 0.3
    with torch.no_grad():
        some = model.implicit_relation_reasoning(words, tokens, positions)
    torch.testing.assert_close(some, logits[positions], rtol=0, atol=1e-5)  # another order of summation


@torch.no_grad()
def test_embeddings_are_unit_vectors_of_the_end_and_class_tokens():
    model = build(IRRAModel)
    image, text = model.get_image_features(images()), model.get_text_features(sentences())
    for features in (image, text):
        torch.testing.assert_close(features.embeds.norm(dim=1), torch.ones(BATCH))
        torch.testing.assert_close(
            features.granularities["global"],
            features.embeds * features.granularities["global"].norm(dim=1, keepdim=True),
        )
    ends = (sentences() == END).int().argmax(dim=1)
    assert torch.equal(text.granularities["global"], text.tokens[torch.arange(BATCH), ends])
    assert torch.equal(text.token_mask.sum(dim=1), ends + 1)
    assert torch.equal(image.granularities["global"], image.tokens[:, 0])
    assert image.tokens.shape == (BATCH, 9, DIMENSION)


@torch.no_grad()
def test_padding_and_batch_size_do_not_change_features():
    model = build(IRRAModel)
    together = model.get_text_features(sentences()).embeds
    for row, end in enumerate((5, 11, 7, 3, 9, 8)):
        alone = model.get_text_features(sentences()[row : row + 1, : end + 1]).embeds
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-5)  # other shapes, other kernels
    padded_with_end = sentences().masked_fill(sentences() == 0, END)
    torch.testing.assert_close(model.get_text_features(padded_with_end).embeds, together, rtol=0, atol=1e-5)
    image = model.get_image_features(images()).embeds
    torch.testing.assert_close(model.get_image_features(images()[2:3]).embeds[0], image[2], rtol=0, atol=1e-5)


@torch.no_grad()
def test_forward_gives_what_it_is_given():
    model = build(IRRAModel)
    both = model(pixel_values=images(), input_ids=sentences((4, 9)), attention_mask=torch.ones(2, LENGTH))
    cosines = torch.cosine_similarity(
        both.text_features.granularities["global"][:, None], both.image_features.granularities["global"][None], dim=-1
    )
    torch.testing.assert_close(both.similarity, cosines)
    assert both.similarity.shape == (2, BATCH)
    only = model(input_ids=sentences())
    assert only.similarity is None
    assert only.image_features is None


@torch.no_grad()
def test_sdpa_equals_eager():
    model, found = build(), []
    for kernel in ("sdpa", "eager"):
        model.set_attn_implementation(kernel)
        encoder = model.implicit_relation_reasoning.encoder
        kernels = (model.irra.vision_model.config, model.irra.text_model.config, encoder.cross_attn.config)
        assert {config._attn_implementation for config in kernels} == {kernel}
        words, tokens = model.irra.encode_texts(sentences()), model.irra.encode_images(images())
        found.append(model.implicit_relation_reasoning(words, tokens))
    torch.testing.assert_close(*found, rtol=0, atol=2e-5)  # other order of summation


def test_gradient_checkpointing_gives_the_same_gradients():
    plain, checkpointed = build(), build()
    checkpointed.gradient_checkpointing_enable()
    torch.testing.assert_close(step(checkpointed).loss, step(plain).loss)
    expected = dict(plain.named_parameters())
    for name, parameter in checkpointed.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, msg=name)


def test_initialisation_is_the_papers():
    torch.manual_seed(0)
    model = IRRAForTraining(
        irra_config(
            projection_dim=64,
            cross_modal_num_layers=2,
            text_config={"vocab_size": 500},
            num_classes=300,
        )
    )
    reasoning, width = model.implicit_relation_reasoning, 64
    block = reasoning.encoder.layers[0]
    deviations = {
        reasoning.encoder.cross_attn.in_proj.weight: width**-0.5,
        reasoning.encoder.cross_attn.out_proj.weight: width**-0.5 * 4**-0.5,
        block.self_attn.in_proj.weight: width**-0.5,
        block.mlp.fc1.weight: (2 * width) ** -0.5,
        block.mlp.fc2.weight: width**-0.5 * 4**-0.5,
        reasoning.head.dense.weight: (2 * width) ** -0.5,
        reasoning.head.output.weight: width**-0.5 * 4**-0.5,
        model.identity_loss.classifier.weight: 0.001,
        model.irra.text_projection.weight: 24**-0.5,
    }
    for parameter, expected in deviations.items():
        assert parameter.std().item() == pytest.approx(expected, rel=0.08)  # at least 1536 numbers
    assert (model.identity_loss.classifier.bias == 0).all()
    assert (block.self_attn.in_proj.bias == 0).all()
    assert 0.5 * width**-0.5 < reasoning.head.output.bias.abs().max() <= width**-0.5


# ---------------------------------------------------------------- loading and saving


@pytest.fixture
def log(caplog):
    transformers_logging.enable_propagation()
    yield caplog
    transformers_logging.disable_propagation()


@pytest.mark.parametrize("model_class", [IRRAModel, IRRAForTraining])
def test_save_and_load_is_bit_exact(tmp_path, log, model_class):
    model = build(model_class)
    model.save_pretrained(tmp_path)
    auto = ReIDModel if model_class is IRRAModel else ReIDModelForTraining
    for load in (model_class.from_pretrained, auto.from_pretrained):
        again = load(tmp_path)
        assert type(again) is model_class
        assert same_weights(model, again)
    if model_class is IRRAModel:
        assert type(AutoModel.from_pretrained(tmp_path)) is IRRAModel
    assert not log.records


def test_training_checkpoint_loads_silently_for_inference_and_back(tmp_path, log):
    training = build()
    training.save_pretrained(tmp_path / "training")
    inference = IRRAModel.from_pretrained(tmp_path / "training")
    assert not log.records, "left-out heads are expected"
    assert same_weights(training.irra, inference)
    inference.save_pretrained(tmp_path / "inference")
    stored = load_file(tmp_path / "inference" / "model.safetensors")
    assert not any(key.startswith(("identity_loss", "implicit")) for key in stored)
    log.clear()
    torch.manual_seed(0)
    again = IRRAForTraining.from_pretrained(tmp_path / "inference")
    assert same_weights(again.irra, inference)
    assert any("identity_loss.classifier.weight" in record.getMessage() for record in log.records), "new heads are said"
    for name, parameter in again.named_parameters():  # also those that were built without memory first
        assert parameter.isfinite().all(), name
    assert again.identity_loss.classifier.weight.std().item() == pytest.approx(0.001, rel=0.4)  # 64 numbers
    assert again.identity_loss.classifier.weight.shape == (CLASSES, DIMENSION)
    assert step(again).loss.isfinite()


def test_another_image_size_while_loading(tmp_path):
    model = build(IRRAModel)
    model.save_pretrained(tmp_path)
    resized = IRRAModel.from_pretrained(tmp_path, image_size=(48, 24))
    grid = model.vision_model.embeddings.position_embedding.data[1:].T.reshape(1, 32, 4, 2)
    expected = torch.nn.functional.interpolate(grid, size=(6, 3), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized.vision_model.embeddings.position_embedding.data[1:], expected.flatten(2)[0].T)
    assert resized.get_image_features(images(2, 48, 24)).embeds.shape == (2, DIMENSION)


def test_person_labels_shape_the_identity_loss():
    swapped = step(build(), person_labels=LABELS.flip(0))
    assert abs(swapped.loss_terms["id"] - step(build()).loss_terms["id"]) > 1e-4
