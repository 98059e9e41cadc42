"""MGCC reproduces the authors' code: features, selections, every similarity, loss, gradient and metric; the side files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))
from clip_dual_encoder_case import official_gradients
from golden_case import KEPT, GoldenCase, assert_close, expects_cases, find_cases

from reid_zoo.conversion import convert_official_checkpoint
from reid_zoo.data.caption_cleaning import clean_evaluation_caption
from reid_zoo.evaluation import evaluate_retrieval
from reid_zoo.models.conversion_report import ConversionReport
from reid_zoo.models.mgcc.configuration_mgcc import AGGREGATIONS, MGCCConfig
from reid_zoo.models.mgcc.conversion_mgcc import convert_state_dict, infer_config
from reid_zoo.models.mgcc.modeling_mgcc import MGCCForTraining
from reid_zoo.outputs import RetrievalFeatures
from reid_zoo.processor_building import build_processor

# Prose; and the case's own tolerance, which `GoldenCase` reads.
PROSE = {"case", "method", "notes", "precision", "tolerance"}
# Checked against the case's tensors or the model in `assert_facts`, or used where the text says so.
CHECKED = {
    "bot_token_id",
    "clip_projection_dim",
    "eot_token_id",
    "eval_chunk",
    "grad_keys",
    "joint_dim",
    "max_rank",
    "num_patches",
    "pad_token_id",
    "train_batch",
}
TOWER_FIELDS = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "mlp": "intermediate_size",
}
INPUTS = {"attention_mask", "image_pids", "input_ids", "pixel_values", "text_pids"}
INPUTS |= {"train_image_index", "train_labels", "train_text_index", "rank_image_triplets", "rank_text_triplets"}
VARIANTS: dict[str, dict] = {"": {}, "aligned.": {"text_word_alignment": "aligned"}}
SIDE_FILES = ("captions", "manifest_full", "preprocess")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    root = metafunc.config.getoption("--golden-root")
    if "case_folder" in metafunc.fixturenames:
        folders = find_cases(root, "mgcc")
        metafunc.parametrize("case_folder", folders, ids=[folder.name for folder in folders])
    for fixture, pattern in (
        ("captions_file", "captions*.json"),
        ("notes_file", "manifest_full*_notes.json"),
        ("preprocess_file", "preprocess*.safetensors"),
    ):
        if fixture in metafunc.fixturenames:
            files = sorted((root / "mgcc").glob(pattern))
            metafunc.parametrize(fixture, files, ids=[file.stem for file in files])


def test_there_are_cases_and_every_file_is_known(request):
    root = request.config.getoption("--golden-root")
    if not expects_cases(root, "mgcc"):
        return
    cases = find_cases(root, "mgcc")
    assert cases or root != KEPT  # another root may hold side files only
    of_the_generator = find_cases(root, "mgcc", method="ogor")  # tested in test_ogor_golden.py
    for path in (root / "mgcc").iterdir():
        assert path in cases or path in of_the_generator or path.name.startswith(SIDE_FILES), path
    for manifest in (root / "mgcc").glob("manifest_full*.json"):  # manifest and notes come in pairs
        partner = manifest.stem.removesuffix("_notes") + ("" if manifest.stem.endswith("_notes") else "_notes")
        assert manifest.with_stem(partner).is_file(), manifest


def overrides_of(config: dict) -> dict:
    """Settings of a case → arguments of the conversion. Every entry of the case must find its place."""
    known = MGCCConfig().to_dict()
    overrides: dict = {"vision_config": {}, "text_config": {}}
    for name, value in config.items():
        tower, _, field = name.partition("_")
        if name in ("hidden_act", "layer_norm_eps"):
            overrides["vision_config"][name] = overrides["text_config"][name] = value
        elif name == "vocab_size":
            overrides["text_config"][name] = value
        elif name == "context_length":
            overrides["max_text_length"] = overrides["text_config"]["max_position_embeddings"] = value
        elif name == "patch_size":
            overrides["vision_config"][name] = value
        elif tower in ("vision", "text") and field in TOWER_FIELDS:
            overrides[f"{tower}_config"][TOWER_FIELDS[field]] = value
        elif tower in ("vision", "text") and field == "heads":
            overrides[f"{tower}_num_attention_heads"] = value
        elif name == "image_size" or name in known:
            overrides[name] = value
        else:
            assert name in PROSE | CHECKED, f"no place for {name}"
    if not config["token_selection"]:  # then a case may give the counts that the ratios would lead to
        for name in ("num_selected_patches", "num_selected_words"):
            overrides.pop(name, None)
    return overrides


def assert_facts(case: GoldenCase, config: MGCCConfig) -> None:
    """What a case says about itself beside settings is true of its tensors and of the model."""
    facts, inputs = case.config, case.inputs
    assert set(inputs) <= INPUTS, set(inputs) - INPUTS
    assert config.num_patches == facts["num_patches"]
    counts = {
        "num_selected_patches": (config.num_image_tokens, round(config.rho_image * config.num_patches)),
        "num_selected_words": (config.num_text_tokens, round(config.rho_text * config.max_words)),
    }
    for name, (compared, by_ratio) in counts.items():
        given = facts.get(name, compared)
        assert given == compared or (given in (None, by_ratio) and not config.token_selection)
    assert config.hidden_size == facts["joint_dim"]
    ids, ends = inputs["input_ids"], (inputs["input_ids"] == facts["eot_token_id"]).int().argmax(dim=1)
    if "eval.text_eot_position" in case.expected:
        case.compare("eval.text_eot_position", ends)
    positions = torch.arange(ids.shape[1])
    assert (ids[:, 0] == facts["bot_token_id"]).all()
    assert (ids[positions > ends[:, None]] == facts["pad_token_id"]).all()
    assert torch.equal(inputs["attention_mask"].bool(), positions <= ends[:, None])
    assert len(inputs["train_image_index"]) == len(inputs["train_text_index"]) == facts["train_batch"]
    for key, value in case.checkpoint.items():
        if key.removeprefix("module.").startswith("ImageExtract.clip_model.") and "_projection.weight" in key:
            assert value.shape[0] == facts["clip_projection_dim"]
    assert {f"grad.{key}" for key in facts["grad_keys"]} == {key for key in case.expected if key.startswith("grad.")}


def mean_of(similarities: dict[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    """Mean of some similarities under the cases' name for it, if all are enabled."""
    if not all(name in similarities for name in names):
        return {}
    return {"_".join(names): torch.stack([similarities[name] for name in names]).mean(dim=0)}


def released_word_buffer(scores: Tensor, end: int, slots: int) -> tuple[Tensor, Tensor]:
    """The release's buffer of a sentence's scores, sorted only if there are too many, and its slots in descending order."""
    words = scores[1:end]
    if len(words) > slots:
        words = words.sort(descending=True).values[:slots]
    buffer = functional.pad(words, (0, slots - len(words)))
    return buffer, buffer.argsort(descending=True, stable=True)


def found_in_evaluation(case: GoldenCase, model: MGCCForTraining) -> dict[str, Tensor]:
    """All `eval.*` tensors of a case."""
    config, inputs, chunk = model.config, case.inputs, case.config["eval_chunk"]
    pixels, ids = inputs["pixel_values"], inputs["input_ids"]
    images, texts = model.get_image_features(pixels), model.get_text_features(ids)
    image_states = model.mgcc.vision_model(pixels, output_token_scores=True)
    text_states = model.mgcc.text_model(ids, output_token_scores=True)
    ends = inputs["attention_mask"].sum(dim=1) - 1
    found = {
        "image_last_hidden_state": image_states.unnormalised_state,
        "image_attention_scores": image_states.token_scores[:, 1:],
        "image_global": images.embeds,
        "image_patches": images.tokens,
        "image_selected_indices": images.token_indices - 1,
        "text_eot_position": ends,
        "text_last_hidden_state": text_states.last_hidden_state,
        "text_attention_row": text_states.token_scores,
        "text_global": functional.normalize(texts.granularities["global"], dim=1),
        "text_words": texts.tokens,
        "text_selected_positions": texts.token_indices,
    }
    if config.token_selection:
        assert torch.equal(images.token_scores[:, 1:], found["image_attention_scores"])
        assert torch.equal(texts.token_scores, found["text_attention_row"])
        buffers = [
            released_word_buffer(row, int(end), config.max_words)
            for row, end in zip(texts.token_scores, ends, strict=True)
        ]
        found["text_attention_weights"] = torch.stack([buffer for buffer, _ in buffers])
        slots = torch.stack([order for _, order in buffers])[:, : config.num_text_tokens]
        raw = case.expected.get("eval.text_selected_indices_raw")
        if raw is not None:  # the order among empty slots is arbitrary
            slots = torch.where(texts.token_indices > 0, slots, raw)
            found["text_selected_indices_raw"] = slots
    sides = model.mgcc.interaction_features(images), model.mgcc.interaction_features(texts)
    similarities = model.mgcc.fusion(*sides)
    similarities |= mean_of(similarities, ("it", "pw")) | mean_of(similarities, ("pt", "iw"))
    found |= {f"sim_{name}": value for name, value in similarities.items()}

    # The released evaluator goes through batches of `eval_chunk`; ours streams, in blocks of any size.
    def rows(features: RetrievalFeatures, start: int) -> RetrievalFeatures:
        part = slice(start, start + chunk)
        return RetrievalFeatures(
            embeds=features.embeds[part],
            granularities={"global": features.granularities["global"][part]},
            tokens=features.tokens[part],
            token_mask=features.token_mask[part],
        )

    starts = [range(0, len(side), chunk) for side in (ids, pixels)]
    blocks = [[model.similarity(rows(texts, t), rows(images, i)) for i in starts[1]] for t in starts[0]]
    found["sim_t2i"] = torch.cat([torch.cat(row, dim=1) for row in blocks])
    for block_elements in (None, 1, 1000):
        streamed = model.similarity(texts, images, block_elements=block_elements)
        # The same products in matrices of other shapes, so summed in another order; scores are differences of large sums.
        assert_close(f"streamed in blocks of {block_elements}", streamed, found["sim_t2i"])
    metrics = evaluate_retrieval(
        similarity=found["sim_t2i"],
        query_person_ids=inputs["text_pids"],
        gallery_person_ids=inputs["image_pids"],
    )
    found["cmc"] = torch.as_tensor(metrics.cmc(min(case.config["max_rank"], len(pixels)))) / 100  # ours are per cent
    found["mAP"], found["mINP"] = torch.tensor(metrics.mAP / 100), torch.tensor(metrics.mINP / 100)
    return found


def training_batch(case: GoldenCase) -> dict[str, Tensor]:
    """Arguments of `forward`: the training pairs, with the triplets that the release drew if there are any."""
    inputs = case.inputs
    batch = {
        "pixel_values": inputs["pixel_values"][inputs["train_image_index"]],
        "input_ids": inputs["input_ids"][inputs["train_text_index"]],
        "person_labels": inputs["train_labels"],
    }
    return batch | {key.removeprefix("rank_"): value for key, value in inputs.items() if key.startswith("rank_")}


def found_in_training(case: GoldenCase, model: MGCCForTraining) -> dict[str, Tensor]:
    """All `train.*` tensors of a case; the total has its gradient."""
    batch = training_batch(case)
    output = model(**batch)
    sides = [model.mgcc.interaction_features(side) for side in (output.image_features, output.text_features)]
    similarities = model.mgcc.fusion(*sides)
    loss = model.contrastive_loss
    found = {"total_loss": output.loss, "sim_i2t": similarities["fused"], "align_loss": loss(similarities["fused"])}
    found["loss_i2t"], found["loss_t2i"] = loss.directions(similarities["fused"])
    means = mean_of(similarities, ("pt", "iw"))
    if "it" in similarities:
        found["align_loss_it_only"] = loss(similarities["it"])
    if means:
        found["align_loss_pt_iw"] = loss(means["pt_iw"])
    if "image_triplets" in batch:
        found["rank_loss"] = model.ranking_loss(*(side.coarse for side in sides), *list(batch.values())[2:])
    if model.config.use_id_loss:
        found["id_loss"] = output.loss_terms["id"]
    if model.config.loss_type == "infonce":
        ours = {"image_to_text": "loss_i2t", "text_to_image": "loss_t2i", "align": "align_loss"}
        assert torch.equal(output.similarities["fused"], found["sim_i2t"])
    else:
        ours = {"rank": "rank_loss"}
    for name, theirs in ours.items():
        assert torch.equal(output.loss_terms[name], found[theirs])
    return found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_model_case(case_folder, attention):
    case = GoldenCase(case_folder)
    overrides = overrides_of(case.config)

    def build(**changes) -> MGCCForTraining:
        model = convert_official_checkpoint("mgcc", case.checkpoint, **overrides | changes)
        model.set_attn_implementation(attention)
        return model

    assert_facts(case, build().config)
    for prefix, changes in VARIANTS.items():
        wanted = {key for key in case.expected if key.startswith((f"{prefix}eval.", f"{prefix}train."))}
        if not wanted:
            continue
        model = build(**changes)
        with torch.no_grad():
            found = {f"eval.{name}": value for name, value in found_in_evaluation(case, model).items()}
            for aggregation in AGGREGATIONS[1:]:
                if f"{prefix}eval.sim_pw_{aggregation}" in wanted:
                    other = build(**changes, aggregation=aggregation)
                    found[f"eval.sim_pw_{aggregation}"] = found_in_evaluation(case, other)["sim_pw"]
            found |= {f"train.{name}": value for name, value in found_in_training(case, model.train()).items()}
        for key in sorted(wanted):
            case.compare(key, found[key.removeprefix(prefix)])

    model = build().train()
    model(**training_batch(case)).loss.backward()
    gradients = official_gradients(convert_state_dict, "mgcc", case.checkpoint, model, config=model.config)
    for key in case.config["grad_keys"]:
        case.compare_gradient(f"grad.{key}", gradients)
    case.assert_everything_compared()


def convert_shapes(shapes: dict[str, list[int]]) -> tuple[MGCCConfig, MGCCForTraining, ConversionReport]:
    """Convert a checkpoint of which only the shapes are known; every tensor goes into the model or is in the report."""
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        report = ConversionReport("mgcc")
        config = infer_config(state)
        converted = convert_state_dict(state, report, config=config)
        model = MGCCForTraining(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in converted.items()} == wanted
    kept = sum(value.numel() for key, value in state.items() if key not in report.left_out)
    assert kept == sum(parameter.numel() for parameter in model.parameters())
    return config, model, report


def test_full_size_manifest_is_consumed(notes_file):
    """Every key of the full-size checkpoint goes into the model with its shape, or the report says why it does not."""
    notes = json.loads(notes_file.read_text())
    shapes = json.loads(notes_file.with_stem(notes_file.stem.removesuffix("_notes")).read_text())
    assert len(shapes) == notes["total_keys"]
    config, model, report = convert_shapes(shapes)
    assert config == MGCCConfig(num_selected_patches=15, num_selected_words=10) == MGCCConfig()

    aliases, unused = notes["aliases"], notes["unused"]
    constants = {key for key in shapes if key.endswith(notes["optional_suffix"].split()[0])}
    copies = {key for key in shapes if key.startswith(aliases["prefix"])}
    never_used = {key for key in shapes if key.startswith(tuple(unused["prefixes"]))}
    assert (len(copies), len(never_used)) == (aliases["count"], unused["count"])
    assert set(report.left_out) == constants | copies | never_used
    for key in copies - constants:
        original = key.replace(aliases["prefix"], aliases["same_tensors_as_prefix"])
        assert report.left_out[key] == f"the same tensor as {original}"
    for key in never_used - constants:
        assert "used" in report.left_out[key]
    assert all(report.left_out[key] == "a constant buffer" for key in constants)

    def millions(keys: set[str]) -> float:
        return round(sum(torch.Size(shapes[key]).numel() for key in keys) / 1e6, 1)

    used = millions(set(shapes) - constants - copies - never_used)
    assert used == round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1)
    assert (used, millions(never_used - constants)) == (152.2, 63.8)  # the spec's figures
    assert set(notes) == {
        *("aliases", "configuration", "id_loss_file", "optional_suffix", "shape_variant_keys", "shape_variants"),
        *("total_keys", "unused", "vit_b16"),
    }


def test_variants_of_the_full_size_manifest(notes_file):
    notes = json.loads(notes_file.read_text())
    shapes = json.loads(notes_file.with_stem(notes_file.stem.removesuffix("_notes")).read_text())
    sized = notes["shape_variant_keys"]
    for name, counts in notes["shape_variants"].items():
        changed = {key: [counts[kind]] * 2 for kind in ("patches", "words") for key in sized[f"{kind} x {kind}"]}
        assert set(changed) <= set(shapes)
        config, _, _ = convert_shapes(shapes | changed)
        assert (config.num_image_tokens, config.num_text_tokens) == (counts["patches"], counts["words"])
        assert config.token_selection == (name != "no token selection")

    without_constants = {key: shape for key, shape in shapes.items() if not key.endswith("position_ids")}
    assert convert_shapes(without_constants)[0] == MGCCConfig()

    classes = 11_003
    classifier = {
        f"id_loss.{key}": [classes if size == "num_classes" else size for size in shape]
        for key, shape in notes["id_loss_file"].items()
    }
    config, _, report = convert_shapes(shapes | classifier)
    assert (config.use_id_loss, config.num_classes) == (True, classes)
    assert not any(key.startswith("id_loss") for key in report.left_out)

    other_backbone = {key: shape for key, shape in notes["vit_b16"].items() if key != "note"}
    aliases = {
        key.replace(notes["aliases"]["same_tensors_as_prefix"], notes["aliases"]["prefix"]): shape
        for key, shape in other_backbone.items()
    }
    positions = {key: [1, 197] for key in shapes if key.endswith("position_ids") and "text" not in key.lower()}
    config, _, _ = convert_shapes(shapes | other_backbone | aliases | positions)
    assert (config.vision_config.patch_size, config.num_patches) == (16, 196)


def test_captions(captions_file):
    for case in json.loads(captions_file.read_text()):
        assert clean_evaluation_caption(case["raw"]) == case["cleaned"], case["raw"]
        assert set(case) == {"raw", "cleaned"}


def test_preprocessing(preprocess_file):
    tensors = load_file(preprocess_file)
    expected = tensors.pop("pixel_values_every_8th")
    (image,) = tensors.values()
    size = tuple(8 * length for length in expected.shape[1:])
    processor = build_processor(MGCCConfig(vision_config={"image_size": list(size)}))
    pixels = processor(images=[image.numpy()])["pixel_values"][0]
    assert pixels.shape == (3, *size)
    assert_close("pixel_values_every_8th", pixels[:, ::8, ::8], expected)
