"""VFE-TPS as a user meets it: every switch, what is random and what is not, what training alone needs."""

from __future__ import annotations

import copy

import pytest
import torch

from reid_zoo.data.masking import mask_words
from reid_zoo.errors import ConfigurationError
from reid_zoo.models.vfe_tps.configuration_vfe_tps import LOSS_TERMS
from reid_zoo.models.vfe_tps.modeling_vfe_tps import VFETPSForTraining, VFETPSModel
from tiny_clip_models import (
    BATCH,
    CLASSES,
    DIMENSION,
    LABELS,
    MASK,
    build,
    images,
    same_weights,
    sentences,
    step,
    vfe_tps_config,
)

torch.set_num_threads(1)


def model_of(seed: int = 0, **fields) -> VFETPSForTraining:
    return build(VFETPSForTraining, seed, **fields)


@pytest.fixture(scope="module")
def reference():
    """A model with all terms, so that every switch has something to change, and its loss."""
    terms = [term for term in LOSS_TERMS if term != "gi2id"]  # of images alone, `id` without its second half
    model = model_of(loss_terms=terms, caption_mask_prob=0.3, sdm_soft_label_factor=0.5)
    output = step(copy.deepcopy(model), image_ids=torch.tensor([0, 1, 2, 0, 3, 4]))
    return model, terms, output


SWITCHES = {
    "matching: projection": {"matching_loss": "cmpm_projection"},
    "matching: itc": {"matching_loss": "itc"},
    "extra mean": {"extra_batch_mean": True},
    "soft labels": {"sdm_soft_label_factor": 0.01},
    "hard labels": {"sdm_soft_label_factor": None},
    "calibration on the batch": {"gvfc_mode": "batch"},
    "calibration samples": {"gvfc_num_samples": 2},
    "guided by the image": {"mim_guidance": "image"},
    "SimMIM": {"mim_guidance": "none"},
    "MAE": {"mim_guidance": "mae"},
    "reconstruction weight": {"mim_loss_weight": 3.0},
    "reconstruction form": {"mim_loss_form": "normalized_mse"},
    "mask ratio": {"mask_ratio": 0.2},
    "mask unit": {"mask_patch_size": 16},
    "mask value": {"mask_mode": "zero_pixels"},
    "padding hidden": {"mask_text_padding": True},
    "identity weight": {"id_loss_weight": 0.5},
    "margin": {"triplet_margin": 1.5},
    "clean captions": {"caption_mask_prob": 0.0},
    "mask word": {"mask_token_id": 20},
    "temperature": {"temperature": 0.1},
    "label epsilon": {"label_epsilon": 1e-3},
    "depth": {"cross_modal_num_layers": 0},
    "heads": {"cross_modal_num_attention_heads": 4},
    "identity of images only": {"loss_terms": [term for term in LOSS_TERMS if term != "id"]},
    **{
        f"without {term}": {"loss_terms": [other for other in LOSS_TERMS if other not in (term, "gi2id")]}
        for term in LOSS_TERMS
        if term != "gi2id"
    },
}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_trains_and_changes_the_loss(reference, name):
    source, terms, expected = reference
    fields = {"loss_terms": terms, "caption_mask_prob": 0.3, "sdm_soft_label_factor": 0.5, **SWITCHES[name]}
    model = model_of(seed=1, **copy.deepcopy(fields))
    state, own = source.state_dict(), model.state_dict()
    model.load_state_dict({k: state[k] if k in state and state[k].shape == own[k].shape else own[k] for k in own})
    output = step(model, image_ids=torch.tensor([0, 1, 2, 0, 3, 4]))
    assert output.loss.isfinite()
    assert abs(output.loss.item() - expected.loss.item()) > 1e-4
    assert list(output.loss_terms) == fields["loss_terms"]
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name  # noqa: PT018


def test_the_loss_is_the_weighted_sum_of_its_terms():
    output = step(model_of(loss_terms=["matching", "id", "g2id", "mim"], id_loss_weight=0.5, mim_loss_weight=3.0))
    terms = output.loss_terms
    total = terms["matching"] + 0.5 * (terms["id"] + terms["g2id"]) + 3.0 * terms["mim"]
    torch.testing.assert_close(output.loss, total)


def test_a_model_has_exactly_the_heads_its_losses_use():
    inference = set(build(VFETPSModel).state_dict())
    heads = {"gi2id": {"identity_loss"}, "id": {"identity_loss"}, "g2id": {"joint_identity_loss"}}
    heads |= {"mim": {"masked_image_modeling"}, "gvfc": set(), "triplet": set(), "matching": set()}
    for term, expected in heads.items():
        keys = model_of(loss_terms=[term]).state_dict().keys()
        assert {key.split(".")[0] for key in keys} == {"vfe_tps", *expected}
        assert {key.removeprefix("vfe_tps.") for key in keys if key.startswith("vfe_tps.")} == inference


def test_captions_are_disturbed_in_training_only():
    model = model_of(loss_terms=["matching"], caption_mask_prob=0.5)
    torch.manual_seed(3)
    disturbed = mask_words(sentences(), MASK, probability=0.5).input_ids
    clean = model.get_text_features(sentences()).embeds
    expected = model.get_text_features(disturbed).embeds
    torch.testing.assert_close(step(model).text_features.embeds, expected, rtol=0, atol=1e-5)
    model.eval()
    output = model(pixel_values=images(), input_ids=sentences(), person_labels=LABELS)
    torch.testing.assert_close(output.text_features.embeds, clean, rtol=0, atol=1e-5)


def test_masks_and_samples_are_drawn_anew_unless_they_are_given():
    model = model_of()
    first, second = step(model, seed=1), step(model, seed=2)
    for term in ("gvfc", "mim"):
        assert first.loss_terms[term] != second.loss_terms[term]
    assert torch.equal(first.loss_terms["matching"], second.loss_terms["matching"])
    given = {
        "patch_mask": torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1]]).expand(BATCH, 4, 2),
        "gvfc_indices": LABELS[:3],
    }
    first, second = step(model, seed=1, **given), step(model, seed=2, **given)
    assert torch.equal(first.loss, second.loss)


def test_history_grows_within_an_epoch_and_is_forgotten_with_it():
    model = model_of(loss_terms=["matching", "gvfc"], gvfc_mode="history")
    of_batch = step(model_of(loss_terms=["matching", "gvfc"], gvfc_mode="batch")).loss_terms["gvfc"]
    first = step(model).loss_terms["gvfc"]
    torch.testing.assert_close(first, of_batch)  # nothing is remembered yet
    second = step(model).loss_terms["gvfc"]
    assert abs(second - first) > 1e-4
    model.begin_epoch()
    torch.testing.assert_close(step(model).loss_terms["gvfc"], first)


def test_soft_labels_need_to_know_which_sentences_share_an_image():
    model = model_of(loss_terms=["matching"], sdm_soft_label_factor=0.3)
    with pytest.raises(ConfigurationError, match="image_ids"):
        step(model)
    shared = step(model, image_ids=torch.tensor([0, 1, 2, 0, 3, 4])).loss
    apart = step(model, image_ids=torch.arange(BATCH)).loss
    assert abs(shared - apart) > 1e-4


def test_identities_shape_the_losses_that_use_them():
    swapped = {term: step(model_of(loss_terms=[term]), person_labels=LABELS.flip(0)).loss for term in LOSS_TERMS}
    changed = {term for term, loss in swapped.items() if abs(loss - step(model_of(loss_terms=[term])).loss) > 1e-5}
    assert changed == set(LOSS_TERMS) - {"mim", "itc", "gtm"}


@torch.no_grad()
def test_what_training_adds_leaves_retrieval_alone():
    training = model_of(loss_terms=[term for term in LOSS_TERMS if term != "gi2id"])
    inference = VFETPSModel(training.config).eval()
    inference.load_state_dict(training.vfe_tps.state_dict())
    assert same_weights(inference, training.vfe_tps)
    torch.testing.assert_close(
        inference(pixel_values=images(), input_ids=sentences()).similarity,
        training.similarity(training.get_text_features(sentences()), training.get_image_features(images())),
    )


def test_initialisation_is_the_specs():
    torch.manual_seed(0)
    width = 64
    fields = {"projection_dim": width, "cross_modal_num_layers": 2, "num_classes": 300}
    model = VFETPSForTraining(vfe_tps_config(loss_terms=["matching", "mim", "gi2id"], **fields))
    branch = model.masked_image_modeling
    block = branch.encoder.layers[0]
    deviations = {
        branch.encoder.cross_attn.in_proj.weight: width**-0.5,
        branch.encoder.cross_attn.out_proj.weight: width**-0.5 * 4**-0.5,
        block.self_attn.in_proj.weight: width**-0.5,
        block.mlp.fc1.weight: (2 * width) ** -0.5,
        block.mlp.fc2.weight: width**-0.5 * 4**-0.5,
        model.identity_loss.classifier.weight: 0.001,
        branch.decoder.projection.weight: (2 / (width + 3 * 8 * 8)) ** 0.5,  # Xavier-uniform
    }
    for parameter, expected in deviations.items():
        assert parameter.std().item() == pytest.approx(expected, rel=0.08)  # at least 4096 numbers
    assert not branch.mask_token.any()
    assert not branch.decoder.projection.bias.any()
    assert not model.identity_loss.classifier.bias.any()
    assert model.identity_loss.classifier.weight.shape == (300, width)


def test_joint_classifier_sees_both_features():
    model = model_of(loss_terms=["g2id"])
    assert model.joint_identity_loss.classifier.weight.shape == (CLASSES, 2 * DIMENSION)
    output = step(model)
    both = torch.cat(
        [output.image_features.granularities["global"], output.text_features.granularities["global"]], dim=1
    )
    logits = model.joint_identity_loss.classifier(both)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(logits, LABELS))
