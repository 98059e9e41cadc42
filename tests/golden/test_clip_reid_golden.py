"""CLIP-ReID reproduces the authors' code: features, prompts, both stages' losses and gradients, schedules, evaluation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))
from clip_dual_encoder_case import official_gradients
from golden_case import KEPT, GoldenCase, expects_cases, find_cases

from reid_zoo.conversion import convert_official_checkpoint
from reid_zoo.evaluation.metrics import RetrievalMetrics, evaluate_retrieval
from reid_zoo.evaluation.reranking import k_reciprocal_rerank
from reid_zoo.losses import BatchHardTripletLoss
from reid_zoo.models.clip_reid.configuration_clip_reid import CLIPReIDConfig
from reid_zoo.models.clip_reid.conversion_clip_reid import convert_state_dict, infer_config
from reid_zoo.models.clip_reid.modeling_clip_reid import CLIPReIDForTraining
from reid_zoo.models.clip_reid.prompts_clip_reid import prompt_template_ids
from reid_zoo.models.conversion_report import ConversionReport
from reid_zoo.models.encoders.position_grid import resample_position_grid
from reid_zoo.training.optimization import (
    LearningRateSchedule,
    ParameterGroup,
    group_parameters,
    learning_rate_factor,
)

# Entry of a case → field of ours.
SETTINGS = {
    "sie_camera": "sie_camera",
    "sie_view": "sie_view",
    "sie_coe": "sie_coef",
    "id_loss_weight": "id_loss_weight",
    "triplet_loss_weight": "triplet_loss_weight",
    "i2t_loss_weight": "i2t_loss_weight",
    "triplet_margin": "triplet_margin",
    "vision_heads": "vision_num_attention_heads",
    "text_heads": "text_num_attention_heads",
    "num_ctx_tokens": "num_context_tokens",
    "embed_dim": "projection_dim",
    "num_classes": "num_classes",
}
# Read by `overrides_of` or compared in the test.
USED = {
    "backbone",
    "buffer_keys",
    "camids",
    "context_length",
    "dataset_name",
    "eval",
    "grad_keys",
    "image_height",
    "image_width",
    "in_planes",
    "label_smoothing",
    "label_smoothing_epsilon",
    "num_cameras",
    "num_views",
    "patch_size",
    "pids",
    "positional_embedding_key",
    "pretrained_grid",
    "prompt_labels",
    "prompt_template",
    "rerank_settings",
    "stage1_index",
    "stage1_schedule",
    "stage2_param_groups",
    "stage2_schedule",
    "stride",
    "text_layers",
    "text_width",
    "viewids",
    "vision_layers",
    "vision_width",
}
NO_SETTINGS = {"method", "notes", "seed"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    root = metafunc.config.getoption("--golden-root")
    if "case_folder" in metafunc.fixturenames:
        folders = find_cases(root, "clip_reid")
        metafunc.parametrize("case_folder", folders, ids=[folder.name for folder in folders])
    if "manifest" in metafunc.fixturenames:
        files = sorted((root / "clip_reid").glob("manifest_full*.json"))
        metafunc.parametrize("manifest", files, ids=[file.stem for file in files])


def test_there_are_cases_and_every_file_is_known(request):
    root = request.config.getoption("--golden-root")
    if not expects_cases(root, "clip_reid"):
        return
    cases = find_cases(root, "clip_reid")
    assert cases or root != KEPT  # another root may hold side files only
    for path in (root / "clip_reid").iterdir():
        assert path in cases or (path.name.startswith("manifest_full") and path.suffix == ".json"), path


def overrides_of(config: dict) -> dict[str, Any]:
    """Settings of a case → arguments of the conversion. Every entry of the case must find its place."""
    unknown = set(config) - set(SETTINGS) - USED - NO_SETTINGS
    assert not unknown, f"no place for {unknown}"
    overrides = {ours: config[theirs] for theirs, ours in SETTINGS.items()}
    overrides["image_size"] = [config["image_height"], config["image_width"]]
    overrides["label_smoothing"] = config["label_smoothing_epsilon"] if config["label_smoothing"] else 0.0
    overrides["prompt_object"] = "vehicle" if config["dataset_name"] in ("VehicleID", "veri") else "person"
    assert config["prompt_template"].endswith(f"{overrides['prompt_object']}.")
    layers, width = config["vision_layers"], config["vision_width"]
    if config["backbone"] == "RN50":
        overrides["vision_config"] = {"layers": layers, "stem_width": width}
        assert config["patch_size"] is None
    else:
        overrides["vision_config"] = {
            "num_hidden_layers": layers,
            "hidden_size": width,
            "patch_size": config["patch_size"],
        }
    overrides["stride_size"] = config["stride"]
    overrides["text_config"] = {
        "num_hidden_layers": config["text_layers"],
        "hidden_size": config["text_width"],
        "max_position_embeddings": config["context_length"],
    }
    for flag, count in (("sie_camera", "num_cameras"), ("sie_view", "num_views")):
        if config[flag]:
            overrides[count] = config[count]
    return overrides


def compare_metrics(case: GoldenCase, prefix: str, metrics: RetrievalMetrics) -> None:
    expected = case.expected[f"{prefix}.cmc"]
    case.compare(f"{prefix}.cmc", torch.tensor(metrics.cmc(len(expected)) / 100, dtype=torch.float32))
    case.compare(f"{prefix}.mAP", torch.tensor(metrics.mAP / 100, dtype=torch.float32))


def check_evaluation(case: GoldenCase) -> None:
    """Camera rule, CMC, mAP and re-ranking on the features and the matrix of the case."""
    inputs = case.inputs
    ids = {
        f"{side}_{ours}": inputs[f"evalset.{side}_{theirs}"].numpy()
        for side in ("query", "gallery")
        for ours, theirs in (("person_ids", "pids"), ("camera_ids", "camids"))
    }
    query, gallery = (
        functional.normalize(inputs[f"evalset.{side}_feats"], dim=1, eps=1e-12) for side in ("query", "gallery")
    )
    settings = case.config["eval"]
    assert (len(query), len(gallery), query.shape[1]) == (
        settings["num_query"],
        settings["num_gallery"],
        settings["dim"],
    )
    squared = query.square().sum(dim=1)[:, None] + gallery.square().sum(dim=1)[None] - 2 * query @ gallery.T
    case.compare("evalset.distmat", squared)
    compare_metrics(case, "evalset", evaluate_retrieval(query, gallery, **ids))
    compare_metrics(case, "evalmat", evaluate_retrieval(similarity=-inputs["evalmat.distmat"], **ids))
    for index, (k1, k2, weight) in enumerate(case.config["rerank_settings"]):
        options = {"k1": k1, "k2": k2, "lambda_value": weight}
        distances = k_reciprocal_rerank(query, gallery, **options)
        case.compare(f"rerank{index}.distmat", torch.from_numpy(distances))
        compare_metrics(case, f"rerank{index}", evaluate_retrieval(similarity=-distances, **ids))
        half = k_reciprocal_rerank(query, gallery, half_precision=True, **options)
        case.compare(f"rerank{index}.distmat_half", torch.from_numpy(half))


def check_schedules(case: GoldenCase) -> None:
    first, second = case.config["stage1_schedule"], case.config["stage2_schedule"]
    base = first["base_lr"]
    one = LearningRateSchedule(
        kind="epoch_cosine_over_all",
        warmup_epochs=first["warmup_epochs"],
        warmup_factor=first["warmup_lr_init"] / base,
        final_factor=first["lr_min"] / base,
        first_epoch=1,
    )
    two = LearningRateSchedule(
        kind="multistep",
        warmup_epochs=second["warmup_iters"],
        warmup_factor=second["warmup_factor"],
        milestones=tuple(second["steps"]),
        gamma=second["gamma"],
        first_epoch=1,
    )
    for stage, schedule, settings in (("stage1", one, first), ("stage2", two, second)):
        epochs, steps = settings["max_epochs"], 3
        factor = learning_rate_factor(schedule, steps, epochs)
        for offset in (0, steps - 1):  # constant inside an epoch
            rates = [settings["base_lr"] * factor(epoch * steps + offset) for epoch in range(epochs)]
            case.compare(f"lr.{stage}", torch.tensor(rates, dtype=torch.float64).float())


def check_parameter_groups(case: GoldenCase, model: CLIPReIDForTraining) -> None:
    """What is trained in stage two, with which rate and decay; everything else is frozen."""
    schedule = case.config["stage2_schedule"]
    rate, decay = schedule["base_lr"], schedule["weight_decay"]
    options = group_parameters(
        model,
        (
            ParameterGroup(
                name="biases",
                pattern="bias",
                learning_rate=rate * schedule["bias_lr_factor"],
                weight_decay=schedule["weight_decay_bias"],
            ),
            ParameterGroup(name="rest", learning_rate=rate, weight_decay=decay),
        ),
    )
    found = {id(value): (group["lr"], group["weight_decay"]) for group in options for value in group["params"]}
    parameters = dict(model.named_parameters())
    keys = [key.removeprefix("module.") for key in case.checkpoint]
    marked = {key: torch.full((1,) * max(1, case.checkpoint[key].ndim), float(i)) for i, key in enumerate(keys)}
    expected = dict(case.config["stage2_param_groups"]["groups"])
    for ours, value in convert_state_dict(marked, ConversionReport("clip_reid"), config=model.config).items():
        official = keys[int(value.flatten()[0])]
        if ours in parameters and parameters[ours].requires_grad:
            assert found[id(parameters[ours])] == pytest.approx(tuple(expected.pop(official)), rel=1e-9), official
    assert not expected, f"frozen here, trained officially: {sorted(expected)}"


def check_prompts(case: GoldenCase, model: CLIPReIDForTraining) -> None:
    learner = model.prompt_learner
    assert learner is not None
    # Prefix and suffix are CLIP's embeddings of the template.
    ids, rows = case.inputs["token_embedding.ids"].tolist(), case.inputs["token_embedding.rows"]
    template = case.inputs["input_ids"][0]
    embedded = torch.stack([rows[ids.index(token)] for token in template.tolist()])
    prefix, suffix = learner.token_prefix.clone(), learner.token_suffix.clone()
    learner.set_template(embedded)
    assert torch.equal(learner.token_prefix, prefix)
    assert torch.equal(learner.token_suffix, suffix)
    assert torch.equal(prompt_template_ids(model.config)[0], template)
    assert int(template.argmax()) == model.config.end_position == int(case.inputs["attention_mask"].sum()) - 1
    case.compare("prompts", learner(torch.tensor(case.config["prompt_labels"])))


def check_position_grid(case: GoldenCase, model: CLIPReIDForTraining) -> None:
    pretrained, edge = case.inputs["positional_embedding.pretrained"], case.config["pretrained_grid"]
    resized = resample_position_grid(
        pretrained,
        (edge, edge),
        model.config.vision_config.grid_size,
        align_corners=model.position_grid_align_corners,
    )
    case.compare("positional_embedding.resized", resized)
    stored = case.checkpoint[case.config["positional_embedding_key"]]
    assert torch.equal(case.expected["positional_embedding.resized"], stored)


def check_stage_two_variants(case: GoldenCase, logits: dict[str, Tensor], features: list[Tensor], pids: Tensor) -> None:
    """Mined distances, the soft margin, and every cross-entropy with and without smoothing."""
    epsilon = case.config["label_smoothing_epsilon"]
    for index, feature in enumerate(features):
        loss = BatchHardTripletLoss(case.config["triplet_margin"])
        positive, negative = loss.mine(feature, pids)
        case.compare(f"stage2.dist_ap_{index}", positive)
        case.compare(f"stage2.dist_an_{index}", negative)
        case.compare(f"stage2.loss_triplet_{index}", loss(feature, pids))
        case.compare(f"stage2.loss_triplet_soft_{index}", BatchHardTripletLoss(None)(feature, pids))
    used = epsilon if case.config["label_smoothing"] else 0.0
    for name, key in (("id_0", "feat"), ("id_1", "feat_proj"), ("i2t", "text")):
        for suffix, smoothing in (("", used), ("_plain", 0.0), ("_smoothed", epsilon)):
            value = functional.cross_entropy(logits[key], pids, label_smoothing=smoothing)
            if f"stage2.loss_{name}{suffix}" in case.expected:
                case.compare(f"stage2.loss_{name}{suffix}", value)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_model_case(case_folder, attention):
    case = GoldenCase(case_folder)
    settings, inputs = case.config, case.inputs
    model = convert_official_checkpoint("clip_reid", case.checkpoint, **overrides_of(settings))
    model.set_attn_implementation(attention)
    config, inner = model.config, model.clip_reid
    assert (config.hidden_size, config.projection_dim) == (settings["in_planes"], settings["embed_dim"])
    pixels, pids = inputs["pixel_values"], inputs["pids"]
    for name in ("pids", "camids", "viewids"):
        assert inputs[name].tolist() == settings[name]
    labels = {"camera_ids": inputs["camids"], "view_ids": inputs["viewids"]}

    with torch.no_grad():
        images = model.get_image_features(pixels, **labels)
        for name, feature in images.granularities.items():
            case.compare(f"eval.{name}", feature)
        case.compare("eval.embedding_normalized", images.embeds)
        states = inner.image_states(pixels, **labels)
        before = torch.cat([states.feat, states.feat_proj], dim=1)
        case.compare("eval.embedding_before", before)
        assert torch.equal(functional.normalize(before, dim=1), images.embeds)
        after = torch.cat([inner.bottleneck(states.feat), inner.bottleneck_proj(states.feat_proj)], dim=1)
        case.compare("eval.embedding_after", after)
        config.neck_feature = "after"
        assert torch.equal(model.get_image_features(pixels, **labels).embeds, functional.normalize(after, dim=1))
        config.neck_feature = "before"
        case.compare("eval.distmat", 2 - 2 * model.similarity(images, images))
        if config.backbone == "rn50":
            maps = inner.vision_model(pixels[:1])
            case.compare("eval.map_layer3_image0", maps.penultimate_map[0])
            case.compare("eval.map_layer4_image0", maps.last_map[0])
            pooling = inner.vision_model.attention_pooling
            tokens = pooling.tokens(maps.last_map)
            case.compare("eval.attnpool_tokens_image0", pooling.attend(tokens, tokens)[0])
        else:
            side = inner._side_information(len(pixels), **labels)
            encoded = inner.vision_model(pixels, side_information=side)
            case.compare("eval.tokens_last_image0", encoded.penultimate_state[0])
            case.compare("eval.tokens_image0", images.tokens[0])
            case.compare("eval.tokens_proj_image0", inner.visual_projection(images.tokens[0]))
        check_prompts(case, model)
        check_position_grid(case, model)
        case.compare("text_features", model.prompt_features(torch.arange(config.num_classes)))
    check_schedules(case)
    check_evaluation(case)

    # Stage one: frozen towers, no side information, evaluation mode.
    model.train()
    model.set_training_stage(1)
    cached = model.stage_one_image_features(pixels)
    case.compare("stage1.image_features", cached)
    batch = inputs["stage1.index"]
    assert batch.tolist() == settings["stage1_index"]
    output = model(image_features=cached[batch], person_labels=pids[batch])
    case.compare("stage1.loss_i2t", output.loss_terms["i2t"])
    case.compare("stage1.loss_t2i", output.loss_terms["t2i"])
    case.compare("stage1.loss_total", output.loss)
    output.loss.backward()
    assert [name for name, value in model.named_parameters() if value.grad is not None] == ["prompt_learner.context"]
    case.compare("grad_stage1.prompt_learner.cls_ctx", model.prompt_learner.context.grad)
    model.prompt_learner.context.grad = None

    # Stage two: one training step.
    model.set_training_stage(2)
    check_parameter_groups(case, model)
    output = model(pixels, pids, **labels)
    features = [output.image_features.granularities[name] for name in ("feat_last", "feat", "feat_proj")]
    for name, feature in output.image_features.granularities.items():
        case.compare(f"train.{name}", feature)
    for key, name in (("feat", "cls_score"), ("feat_proj", "cls_score_proj"), ("text", "i2t_logits")):
        case.compare(f"train.{name}", output.logits[key])
    for name in ("id", "triplet", "i2t"):
        case.compare(f"stage2.loss_{name}", output.loss_terms[name])
    case.compare("stage2.loss_total", output.loss)
    case.compare("stage2.loss_total_without_i2t", output.loss - config.i2t_loss_weight * output.loss_terms["i2t"])
    check_stage_two_variants(case, output.logits, features, pids)
    in_batch = model.contrastive_loss.directions(features[2], model.class_text_features[pids], pids)
    case.compare("stage2.loss_i2t_inbatch", in_batch[0])
    case.compare("stage2.loss_t2i_inbatch", in_batch[1])

    output.loss.backward()
    gradients = official_gradients(convert_state_dict, "clip_reid", case.checkpoint, model, config=config)
    for key in [key for key in case.expected if key.startswith("grad.")]:
        case.compare_gradient(key, gradients)
    assert {f"grad.{key}" for key in settings["grad_keys"]} <= case.compared
    buffers = official_buffers(case.checkpoint, model)
    for key in [key for key in case.expected if key.startswith("buffers_after.")]:
        case.compare(key, buffers[key.removeprefix("buffers_after.")])
    assert {f"buffers_after.{key}" for key in settings["buffer_keys"]} <= case.compared
    case.assert_everything_compared()


def official_buffers(checkpoint: dict[str, Tensor], model: CLIPReIDForTraining) -> dict[str, Tensor]:
    """Our buffers under the official keys."""
    keys = [key.removeprefix("module.") for key in checkpoint]
    marked = {key: torch.full((1,) * max(1, checkpoint[key].ndim), float(i)) for i, key in enumerate(keys)}
    buffers = dict(model.named_buffers())
    converted = convert_state_dict(marked, ConversionReport("clip_reid"), config=model.config)
    return {keys[int(value.flatten()[0])]: buffers[ours] for ours, value in converted.items() if ours in buffers}


def test_full_size_manifest_is_consumed(manifest):
    """Every key of the full-size checkpoint goes into the model with its shape, and nothing is missing."""
    shapes = json.loads(manifest.read_text())
    rows = shapes.get("cv_embed", [0])[0]
    told: dict[str, Any] = {}
    if rows:
        told = {"sie_camera": True}
        if "veri" in manifest.stem:
            told |= {"sie_view": True, "num_cameras": 20}
    with torch.device("meta"):
        state = {key.removeprefix("module."): torch.empty(shape) for key, shape in shapes.items()}
        report = ConversionReport("clip_reid")
        config = infer_config(state, **told)
        converted = convert_state_dict(state, report, config=config)
        model = CLIPReIDForTraining(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in converted.items()} == wanted
    assert not report.left_out
    assert config.uses_text == ("baseline" not in manifest.stem)
    if rows:
        assert config.num_side_information_rows == rows
    total = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    if manifest.stem == "manifest_full":
        assert config == CLIPReIDConfig()
        assert total == pytest.approx(126.77, abs=0.01)  # the spec's figures, 751 identities
    elif manifest.stem == "manifest_full_rn50":
        assert total == pytest.approx(80.72, abs=0.01)
