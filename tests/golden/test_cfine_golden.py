"""CFine reproduces the authors' code: features, selections, similarities, every loss term and every gradient."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from cfine_unit_case import CHECKS, ENTRIES, FILES, CFineUnitCase, check_group, groups_of
from golden_case import KEPT, GoldenCase, expects_cases, find_cases

from reid_zoo.conversion import convert_official_checkpoint
from reid_zoo.models.cfine.configuration_cfine import CFineConfig
from reid_zoo.models.cfine.conversion_cfine import convert_state_dict, infer_config
from reid_zoo.models.cfine.modeling_cfine import CFineForTraining
from reid_zoo.models.conversion_report import ConversionReport

# Facts about the case that are no settings of ours: derived sizes, things the tokenizer or the data fix, and prose.
NOT_SETTINGS = {
    "batch_size",
    "cls_token_id",
    "feature_size",
    "float32_noise",
    "hidden_size",
    "image_encoder",
    "image_text_token_count_k",
    "image_token_count_k",
    "notes",
    "num_granularities",
    "patch_size",
    "sep_token_id",
    "text_token_count_k",
}
RENAMED = {"bn_eps": "bottleneck_eps", "bn_momentum": "bottleneck_momentum"}


def overrides_of(config: dict) -> dict:
    """Settings of a case → arguments of the conversion. Every entry of the case must find its place."""
    overrides: dict = {
        "vision_config": {},
        "text_config": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    }
    overrides["vision_config"]["hidden_dropout_prob"] = 0.0
    for name, value in config.items():
        if name in NOT_SETTINGS:
            continue
        name = RENAMED.get(name, name)
        if name in ("image_size", "vision_num_attention_heads", "text_num_attention_heads"):
            overrides[name] = value
        elif name.startswith("vision_"):
            overrides["vision_config"][name.removeprefix("vision_")] = value
        elif name.startswith("text_") and name != "text_token_ratio":
            overrides["text_config"][name.removeprefix("text_")] = value
        elif name in ("vocab_size", "max_position_embeddings", "type_vocab_size", "pad_token_id"):
            overrides["text_config"][name] = value
        else:
            overrides[name] = value
    return overrides


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    root = metafunc.config.getoption("--golden-root")
    if "case_folder" in metafunc.fixturenames:
        folders = find_cases(root, "cfine")
        metafunc.parametrize("case_folder", folders, ids=[folder.name for folder in folders])
    if "manifest" in metafunc.fixturenames:
        files = sorted((root / "cfine").glob("manifest_full*.json"))
        metafunc.parametrize("manifest", files, ids=[file.stem for file in files])
    if "unit_folder" in metafunc.fixturenames:
        pairs = [(folder, group) for folder in find_unit_cases(root) for group in CHECKS]
        pairs = [(folder, group) for folder, group in pairs if group in groups_of(CFineUnitCase(folder))]
        names = [f"{folder.name}-{group}" for folder, group in pairs]
        metafunc.parametrize(("unit_folder", "group"), pairs, ids=names)


def find_unit_cases(root: Path) -> list[Path]:
    return sorted(file.parent for file in (root / "cfine").glob("*/cases.json"))


def test_there_are_cases_and_every_file_is_known(request):
    root = request.config.getoption("--golden-root")
    if not expects_cases(root, "cfine"):
        return
    cases, units = find_cases(root, "cfine"), find_unit_cases(root)
    assert (cases and units) or root != KEPT  # another root may hold manifests only
    for path in (root / "cfine").iterdir():
        assert path in [*cases, *units] or (path.name.startswith("manifest_full") and path.suffix == ".json"), path
    for folder in units:
        assert {path.name for path in folder.iterdir()} == FILES, folder
        unknown = groups_of(CFineUnitCase(folder)) - set(CHECKS)
        assert not unknown, f"{folder}: nothing reads {sorted(unknown)}"


@pytest.mark.filterwarnings("ignore::reid_zoo.processing.TruncationWarning")
def test_unit_case(unit_folder, group, tmp_path):
    check_group(CFineUnitCase(unit_folder), group, tmp_path)


KEPT_UNIT = KEPT / "cfine" / "unit"
CHANGED_ENTRIES = {
    "triplet": ("random", "margin"),
    "evaluation": ("text_to_image", 1),
    "posembed": (),
    "pixels": ("size", 0),
    "lr_schedule": ("rows", 30, 2),
    "data": ("samples", "val", 1, 2),
    "tokenizer": ("input_ids", 1, 3),
}


# A triplet's inputs need not matter one by one: most scores belong to no triplet.
CHANGED_TENSORS = [key for key in CFineUnitCase(KEPT_UNIT).tensors if not key.endswith((".pids", ".similarity"))]


@pytest.mark.parametrize("key", [*CHANGED_TENSORS, "eval.similarity"])
def test_a_changed_tensor_of_a_unit_case_is_refused(key, tmp_path):
    unit = CFineUnitCase(KEPT_UNIT)
    value = unit.tensors[key].flatten()
    value[value.argmax()] += 7
    with pytest.raises((AssertionError, IndexError)):  # an identity without a class is an index error
        check_group(unit, key.partition(".")[0], tmp_path)


@pytest.mark.filterwarnings("ignore::reid_zoo.processing.TruncationWarning")
@pytest.mark.parametrize(("name", "way"), CHANGED_ENTRIES.items(), ids=list(CHANGED_ENTRIES))
def test_a_changed_entry_of_a_unit_case_is_refused(name, way, tmp_path):
    unit = CFineUnitCase(KEPT_UNIT)
    place, last = unit.entries, name
    for step in way:
        place, last = place[last], step
    if way:
        place[last] += 1
    else:
        place[last]["more"] = 1
    with pytest.raises(AssertionError):
        check_group(unit, ENTRIES.get(name, name), tmp_path)


def test_a_tensor_of_a_unit_case_that_no_check_uses_is_refused(tmp_path):
    unit = CFineUnitCase(KEPT_UNIT)
    unit.tensors["cm.cmpm_paper"] = unit.tensors["cm.cmpm"]
    with pytest.raises(AssertionError, match=r"not compared: \['cm\.cmpm_paper'\]"):
        check_group(unit, "cm", tmp_path)
    unit.tensors["spline.source"] = unit.tensors["posembed.source"]
    assert groups_of(unit) - set(CHECKS) == {"spline"}


def official_gradients(checkpoint: dict, parameters: dict, tie_layers: bool) -> dict:
    """Gradients of our parameters under the official keys.

    Conversion only moves numbers around, so converting a checkpoint of running numbers tells where each one went.
    """
    shapes = {key.removeprefix("module."): value.shape for key, value in checkpoint.items()}
    numbered, count = {}, 0
    for name, shape in shapes.items():
        numbered[name] = torch.arange(count, count + shape.numel()).reshape(shape)
        count += shape.numel()
    flat = torch.zeros(count)
    for name, numbers in convert_state_dict(numbered, ConversionReport("cfine"), tie_layers=tie_layers).items():
        if name in parameters and parameters[name].grad is not None:
            flat[numbers.flatten()] = parameters[name].grad.flatten()
    return {name: flat[numbers.flatten()].reshape(numbers.shape) for name, numbers in numbered.items()}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_model_case(case_folder, attention):
    case = GoldenCase(case_folder)
    model = convert_official_checkpoint("cfine", case.checkpoint, **overrides_of(case.config))
    model.set_attn_implementation(attention)
    config = model.config
    assert config.num_image_tokens_per_group == case.config["image_token_count_k"]
    assert config.num_text_tokens_per_group == case.config["text_token_count_k"]
    sentence = {name: case.inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids")}

    with torch.no_grad():
        images = model.get_image_features(case.inputs["pixel_values"])
        texts = model.get_text_features(**sentence)
        for modality, features in (("image", images), ("text", texts)):
            case.compare(f"eval.{modality}_tokens", features.tokens)
            case.compare(f"eval.{modality}_scores", features.token_scores)
            case.compare(f"eval.{modality}_indices", features.token_indices)
            for name, vector in features.granularities.items():
                case.compare(f"eval.{modality}_embeds_{name}", vector)
        # The cases hold image × text, the contract is text × image.
        case.compare("eval.similarity", model.similarity(texts, images).T)
        config.similarity = "sum"
        as_sum = model.get_text_features(**sentence), model.get_image_features(case.inputs["pixel_values"])
        case.compare("eval.similarity_sum", model.similarity(*as_sum).T)
        config.similarity = "concat"

    model.train()
    output = model(case.inputs["pixel_values"], person_labels=case.inputs["pids"], **sentence)
    for modality, features in (("image", output.image_features), ("text", output.text_features)):
        for name, vector in features.granularities.items():
            case.compare(f"train.{modality}_embeds_{name}", vector)
        bottleneck = getattr(model.cfine, f"{modality}_bottleneck")
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            case.compare(f"train.bottleneck_{modality}.{name}", getattr(bottleneck, name))
    for key, name in {
        "sim_image_word": "image_word",
        "sim_patch_sentence": "patch_sentence",
        "sim_cfr": "cfr",
        "sim_fcd_patch": "fcd_patch",
        "sim_fcd_word": "fcd_word",
        "sim_fcd": "fcd",
        "sim_total": "total",
    }.items():
        case.compare(f"train.{key}", output.similarities[name])
    case.compare("train.fcd_word_indices", output.correspondences["word_indices"])
    case.compare("train.fcd_patch_indices", output.correspondences["patch_indices"])
    for name, value in output.loss_terms.items():
        case.compare(f"loss.{name}", value)
    case.compare("loss.total", output.loss)
    total = output.similarities["total"]
    case.compare("triplet.image_anchor", model.triplet_loss.mine(total, case.inputs["pids"]))
    case.compare("triplet.text_anchor", model.triplet_loss.mine(total.T, case.inputs["pids"]))

    output.loss.backward()
    gradients = official_gradients(case.checkpoint, dict(model.named_parameters()), config.gld_tie_layers)
    for key in [key for key in case.expected if key.startswith("grad.")]:
        case.compare_gradient(key, gradients)
    case.assert_everything_compared()


def test_full_size_manifest_is_consumed(manifest):
    """Every key of the full-size checkpoint goes into the model or is named in the report, with its shape."""
    shapes = json.loads(manifest.read_text())
    with torch.device("meta"):
        state = {key.removeprefix("module."): torch.empty(shape) for key, shape in shapes.items()}
        report = ConversionReport("cfine")
        config = infer_config(state)
        converted = convert_state_dict(state, report)
        model = CFineForTraining(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in converted.items()} == wanted
    assert all("pooler" in key for key in report.left_out)
    without_classifier = sum(value.numel() for name, value in model.named_parameters() if "cmpc" not in name)
    if "imagenet" not in manifest.stem:
        pooler = 768 * 768 + 768  # the official figure counts BERT's unused pooler
        assert without_classifier + pooler == pytest.approx(204.74e6, abs=0.01e6)
        assert config == CFineConfig()
