"""VFE-TPS reproduces the authors' code: features, reconstructions, every loss term and gradient, and the side files."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
from clip_dual_encoder_case import (
    FAMILY_NOT_SETTINGS,
    assert_manifest_is_consumed,
    assert_optimizer_groups,
    clip_overrides,
    official_gradients,
)
from golden_case import KEPT, GoldenCase, assert_close, expects_cases, find_cases

from reid_zoo.clip_tokenizer import clip_tokenizer
from reid_zoo.conversion import convert_official_checkpoint
from reid_zoo.data.masking import image_mask, mask_words, num_masked_units
from reid_zoo.evaluation import evaluate_retrieval
from reid_zoo.evaluation.feature_analysis import silhouette_samples
from reid_zoo.evaluation.reconstruction_distance import average_distance
from reid_zoo.models.encoders.position_grid import resample_position_grid
from reid_zoo.models.vfe_tps.configuration_vfe_tps import VFETPSConfig
from reid_zoo.models.vfe_tps.conversion_vfe_tps import convert_state_dict, infer_config
from reid_zoo.models.vfe_tps.modeling_vfe_tps import VFETPSForTraining
from reid_zoo.processing import ReIDProcessor
from reid_zoo.training.optimization import LearningRateSchedule, learning_rate_factor

SETTINGS = {
    "temperature": "temperature",
    "mim_depth": "cross_modal_num_layers",
    "mask_ratio": "mask_ratio",
    "mask_patch_size": "mask_patch_size",
    "mim_loss_weight": "mim_loss_weight",
    "num_classes": "num_classes",
    "gvfc_num_samples": "gvfc_num_samples",
}
# Checked against the model, or used where the text says so.
CHECKED = {
    "grad_keys_as_released",
    "losses_in_total",
    "losses_in_total_as_released",
    "masked_patches",
    "masked_units",
    "purpose",
    "sdm_soft_label_factor",
}
# Agreement that the spec asks of gradients (section 11); of everything else it asks less than our tolerance in general.
GRADIENT_TOLERANCE = 1e-4
# A key that the checkpoint has → the terms it makes possible; the terms of "" need the towers only.
TERMS_BY_KEY = {
    "": ["matching", "gvfc", "itc", "cmpm", "gtm", "patch"],
    "classifier.weight": ["id", "gi2id"],
    "gToken2id.weight": ["g2id"],
    "decoder.0.weight": ["mim"],
}
LOSS_NAMES = {
    "matching": "sdm",
    "gvfc": "isgvfc_sampled",
    "id": "id",
    "gi2id": "gi2id",
    "g2id": "g2id",
    "itc": "itc",
    "cmpm": "cmpm_projection",
    "gtm": "gtm_experimental",
    "patch": "patch_experimental",
}
# Parts of a total as the cases name them → our terms.
TOTALS = {
    **{theirs: ours for ours, theirs in LOSS_NAMES.items()},
    "mim_loss_weight * mim_text_kv": "mim",
    "10 * mim_image_kv": "mim",
}
SIDE_FILES = (
    "analysis_cases",
    "lr_schedule",
    "manifest_full",
    "metrics_cases",
    "mim_mask_cases",
    "mlm_masking_cases",
    "optimizer_groups_full",
    "preprocess_eval",
    "tokenizer_cases",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    root = metafunc.config.getoption("--golden-root") / "vfe_tps"
    if "case_folder" in metafunc.fixturenames:
        folders = find_cases(root.parent, "vfe_tps")
        metafunc.parametrize("case_folder", folders, ids=[folder.name for folder in folders])
    for name in SIDE_FILES:
        fixture = f"{name}_file"
        if fixture in metafunc.fixturenames:
            files = sorted(root.glob(f"{name}*"))
            metafunc.parametrize(fixture, files, ids=[file.stem for file in files])


def test_there_are_cases_and_every_file_is_known(request):
    root = request.config.getoption("--golden-root")
    if not expects_cases(root, "vfe_tps"):
        return
    cases = find_cases(root, "vfe_tps")
    assert cases or root != KEPT  # another root may hold side files only
    for path in (root / "vfe_tps").iterdir():
        assert path in cases or path.name.startswith(SIDE_FILES), path


def overrides_of(config: dict) -> dict:
    """Settings of a case → arguments of the conversion. Every entry of the case must find its place."""
    overrides = clip_overrides(config)
    for name, value in config.items():
        if name in SETTINGS:
            overrides[SETTINGS[name]] = value
        else:
            assert name in FAMILY_NOT_SETTINGS | CHECKED, f"no place for {name}"
    return overrides


def terms_of(checkpoint: dict[str, torch.Tensor]) -> list[str]:
    """Loss terms of which the checkpoint has the heads: a case need not have all of them, the paper's form has none."""
    keys = {"", *(key.removeprefix("module.") for key in checkpoint)}
    return [term for key, terms in TERMS_BY_KEY.items() if key in keys for term in terms]


def zero_gradients(model: torch.nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_model_case(case_folder, attention):
    case = GoldenCase(case_folder, GRADIENT_TOLERANCE)
    settings, inputs = case.config, case.inputs
    terms = terms_of(case.checkpoint)
    has_mim = "mim" in terms
    model = convert_official_checkpoint(
        "vfe_tps", case.checkpoint, **overrides_of(settings), loss_terms=terms, mim_guidance="text"
    )
    model.set_attn_implementation(attention)
    config = model.config
    pixels, ids, pids, first = inputs["pixel_values"], inputs["input_ids"], inputs["pids"], settings["store_first_n"]
    assert list(config.vision_config.grid_size) == settings["grid"]

    # The position table at construction, from a square CLIP grid.
    edge = settings["clip"]["pretrain_grid"]
    case.compare(
        "interpolated_positional_embedding",
        resample_position_grid(
            inputs["clip_visual_positional_embedding"],
            (edge, edge),
            config.vision_config.grid_size,
            align_corners=model.position_grid_align_corners,
        ),
    )

    with torch.no_grad():
        images, texts = model.get_image_features(pixels), model.get_text_features(ids)
        case.compare("image_embeds", images.granularities["global"])
        case.compare("text_embeds", texts.granularities["global"])
        case.compare("image_token_embeds_first_n", images.tokens[:first])
        case.compare("text_token_embeds_first_n", texts.tokens[:first])
        case.compare("similarity_t2i", model.similarity(texts, images))
        assert torch.equal(texts.token_mask.long(), inputs["attention_mask"])

    batch = {"pixel_values": pixels, "input_ids": ids, "person_labels": pids, "gvfc_indices": inputs["gvfc_indices"]}
    assert len(inputs["gvfc_indices"]) == min(config.gvfc_num_samples, len(pids))
    if has_mim:
        mask = inputs["mim_mask"]
        assert (mask.flatten(1).sum(dim=1) == settings["masked_patches"]).all()
        height, width = config.vision_config.image_size
        assert num_masked_units((height, width), config.mask_patch_size, config.mask_ratio) == settings["masked_units"]
        batch["patch_mask"] = mask
        branch = model.masked_image_modeling
        with torch.no_grad():
            masked_tokens = branch.encode_masked(model.vfe_tps, pixels, mask)
            case.compare("masked_image_token_embeds_first_n", masked_tokens[:first])
            case.compare("mim_hidden_text_kv_first_n", branch.fuse(masked_tokens, texts.tokens)[:first, 1:])
            for guidance in ("text", "image"):
                config.mim_guidance = guidance
                reconstruction = branch(model.vfe_tps, pixels, mask, texts.tokens)
                case.compare(f"reconstruction_{guidance}_kv_first_n", reconstruction[:first])
                case.compare(f"loss.mim_{guidance}_kv", model.mim_loss(reconstruction, pixels, mask))
            config.mim_guidance = "text"

    model.train()
    with torch.no_grad():
        everything = model(**batch).loss_terms
        for ours, theirs in LOSS_NAMES.items():
            if ours in terms and f"loss.{theirs}" in case.expected:
                case.compare(f"loss.{theirs}", everything[ours])
        image, text = images.granularities["global"], texts.granularities["global"]
        if "loss.isgvfc_batch" in case.expected:
            model.feature_calibration_loss.mode = "batch"
            case.compare("loss.isgvfc_batch", model.feature_calibration_loss(image, pids))
        if "loss.sdm_soft_labels" in case.expected:
            model.sdm_loss.soft_label_factor = settings["sdm_soft_label_factor"]
            case.compare("loss.sdm_soft_labels", model.sdm_loss(image, text, pids, inputs["image_ids"]))
            model.sdm_loss.soft_label_factor = None
        if "loss.triplet_as_released" in case.expected:
            draws = inputs["triplet_positive_indices"], inputs["triplet_negative_indices"]
            case.compare("loss.triplet_as_released", model.sampled_triplet_loss(image, text, pids, *draws))
    model.feature_calibration_loss.mode = "sample"

    def check_total(key: str, gradient_prefix: str) -> None:
        zero_gradients(model)
        output = model(**batch)
        case.compare(key, output.loss)
        output.loss.backward()
        expected = [name for name in case.expected if name.startswith(gradient_prefix)]
        gradients = official_gradients(everything_converted, "vfe_tps", case.checkpoint, model)
        for name in expected:
            case.compare_gradient(name, gradients)

    def everything_converted(state, report, **_):
        return convert_state_dict(state, report, loss_terms=tuple(terms))

    def use_terms_of(total: str) -> None:
        config.loss_terms = [TOTALS[name] for name in settings[total]]
        assert set(config.loss_terms) <= set(terms), f"{total} has terms whose heads the checkpoint lacks"

    use_terms_of("losses_in_total")
    check_total("loss.total", "grad.")
    assert {f"grad.{key}" for key in settings["grad_keys"]} <= case.compared

    if "losses_in_total_as_released" in settings:
        use_terms_of("losses_in_total_as_released")
        config.mim_guidance, config.mim_loss_weight = "image", 10.0
        check_total("loss.total_as_released", "grad_as_released.")
    assert {f"grad_as_released.{key}" for key in settings.get("grad_keys_as_released", [])} <= case.compared

    # IS-GVFC over the features of the epoch, as released.
    if "loss.isgvfc_history" in case.expected:
        config.loss_terms, config.gvfc_mode, model.feature_calibration_loss.mode = ["gvfc"], "history", "history"
        model.begin_epoch()
        model.feature_calibration_loss.remember(inputs["history_feats"], inputs["history_pids"])
        check_total("loss.isgvfc_history", "grad_isgvfc_history.")
    case.assert_everything_compared()


def write_without_heads(folder: Path, heads: tuple[str, ...], losses: set[str]) -> Path:
    """The kept case without some heads and losses, in the form of the release if it still can be, else of the paper."""
    source = KEPT / "vfe_tps" / "case_a"
    shutil.copytree(source, folder)
    checkpoint, expected = load_file(source / "checkpoint.safetensors"), load_file(source / "expected.safetensors")
    config = json.loads((source / "config.json").read_text())
    if "classifier." in heads:
        del config["losses_in_total_as_released"], config["grad_keys_as_released"]
        losses |= {key for key in expected if "as_released" in key and "triplet" not in key}
    (folder / "config.json").write_text(json.dumps(config))
    for name, tensors in (("checkpoint", checkpoint), ("expected", expected)):
        kept = {key: value for key, value in tensors.items() if not key.startswith(heads) and key not in losses}
        save_file(kept, folder / f"{name}.safetensors")
    return folder


JOINT = (("gToken2id.",), {"loss.g2id"})
BOTH = (("classifier.", "gToken2id."), {"loss.id", "loss.gi2id", "loss.g2id"})


@pytest.mark.parametrize(("heads", "losses"), [JOINT, BOTH], ids=["release", "paper"])
def test_a_case_need_not_have_all_heads(heads, losses, tmp_path):
    test_model_case(write_without_heads(tmp_path / "case", heads, set(losses)), "sdpa")


def test_a_loss_without_its_head_is_not_passed_over(tmp_path):
    heads, losses = BOTH
    with pytest.raises(AssertionError, match=r"no test compared: \['loss\.id'\]"):
        test_model_case(write_without_heads(tmp_path / "case", heads, losses - {"loss.id"}), "sdpa")


def test_full_size_manifest_is_consumed(manifest_full_file):
    """Every key of the full-size checkpoint goes into the model with its shape, and nothing is missing."""
    config, model = assert_manifest_is_consumed(
        manifest_full_file, "vfe_tps", infer_config, convert_state_dict, VFETPSForTraining
    )
    towers = sum(parameter.numel() for parameter in model.vfe_tps.parameters())
    branch = sum(parameter.numel() for parameter in model.masked_image_modeling.parameters())
    assert (towers, branch) == (149_617_664, 14_057_984)  # the spec's figures
    if "gi2id" not in config.loss_terms:
        assert config == VFETPSConfig(loss_terms=config.loss_terms)
        assert set(config.loss_terms) == {"matching", "gvfc", "mim"}
    else:
        assert config.mim_guidance == "image"


def test_optimizer_groups_of_the_full_size_model(optimizer_groups_full_file):
    assert_optimizer_groups(optimizer_groups_full_file, "vfe_tps", infer_config, convert_state_dict, VFETPSForTraining)


SCHEDULES = {
    "cosine": "epoch_cosine",
    "linear": "epoch_linear",
    "step": "multistep",
    "exp": "epoch_exponential",
    "poly": "epoch_poly",
}


def stated_schedule(description: str, name: str) -> LearningRateSchedule:
    """The schedule of that official name with the settings that a table's description states, else the release's."""
    number = r"(\d+(?:\.\d+)?(?:e-?\d+)?)"

    def find(pattern: str, default: str) -> str:
        found = re.search(pattern, description)
        return found[1] if found else default

    return LearningRateSchedule(
        kind=SCHEDULES[name],
        warmup_epochs=float(find(f"warm-up {number} epochs", "5")),
        warmup_factor=float(find(f"epochs from {number}", "0.1")),
        milestones=tuple(int(epoch) for epoch in find(r"milestones (\d+(?:, ?\d+)*)", "20,50").split(",")),
        gamma=float(find(f"gamma {number}", "0.1")),
        power=float(find(f"power {number}", "0.9")),
        final_factor=float(find(f"target {number}", "0")),
    )


def test_settings_are_read_from_the_description():
    stated = "warm-up 3 epochs from 0.2; step milestones 10, 30,45 gamma 0.5; power 0.8; target 1e-3"
    assert stated_schedule(stated, "step") == LearningRateSchedule(
        kind="multistep",
        warmup_epochs=3,
        warmup_factor=0.2,
        milestones=(10, 30, 45),
        gamma=0.5,
        power=0.8,
        final_factor=1e-3,
    )


def test_learning_rate_schedules(lr_schedule_file):
    content = json.loads(lr_schedule_file.read_text())
    assert content["multipliers"]
    for name, expected in content["multipliers"].items():
        steps = 7
        factor = learning_rate_factor(stated_schedule(content["description"], name), steps, len(expected))
        for epoch, value in enumerate(expected):
            for step in (0, steps - 1):  # constant inside an epoch
                assert factor(epoch * steps + step) == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_image_masks(mim_mask_cases_file):
    for case in json.loads(mim_mask_cases_file.read_text())["cases"]:
        size, unit, ratio = tuple(case["image_size"]), case["mask_patch_size"], case["mask_ratio"]
        mask = image_mask(torch.tensor([case["permutation"]]), size, case["patch_size"], unit, ratio)
        assert mask[0].tolist() == case["mask"]
        assert num_masked_units(size, unit, ratio) == case["masked_units"]


def test_word_masks(mlm_masking_cases_file):
    content = json.loads(mlm_masking_cases_file.read_text())
    mask_id = content["mask_id"]
    for case in content["cases"]:
        ids = torch.tensor([case["input_ids"]])
        # The recorded draws are one per candidate; ours are one per position.
        candidates = [i for i, token in enumerate(case["input_ids"]) if 0 < token < mask_id]
        draws, replacements = torch.zeros(ids.shape, dtype=torch.float64), torch.zeros_like(ids)
        remaining = list(case["replacement_draws"])
        for position, draw in zip(candidates, case["uniform_draws"], strict=True):
            draws[0, position] = draw
            if 0.8 <= draw / 0.15 < 0.9:
                replacements[0, position] = remaining.pop(0)
        assert not remaining
        masked = mask_words(ids, mask_id, uniform_draws=draws, random_ids=replacements)
        assert masked.input_ids[0].tolist() == case["masked_ids"] == case["caption_ids_after"]
        assert masked.labels[0].tolist() == case["labels"]
        assert ids[0].tolist() == case["input_ids"]  # ours leaves the caption alone


def clip_processor(text_length: int, image_size: tuple[int, int] = (384, 128)) -> ReIDProcessor:
    return ReIDProcessor.build_for_clip(
        clip_tokenizer(mask_token=True), image_size=image_size, max_text_length=text_length
    )


@pytest.mark.filterwarnings("ignore::reid_zoo.processing.TruncationWarning")
def test_tokenizer(tokenizer_cases_file):
    content = json.loads(tokenizer_cases_file.read_text())
    tokenizer, special = clip_tokenizer(mask_token=True), content["special"]
    assert len(tokenizer) == special["vocab_size"]
    assert (tokenizer.mask_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (
        special["mask"],
        special["start"],
        special["end"],
    )
    processors: dict[int, ReIDProcessor] = {}
    for case in content["cases"]:
        length = case["text_length"]
        processor = processors.setdefault(length, clip_processor(length))
        ids = processor.process_texts([case["caption"]])["input_ids"]
        assert ids[0].tolist() == case["input_ids"], case["caption"]
        assert special["pad"] == processor.padding_id


def test_preprocessing(preprocess_eval_file):
    tensors = load_file(preprocess_eval_file)
    images = sorted(name for name in tensors if name.startswith("image_"))
    assert len(tensors) == 2 * len(images) > 0
    for name in images:
        expected = tensors[name.replace("image_", "pixel_values_")]
        processor = clip_processor(77, tuple(expected.shape[1:]))
        assert_close(name, processor(images=[tensors[name].numpy()])["pixel_values"][0], expected)


def test_metrics(metrics_cases_file):
    for case in json.loads(metrics_cases_file.read_text())["cases"]:
        metrics = evaluate_retrieval(
            similarity=case["similarity"], query_person_ids=case["query_pids"], gallery_person_ids=case["gallery_pids"]
        )
        assert metrics.cmc(10).tolist() == pytest.approx(case["cmc_1_to_10"], rel=1e-5)
        assert metrics.mAP == pytest.approx(case["mAP"], rel=1e-5)
        assert metrics.mINP == pytest.approx(case["mINP"], rel=1e-5)
        assert set(case) == {"similarity", "query_pids", "gallery_pids", "cmc_1_to_10", "mAP", "mINP"}


def test_analyses(analysis_cases_file):
    content = json.loads(analysis_cases_file.read_text())
    assert set(content) == {"description", "silhouette", "avg_dist"}
    for case in content["silhouette"]:
        features, labels = torch.tensor(case["features"]), torch.tensor(case["labels"])
        for metric in ("euclidean", "cosine"):
            samples = silhouette_samples(features, labels, metric=metric)
            assert samples.tolist() == pytest.approx(case[f"samples_{metric}"], rel=1e-5, abs=1e-6)
            assert samples.mean().item() == pytest.approx(case[f"silhouette_{metric}"], rel=1e-5)
    for case in content["avg_dist"]:
        mask = torch.tensor(case["mask"])
        found = average_distance(mask, case["patch_size"])
        assert found == pytest.approx(case["avg_dist_geometric"], rel=1e-6)
        image, prediction = torch.tensor(case["image"]), torch.tensor(case["prediction"])
        found = average_distance(mask, case["patch_size"], image=image, prediction=prediction)
        assert found == pytest.approx(case["avg_dist_intensity"], rel=1e-5)
