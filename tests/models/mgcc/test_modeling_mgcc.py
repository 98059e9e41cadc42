"""MGCC as a user meets it: which tokens are chosen, every switch, odd sentences and images, losses."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from reid_zoo.errors import ConfigurationError, QueryError
from reid_zoo.models.mgcc.configuration_mgcc import AGGREGATIONS
from reid_zoo.models.mgcc.modeling_mgcc import MGCCForTraining, MGCCModel
from reid_zoo.outputs import RetrievalFeatures
from tiny_clip_models import BATCH, END, IMAGE_SIZE, LENGTH, images, sentences
from tiny_mgcc import LABELS, MAX_WORDS, PATCHES, WIDTH, build_mgcc, mgcc_config, mgcc_step, scores_pair_by_pair

torch.set_num_threads(1)
OTHER_KERNELS = 1e-5  # unit vectors, float32, batches of other shapes


@pytest.fixture(scope="module")
def model() -> MGCCModel:
    return build_mgcc(MGCCModel)


# ---------------------------------------------------------------- token selection


@torch.no_grad()
def test_patches_are_the_most_attended_ones_in_descending_order(model):
    found = model.get_image_features(images())
    encoded = model.vision_model(images(), output_token_scores=True)
    assert found.token_indices.shape == (BATCH, 4)
    for row in range(BATCH):
        scores = encoded.token_scores[row, 1:].tolist()
        expected = sorted(range(PATCHES), key=lambda patch, scores=scores: -scores[patch])[:4]
        assert (found.token_indices[row] - 1).tolist() == expected
        raw = encoded.unnormalised_state[row, 1:][expected]  # no layer norm
        torch.testing.assert_close(found.tokens[row], functional.normalize(raw, dim=1))
    assert found.token_mask.all()


def released_positions(scores: list[float], end: int, alignment: str) -> list[int]:
    """The release's procedure, step by step (MGCC spec section 3.2): positions of the chosen embeddings, 0 for none."""
    shift = 1 if alignment == "shifted" else 0
    buffer = [(scores[q], q + shift) for q in range(1, end)]
    if len(buffer) > MAX_WORDS:
        buffer = sorted(buffer, reverse=True)[:MAX_WORDS]
    buffer += [(0.0, 0)] * (MAX_WORDS - len(buffer))
    return [position for _, position in sorted(buffer, key=lambda slot: -slot[0])[:3]]


@settings(max_examples=25, deadline=None)
@given(
    ends=st.lists(st.integers(1, LENGTH - 1), min_size=1, max_size=4), alignment=st.sampled_from(["shifted", "aligned"])
)
@torch.no_grad()
def test_words_are_chosen_as_the_release_does(model, ends, alignment):
    """From the empty sentence (end token at 1) to one longer than `max_words` that fills the context."""
    chosen = copy.copy(model)
    chosen.config = copy.deepcopy(model.config)
    chosen.config.text_word_alignment = alignment
    ids = sentences(tuple(ends))
    found = chosen.get_text_features(ids)
    states = model.text_model(ids).last_hidden_state
    for row, end in enumerate(ends):
        expected = released_positions(found.token_scores[row].tolist(), end, alignment)
        assert found.token_indices[row].tolist() == expected
        for slot, position in enumerate(expected):
            word = functional.normalize(model.text_projection(states[row, position]), dim=0)
            wanted = word if position else torch.zeros(WIDTH)
            torch.testing.assert_close(found.tokens[row, slot], wanted, rtol=0, atol=OTHER_KERNELS)
        pooled = model.text_projection(states[row, end])
        torch.testing.assert_close(found.granularities["global"][row], pooled, rtol=0, atol=OTHER_KERNELS)
    assert found.token_mask.all()


@torch.no_grad()
def test_the_shift_pairs_a_score_with_the_next_word(model):
    ids = sentences((3, 3))
    aligned = build_mgcc(MGCCModel, text_word_alignment="aligned").get_text_features(ids)
    shifted = model.get_text_features(ids)
    assert set(aligned.token_indices[0].tolist()) == {1, 2, 0}
    assert set(shifted.token_indices[0].tolist()) == {2, 3, 0}  # the end token takes part, the first word does not


@torch.no_grad()
def test_a_single_image_gives_what_it_gives_in_a_batch(model):
    together = model.get_image_features(images())
    alone = model.get_image_features(images()[2:3])
    assert torch.equal(alone.token_indices[0], together.token_indices[2])
    for name in ("embeds", "tokens"):
        torch.testing.assert_close(alone[name][0], together[name][2], rtol=0, atol=OTHER_KERNELS)
    text = model.get_text_features(sentences())
    torch.testing.assert_close(
        model.similarity(text, alone)[:, 0], model.similarity(text, together)[:, 2], rtol=0, atol=1e-3
    )  # scores are around 100; τ multiplies differences of the tokens by 10


@torch.no_grad()
@pytest.mark.parametrize("padding", ["zero", "mask"])
def test_an_empty_sentence_has_no_words_but_a_score(padding):
    model = build_mgcc(MGCCModel, text_padding=padding)
    text, image = model.get_text_features(sentences((1, 7))), model.get_image_features(images())
    assert (text.tokens[0] == 0).all()
    assert (text.token_indices[0] == 0).all()
    assert text.token_mask.tolist() == [[padding == "zero"] * 3, [True] * 3]
    scores = model.similarity(text, image)
    assert scores.isfinite().all()
    sides = model.interaction_features(image), model.interaction_features(text)
    parts = model.fusion(*sides)
    assert (parts["iw"][:, 0] == 0).all()
    assert (parts["pw"][:, 0] == 0).all()
    torch.testing.assert_close(scores[0], (parts["it"] + parts["pt"])[:, 0] / 4, rtol=0, atol=1e-4)


@torch.no_grad()
def test_masked_padding_is_scored_like_no_padding():
    zero, mask = (build_mgcc(MGCCModel, text_padding=padding) for padding in ("zero", "mask"))
    ids, image = sentences((2, 3, 9)), zero.get_image_features(images())
    padded, masked = zero.get_text_features(ids), mask.get_text_features(ids)
    assert torch.equal(padded.tokens, masked.tokens)
    assert masked.token_mask.sum(dim=1).tolist() == [1, 2, 3]
    one, other = zero.similarity(padded, image), mask.similarity(masked, image)
    assert ((one - other).abs().amax(dim=1) > 1e-2).tolist() == [True, True, False]
    expected = scores_pair_by_pair(mask.fusion, mask.interaction_features(image), mask.interaction_features(masked))
    torch.testing.assert_close(other.double(), expected["fused"].T, rtol=0, atol=1e-3)  # of about 100


# ---------------------------------------------------------------- without selection


@torch.no_grad()
@pytest.mark.parametrize("padding", ["zero", "mask"])
def test_without_selection_everything_is_compared_in_order(padding):
    model = build_mgcc(MGCCModel, token_selection=False, text_padding=padding)
    ids = sentences((5, 1, 11))
    text, image = model.get_text_features(ids), model.get_image_features(images())
    assert text.tokens.shape == (3, LENGTH - 1, WIDTH)
    assert image.tokens.shape == (BATCH, PATCHES, WIDTH)
    assert text.token_scores is None
    for found in (text, image):
        assert torch.equal(
            found.token_indices, torch.arange(1, found.tokens.shape[1] + 1).expand(len(found.tokens), -1)
        )
    # whatever stands behind the end token is read as the end token, as the release pads
    padded = ids.masked_fill(ids == 0, END)
    states = model.text_model(padded).last_hidden_state[:, 1:]
    words = functional.normalize(model.text_projection(states), dim=2)
    if padding == "mask":
        real = torch.arange(1, LENGTH) <= torch.tensor([5, 1, 11])[:, None]
        assert torch.equal(text.token_mask, real)
        words = words * real[..., None]
    torch.testing.assert_close(text.tokens, words, rtol=0, atol=OTHER_KERNELS)
    expected = scores_pair_by_pair(model.fusion, model.interaction_features(image), model.interaction_features(text))
    found = model.similarity(text, image)
    torch.testing.assert_close(found.double(), expected["fused"].T, rtol=0, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("selection", [True, False])
def test_kind_and_length_of_padding_do_not_matter(selection):
    model = build_mgcc(MGCCModel, token_selection=selection)
    ids = sentences((4, 6, 2))
    expected = model.get_text_features(ids)
    for other in (ids.masked_fill(ids == 0, END), ids[:, :7]):
        found = model.get_text_features(other)
        assert torch.equal(found.token_indices, expected.token_indices)
        for name in ("embeds", "tokens"):
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=OTHER_KERNELS)


def test_sentences_longer_than_the_model_are_refused(model):
    with pytest.raises(ConfigurationError, match=f"{LENGTH + 1} tokens, but the model takes {LENGTH}"):
        model.get_text_features(torch.full((1, LENGTH + 1), END))


# ---------------------------------------------------------------- similarity


@torch.no_grad()
def test_similarity_takes_stored_features(model):
    """A gallery keeps vectors and tokens only, in half precision."""
    text, image = model.get_text_features(sentences()), model.get_image_features(images())
    expected = model.similarity(text, image)
    assert expected.shape == (BATCH, BATCH)
    torch.testing.assert_close(
        model(pixel_values=images(), input_ids=sentences()).similarity, expected, rtol=0, atol=1e-3
    )
    stored = RetrievalFeatures(embeds=image.embeds, tokens=image.tokens)
    torch.testing.assert_close(model.similarity(text, stored), expected, rtol=0, atol=1e-3)
    half = RetrievalFeatures(embeds=image.embeds.half(), tokens=image.tokens.half())
    scores = model.similarity(text, half)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=0, atol=0.3)  # 2^-11 of rounding, times 1/τ = 10, times s = 100
    assert not torch.equal(scores, expected)


@torch.no_grad()
def test_the_first_stage_ranks_like_the_image_text_similarity(model):
    text, image = model.get_text_features(sentences()), model.get_image_features(images())
    it = model.fusion(model.interaction_features(image), model.interaction_features(text))["it"].T
    first = model.similarity(text.embeds, image.embeds)
    assert torch.equal(first.argsort(dim=1), it.argsort(dim=1))


@pytest.mark.parametrize("missing", ["text tokens", "image tokens", "granularities", "one side", "too many"])
def test_features_that_cannot_be_scored_are_refused(model, missing):
    with torch.no_grad():
        text, image = model.get_text_features(sentences()), model.get_image_features(images())
    if missing == "text tokens":
        arguments, named = (RetrievalFeatures(text.embeds, text.granularities), image), "no tokens|with their tokens"
    elif missing == "image tokens":
        arguments, named = (text, RetrievalFeatures(embeds=image.embeds)), "with their tokens"
    elif missing == "granularities":
        arguments, named = (RetrievalFeatures(embeds=text.embeds, tokens=text.tokens), image), "granularities"
    elif missing == "one side":
        arguments, named = (text.embeds, image), "whole features of both sides"
    else:
        more = image.tokens.repeat(1, 2, 1)
        arguments, named = (
            (text, RetrievalFeatures(embeds=image.embeds, tokens=more)),
            "8 tokens, but the model compares 4",
        )
    with pytest.raises(QueryError, match=named):
        model.similarity(*arguments)


# ---------------------------------------------------------------- switches


SWITCHES = {
    "aligned words": {"text_word_alignment": "aligned"},
    "masked padding": {"text_padding": "mask"},
    "post layer norm": {"patch_post_layernorm": True},
    "temperature": {"softmax_temperature": 0.5},
    "no matrices": {"learnable_fusion": False},
    "no selection": {"token_selection": False},
    "other ratios": {"rho_image": 0.25, "rho_text": 0.3},
    "logit scale": {"logit_scale_init": 1.0},
    "without IT": {"use_it": False},
    "without PW": {"use_pw": False},
    "without PT": {"use_pt": False},
    "without IW": {"use_iw": False},
    "sum of directions": {"loss_reduction": "sum"},
    "ranking": {"loss_type": "rank"},
    "identities": {"use_id_loss": True, "num_classes": 4},
    **{aggregation: {"aggregation": aggregation} for aggregation in AGGREGATIONS[1:]},
}
SHORT_ONE = (5, 11, 2, 3, 9, 8)  # the third sentence is shorter than Z_t


@pytest.fixture(scope="module")
def reference():
    model = build_mgcc()
    return model, mgcc_step(copy.deepcopy(model), input_ids=sentences(SHORT_ONE)).loss.item()


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_trains_and_changes_the_loss(reference, name):
    model = build_mgcc(seed=1, **copy.deepcopy(SWITCHES[name]))
    shared, own = reference[0].state_dict(), model.state_dict()
    kept = {
        key: shared[key] if key in shared and shared[key].shape == value.shape else value for key, value in own.items()
    }
    if "logit_scale_init" in SWITCHES[name]:
        kept["mgcc.fusion.logit_scale"] = own["mgcc.fusion.logit_scale"]
    model.load_state_dict(kept)
    output = mgcc_step(model, input_ids=sentences(SHORT_ONE))
    assert output.loss.isfinite()
    assert abs(output.loss.item() - reference[1]) > 1e-4  # of about 3; repeated runs differ by less than 1e-6
    ranks = model.config.loss_type == "rank"  # looks at the global features only
    for parameter_name, parameter in model.named_parameters():
        if not (ranks and parameter_name.startswith("mgcc.fusion.")):
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name


def test_the_margin_is_that_of_the_configuration():
    narrow, wide = (mgcc_step(build_mgcc(loss_type="rank", rank_margin=margin)).loss for margin in (0.01, 0.4))
    assert wide > narrow + 0.1


def test_parameter_free_aggregations_have_no_local_matrices():
    full = {name for name, _ in build_mgcc().named_parameters()}
    for aggregation in AGGREGATIONS[1:]:
        names = {name for name, _ in build_mgcc(aggregation=aggregation).named_parameters()}
        assert {name.rpartition(".")[2] for name in full - names} == {
            *("local_matrix", "patch_matrix", "word_matrix", "second_word_matrix", "second_patch_matrix")
        }
    plain = build_mgcc(learnable_fusion=False)
    assert [name for name, _ in plain.mgcc.fusion.named_parameters()] == ["logit_scale"]


@torch.no_grad()
def test_a_new_model_scores_as_without_matrices():
    torch.manual_seed(0)
    learnable = MGCCForTraining(mgcc_config())
    plain = MGCCForTraining(mgcc_config(learnable_fusion=False))
    plain.load_state_dict(learnable.state_dict(), strict=False)
    scores = [model.eval().mgcc(images(), sentences()).similarity for model in (learnable, plain)]
    torch.testing.assert_close(*scores, rtol=0, atol=1e-3)  # scores are around 100, τ = 0.01


def test_initialisation_is_the_releases():
    torch.manual_seed(0)
    model = MGCCForTraining(mgcc_config(use_id_loss=True, num_classes=300, text_config={"hidden_size": 64}))
    for name, parameter in model.mgcc.fusion.named_parameters():
        expected = torch.eye(len(parameter)) if parameter.ndim else torch.tensor(100.0).log()
        torch.testing.assert_close(parameter.data, expected, msg=name)
    weight, bound = model.mgcc.text_projection.linear.weight, 64**-0.5
    assert 0.95 * bound < weight.abs().max() <= bound
    assert model.mgcc.text_projection.linear.bias is None
    assert model.identity_loss.classifier.weight.std().item() == pytest.approx(0.001, rel=0.05)  # 9600 numbers
    assert (model.identity_loss.classifier.bias == 0).all()


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_frozen_tower_does_not_learn_and_the_rest_does(modality):
    model = build_mgcc(**{f"freeze_{modality}": True})
    mgcc_step(model)
    frozen = "mgcc.vision_model." if modality == "image" else "mgcc.text_model."
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen), name


def test_the_papers_unscaled_similarity():
    model = build_mgcc(logit_scale_init=0, logit_scale_trainable=False)
    output = mgcc_step(model)
    assert model.mgcc.fusion.logit_scale.grad is None
    assert output.similarities["it"].abs().max() < 2  # cosines, stretched a little by M_g
    assert mgcc_step(build_mgcc()).similarities["it"].abs().max() > 2


# ---------------------------------------------------------------- losses


def test_losses_are_those_of_the_similarities():
    output = mgcc_step(build_mgcc(use_id_loss=True, num_classes=4, id_loss_weight=0.5))
    terms, fused = output.loss_terms, output.similarities["fused"]
    torch.testing.assert_close(fused, sum(output.similarities[name] for name in ("it", "pw", "pt", "iw")) / 4)
    own = torch.arange(BATCH)
    torch.testing.assert_close(terms["image_to_text"], functional.cross_entropy(fused, own))
    torch.testing.assert_close(terms["text_to_image"], functional.cross_entropy(fused.T, own))
    torch.testing.assert_close(terms["align"], (terms["image_to_text"] + terms["text_to_image"]) / 2)
    torch.testing.assert_close(output.loss, terms["align"] + 0.5 * terms["id"])
    summed = mgcc_step(build_mgcc(loss_reduction="sum")).loss_terms
    torch.testing.assert_close(summed["align"], summed["image_to_text"] + summed["text_to_image"])


def test_the_identity_loss_sees_both_modalities_normalised():
    model = build_mgcc(use_id_loss=True, num_classes=4)
    output = mgcc_step(model)
    sides = (
        functional.normalize(side.granularities["global"]) for side in (output.image_features, output.text_features)
    )
    expected = sum(functional.cross_entropy(model.identity_loss.logits(side), LABELS) for side in sides)
    torch.testing.assert_close(output.loss_terms["id"], expected)


def test_ranking_takes_given_triplets():
    model = build_mgcc(loss_type="rank")
    given = {"image_triplets": torch.tensor([[0, 0, 1]]), "text_triplets": torch.tensor([[4, 4, 2], [1, 1, 0]])}
    output = mgcc_step(model, **given)
    assert output.similarities is None
    image, text = (
        functional.normalize(side.granularities["global"]) for side in (output.image_features, output.text_features)
    )
    cosines = image @ text.T
    violations = [cosines[0, 1] - cosines[0, 0], cosines[2, 4] - cosines[4, 4], cosines[0, 1] - cosines[1, 1]]
    torch.testing.assert_close(output.loss, sum((0.2 + violation).clamp(min=0) for violation in violations))


@pytest.mark.parametrize("fields", [{"loss_type": "rank"}, {"use_id_loss": True, "num_classes": 4}])
def test_missing_labels_are_named(fields):
    with pytest.raises(ConfigurationError, match="person_labels"):
        mgcc_step(build_mgcc(**fields), person_labels=None)
    assert mgcc_step(build_mgcc(), person_labels=None).loss.isfinite()  # the contrastive loss needs none


# ---------------------------------------------------------------- image size


@torch.no_grad()
def test_another_image_size_keeps_the_number_of_selected_patches(tmp_path):
    build_mgcc(MGCCModel).save_pretrained(tmp_path)
    resized = MGCCModel.from_pretrained(tmp_path, image_size=(48, 24))
    assert resized.get_image_features(images(2, 48, 24)).tokens.shape == (2, 4, WIDTH)
    build_mgcc(MGCCModel, token_selection=False).save_pretrained(tmp_path / "all")
    with pytest.raises(ConfigurationError, match="num_selected_patches"):
        MGCCModel.from_pretrained(tmp_path / "all", image_size=(48, 24))
    unchanged = MGCCModel.from_pretrained(tmp_path / "all")
    assert unchanged.get_image_features(images(2, *IMAGE_SIZE)).tokens.shape == (2, PATCHES, WIDTH)
