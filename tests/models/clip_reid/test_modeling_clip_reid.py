"""CLIP-ReID as a user meets it: cameras, necks, both stages of training, loading and saving, published CLIPs."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from torch.nn import functional

from reid_zoo import ReIDModel, ReIDModelForTraining
from reid_zoo.errors import CheckpointError, ConfigurationError, QueryError
from reid_zoo.models.clip_reid.modeling_clip_reid import CLIPReIDForTraining, CLIPReIDModel
from reid_zoo.models.clip_reid.prompts_clip_reid import prompt_template_ids
from tiny_clip_reid_models import CAMERAS, LABELS, VIEWS, build, clip_reid_config, images

torch.set_num_threads(1)
SIE = {"sie_camera": True, "num_cameras": 3}
BOTH = {**SIE, "sie_view": True, "num_views": 2}


def embeds(model, **labels) -> torch.Tensor:
    with torch.no_grad():
        return model.get_image_features(images(), **labels).embeds


# ------------------------------------------------------------------------------------------------- side information


def test_the_camera_changes_the_embedding():
    model = build(**SIE)
    assert not torch.allclose(embeds(model, camera_ids=CAMERAS), embeds(model, camera_ids=(CAMERAS + 1) % 3))
    # Without labels the side information is left out, as in the release.
    assert not torch.allclose(embeds(model, camera_ids=CAMERAS), embeds(model))


def test_camera_and_view_choose_one_row_of_the_table():
    model = build(**BOTH).clip_reid
    chosen = model._side_information(6, CAMERAS, VIEWS)
    torch.testing.assert_close(chosen[:, 0], model.side_information[CAMERAS * 2 + VIEWS])
    assert chosen.shape == (6, 1, 32)


def test_view_only():
    model = build(sie_view=True, num_views=2).clip_reid
    torch.testing.assert_close(model._side_information(6, None, VIEWS)[:, 0], model.side_information[VIEWS])


def test_the_coefficient_scales_and_all_tokens_differ_from_the_class_token_alone():
    once, twice = build(**SIE), build(**SIE, sie_coef=2.0)
    with torch.no_grad():
        twice.clip_reid.side_information.div_(2)
    torch.testing.assert_close(embeds(once, camera_ids=CAMERAS), embeds(twice, camera_ids=CAMERAS))
    everywhere = build(**SIE, sie_tokens="all")
    assert not torch.allclose(embeds(once, camera_ids=CAMERAS), embeds(everywhere, camera_ids=CAMERAS))


def test_a_model_without_side_information_passes_cameras_over():
    model = build()
    assert torch.equal(embeds(model), embeds(model, camera_ids=CAMERAS, view_ids=VIEWS))


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ({"camera_ids": CAMERAS + 1, "view_ids": VIEWS}, "camera_ids hold 3, but the model was trained with 0…2"),
        ({"camera_ids": CAMERAS, "view_ids": VIEWS - 1}, "view_ids hold -1"),
        ({"camera_ids": CAMERAS}, "needs view_ids"),
        ({"camera_ids": CAMERAS[:3], "view_ids": VIEWS}, "6 images"),
    ],
)
def test_wrong_cameras_are_named(labels, named):
    with pytest.raises(ConfigurationError, match=named):
        embeds(build(**BOTH), **labels)


# ------------------------------------------------------------------------------------------------------- embeddings


@pytest.mark.parametrize("backbone", ["vit_b16", "rn50"])
def test_the_whole_concatenation_is_normalised_not_each_half(backbone):
    model = build(backbone=backbone)
    with torch.no_grad():
        found = model.get_image_features(images())
    parts = torch.cat([found.granularities["feat"], found.granularities["feat_proj"]], dim=1)
    torch.testing.assert_close(found.embeds, functional.normalize(parts, dim=1))
    assert found.embeds.shape[1] == model.config.embedding_size
    similarity = model.similarity(found, found)
    squared = torch.cdist(found.embeds, found.embeds) ** 2
    torch.testing.assert_close(similarity, 1 - squared / 2, atol=1e-5, rtol=0)


def test_features_behind_the_necks_are_an_option():
    before, after = build(), build(neck_feature="after")
    assert not torch.allclose(embeds(before), embeds(after))
    statistics = after.clip_reid.bottleneck.running_mean.clone()
    after.train()
    after(images(), LABELS)
    moved = 0.9 * statistics + 0.1 * after.clip_reid.image_states(images()).feat.mean(dim=0)
    # Once per step, although features are returned beside the logits.
    torch.testing.assert_close(after.clip_reid.bottleneck.running_mean, moved, atol=1e-5, rtol=1e-4)


def test_sentences_are_refused():
    with pytest.raises(QueryError, match="by image only"):
        build().get_text_features(torch.ones(1, 5, dtype=torch.long))
    assert not CLIPReIDModel.supports_text


@pytest.mark.parametrize("backbone", ["vit_b16", "rn50"])
def test_another_image_size(tmp_path, backbone):
    build(backbone=backbone).save_pretrained(tmp_path)
    model = ReIDModel.from_pretrained(tmp_path, image_size=(48, 32))
    assert model.get_image_features(torch.zeros(1, 3, 48, 32)).embeds.shape == (1, model.config.embedding_size)
    with pytest.raises(ConfigurationError, match="48, 32"):
        model.get_image_features(images())


# --------------------------------------------------------------------------------------------------------- training


def step(model, **labels):
    model.train()
    output = model(images(), LABELS, **labels)
    output.loss.backward()
    return output


def test_stage_one_trains_nothing_but_the_words():
    model = build(**SIE).train()
    model.set_training_stage(1)
    before = copy.deepcopy(model.state_dict())
    output = model(images(), LABELS, camera_ids=CAMERAS)
    output.loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["prompt_learner.context"]
    assert set(output.loss_terms) == {"i2t", "t2i"}
    torch.testing.assert_close(output.loss, output.loss_terms["i2t"] + output.loss_terms["t2i"])
    # Identity 3 is not in the batch.
    assert model.prompt_learner.context.grad[3].abs().sum() == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_stage_one_takes_cached_features():
    model = build(backbone="rn50").train()
    model.set_training_stage(1)
    cached = model.stage_one_image_features(images())
    torch.testing.assert_close(model(image_features=cached, person_labels=LABELS).loss, model(images(), LABELS).loss)
    assert model.clip_reid.training, "the mode is put back"
    torch.testing.assert_close(cached, model.eval().clip_reid.image_states(images()).feat_proj)


def test_stage_two_keeps_the_prompts_and_learns_the_rest():
    model = build(**SIE)
    step(model, camera_ids=CAMERAS)
    for name, parameter in model.named_parameters():
        is_constant = name.startswith(("prompt_learner.", "text_")) or name.endswith(
            ("bottleneck.bias", "bottleneck_proj.bias")
        )
        assert (parameter.grad is None) == is_constant, name


def test_learned_prompts_reach_stage_two():
    """The text features of stage two are those of the prompts as stage one left them, not of an earlier state."""
    model = build().train()
    model(images(), LABELS)
    stale = model.class_text_features.clone()
    model.set_training_stage(1)
    with torch.no_grad():
        model.prompt_learner.context.normal_(std=0.5)
    model.set_training_stage(2)
    model(images(), LABELS)
    assert not torch.allclose(model.class_text_features, stale)
    torch.testing.assert_close(model.class_text_features, model.prompt_features(torch.arange(4)).detach())


def test_class_text_features_are_not_saved_and_not_stale_after_loading(tmp_path):
    model = build()
    model(images(), LABELS)
    assert "class_text_features" not in model.state_dict()
    model.save_pretrained(tmp_path)
    assert CLIPReIDForTraining.from_pretrained(tmp_path).class_text_features is None
    model.load_state_dict(build(seed=1).state_dict())
    assert model.class_text_features is None


@pytest.mark.parametrize(
    ("fields", "terms"),
    [
        ({}, ["i2t"]),
        ({"text_loss_terms": []}, []),
        ({"text_loss_terms": ["i2t_in_batch"]}, ["i2t_in_batch"]),
        ({"text_loss_terms": ["i2t_in_batch", "t2i_in_batch"]}, ["i2t_in_batch", "t2i_in_batch"]),
        ({"text_loss_terms": ["i2t", "t2i_in_batch"]}, ["i2t", "t2i_in_batch"]),
        ({"training_mode": "one_stage"}, ["i2t_in_batch", "t2i_in_batch"]),
        ({"training_mode": "baseline"}, []),
    ],
    ids=str,
)
def test_text_terms(fields, terms):
    """The rows of Tables 5 and 6."""
    model = build(**fields, id_loss_weight=0.5, triplet_loss_weight=2.0, i2t_loss_weight=3.0)
    output = step(model)
    assert list(output.loss_terms) == ["id", "triplet", *terms]
    value = output.loss_terms
    expected = 0.5 * value["id"] + 2 * value["triplet"] + 3 * sum(value[name] for name in terms)
    torch.testing.assert_close(output.loss, expected)
    learns_prompts = model.prompt_learner is not None and model.prompt_learner.context.grad is not None
    assert learns_prompts == (fields.get("training_mode") == "one_stage")
    assert (model.text_model is None) == (fields.get("training_mode") == "baseline")


def test_smoothing_and_margin_change_the_loss():
    reference = step(build()).loss_terms
    assert step(build(label_smoothing=0.0)).loss_terms["id"] != reference["id"]
    assert step(build(triplet_margin=0.6)).loss_terms["triplet"] > reference["triplet"]
    assert step(build(triplet_margin=None)).loss_terms["triplet"] != reference["triplet"]


@pytest.mark.parametrize(
    ("stage", "arguments", "named"),
    [
        (2, {"pixel_values": images()}, "person_labels"),
        (2, {"image_features": torch.zeros(6, 16), "person_labels": LABELS}, "pixel_values"),
        (2, {"pixel_values": images(), "image_features": torch.zeros(6, 16), "person_labels": LABELS}, "stage one"),
        (1, {"person_labels": LABELS}, "image_features"),
    ],
)
def test_missing_inputs_are_named(stage, arguments, named):
    model = build()
    model.set_training_stage(stage)
    with pytest.raises(ConfigurationError, match=named):
        model(**arguments)


def test_stages_that_do_not_exist_are_refused():
    with pytest.raises(ConfigurationError, match="must be 1 or 2"):
        build().set_training_stage(3)
    with pytest.raises(ConfigurationError, match="'baseline' has no stage 1"):
        build(training_mode="baseline").set_training_stage(1)


# ---------------------------------------------------------------------------------------------------------- prompts


def test_prompts_are_template_words_around_learned_ones():
    model = build()
    prompts = model.prompt_learner(torch.tensor([2, 0]))
    assert prompts.shape == (2, 20, 24)
    assert torch.equal(prompts[0, 5:9], model.prompt_learner.context[2])
    assert torch.equal(prompts[0, :5], prompts[1, :5])
    assert torch.equal(prompts[0, 9:], prompts[1, 9:])


def test_words_behind_the_end_do_not_matter():
    model = build()
    reference = model.prompt_features(torch.arange(4))
    with torch.no_grad():
        model.prompt_learner.token_suffix[:, 3:] = 7.0
    torch.testing.assert_close(model.prompt_features(torch.arange(4)), reference)
    full = model.text_model(inputs_embeds=model.prompt_learner(torch.arange(4))).last_hidden_state
    torch.testing.assert_close(reference, model.text_projection(full[:, 11]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("words", [1, 4, 8])
@pytest.mark.parametrize("prompt_object", ["person", "vehicle"])
def test_the_template_is_what_clip_reads(words, prompt_object):
    config = clip_reid_config(
        num_context_tokens=words, prompt_object=prompt_object, text_config={"max_position_embeddings": 77}
    )
    sentence = f"A photo of a {' '.join('X' * words)} {prompt_object}."
    assert torch.equal(prompt_template_ids(config), open_clip.tokenize(sentence))
    assert config.end_position == int(prompt_template_ids(config).argmax())


# ------------------------------------------------------------------------------------------------- loading and saving


@pytest.mark.parametrize("fields", [BOTH, {"backbone": "rn50"}, {"training_mode": "baseline"}], ids=str)
def test_training_and_inference_classes_load_each_other(tmp_path, fields):
    model = build(**fields)
    model.save_pretrained(tmp_path / "training")
    inference = ReIDModel.from_pretrained(tmp_path / "training")
    assert isinstance(inference, CLIPReIDModel)
    labels = {"camera_ids": CAMERAS, "view_ids": VIEWS}
    assert torch.equal(embeds(inference, **labels), embeds(model, **labels))
    inference.save_pretrained(tmp_path / "inference")
    again = ReIDModelForTraining.from_pretrained(tmp_path / "inference")
    assert torch.equal(embeds(again, **labels), embeds(model, **labels))
    assert again.classifier.weight.abs().max() < 0.01, "newly initialised, standard deviation 0.001"
    assert {n: p.requires_grad for n, p in again.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }


def save_open_clip(folder, vision: dict, quick_gelu: bool = True, embed_dim: int = 16):
    """A small random CLIP with the whole vocabulary, as open_clip writes it in half precision."""
    torch.manual_seed(0)
    clip = open_clip.CLIP(
        embed_dim=embed_dim,
        vision_cfg={"image_size": 32, **vision},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
        quick_gelu=quick_gelu,
    )
    with torch.no_grad():
        for name, buffer in clip.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5)
        for name, parameter in clip.named_parameters():
            if name.endswith("bn3.weight"):  # open_clip starts them at zero
                parameter.fill_(0.5)
    path = folder / "clip.pt"
    torch.save({**clip.state_dict(), "input_resolution": torch.tensor(32)}, path)
    return path, clip.eval()


VIT = {"patch_size": 8, "width": 64, "layers": 2, "head_width": 64}
RESNET = {"layers": [1, 2, 1, 1], "width": 64, "head_width": 64}


def test_towers_of_an_openai_clip(tmp_path):
    path, clip = save_open_clip(tmp_path, VIT)
    model = CLIPReIDForTraining.from_towers(path, num_classes=3, image_size=(32, 32))
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = model.get_image_features(pixels).granularities["feat_proj"]
        torch.testing.assert_close(found, clip.encode_image(pixels), atol=1e-5, rtol=1e-4)
        # With CLIP's own word for the learned ones, a prompt is CLIP's sentence.
        words = clip.token_embedding(torch.tensor([343] * 4))
        model.prompt_learner.context.copy_(words.expand(3, -1, -1))
        sentence = clip.encode_text(open_clip.tokenize("A photo of a X X X X person."))
        torch.testing.assert_close(model.prompt_features(torch.tensor([1])), sentence, atol=1e-5, rtol=1e-4)
    assert model.config.projection_dim == 16
    overlapping = CLIPReIDModel.from_towers(path, image_size=(64, 32), vision_config={"patch_stride": 4})
    assert overlapping.config.vision_config.grid_size == (15, 7)


@pytest.mark.parametrize("last_stride", [1, 2])
def test_a_resnet_of_openai_clip(tmp_path, last_stride):
    path, clip = save_open_clip(tmp_path, RESNET, embed_dim=24)
    fields = {"vision_config": {"last_stride": last_stride}}
    model = CLIPReIDForTraining.from_towers(path, backbone="rn50", num_classes=3, image_size=(32, 32), **fields)
    assert model.config.projection_dim == 24
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = model.get_image_features(pixels).granularities["feat_proj"]
        released = clip.encode_image(pixels)
    if last_stride == 2:
        torch.testing.assert_close(found, released, atol=1e-5 * float(released.abs().max()), rtol=1e-4)
    else:  # the last stage keeps its resolution, with the same weights
        assert model.vision_tower.config.grid_size == (2, 2)
        assert not torch.allclose(found, released)


def test_towers_that_do_not_fit_are_refused(tmp_path):
    path, _ = save_open_clip(tmp_path, VIT)
    with pytest.raises(CheckpointError, match="no CLIP ResNet"):
        CLIPReIDModel.from_towers(path, backbone="rn50")
    with pytest.raises(CheckpointError, match="does not exist"):
        CLIPReIDModel.from_towers(tmp_path / "nothing.pt", backbone="rn50")


def test_gradient_checkpointing_is_refused_where_it_would_change_batch_norms():
    with pytest.raises(ValueError, match="does not support"):
        build(backbone="rn50").gradient_checkpointing_enable()
