"""Every row of the papers' ablation tables is a model that builds, trains, and differs from the other rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, ViTConfig, ViTModel

from reid_zoo.models.ablation_document import ABLATION_TABLES, ablation_document
from reid_zoo.models.ablations import ABLATIONS, AblationRow, ablation_rows
from reid_zoo.models.registry import METHODS
from reid_zoo.training.optimization import build_optimizer
from reid_zoo.training.recipe import Recipe, load_recipe

torch.set_num_threads(1)

LABELS = torch.tensor([0, 1, 2, 0, 3, 1])
BATCH, CLASSES = len(LABELS), 4
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SIZES, "image_size": [32, 32], "patch_size": 4}  # 64 patches: every ratio of the curves is another count
LENGTH, VOCABULARY = 40, 60
CLIP_TEXT = {**SIZES, "vocab_size": VOCABULARY, "max_position_embeddings": LENGTH}


def pixel_values(height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(BATCH, 3, height, width, generator=torch.Generator().manual_seed(1))


def clip_sentences() -> Tensor:
    ids = torch.randint(1, VOCABULARY - 3, (BATCH, LENGTH), generator=torch.Generator().manual_seed(2))
    ids[:, 0] = VOCABULARY - 2
    for row, end in enumerate((5, 39, 27, 3, 33, 18)):
        ids[row, end], ids[row, end + 1 :] = VOCABULARY - 1, 0
    return ids


def bert_sentences() -> Tensor:
    ids = torch.randint(5, VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(2))
    for row, length in enumerate((30, 40, 12, 25, 40, 8)):
        ids[row, length:] = 0
    return ids


def pairs() -> dict[str, Tensor]:
    return {"pixel_values": pixel_values(), "input_ids": clip_sentences(), "person_labels": LABELS}


def photos() -> dict[str, Tensor]:
    return {
        "pixel_values": pixel_values(64, 32),
        "person_labels": LABELS,
        "camera_ids": torch.tensor([0, 1, 2, 1, 0, 2]),
    }


@dataclass(frozen=True)
class Smallest:
    """Sizes for this test, on top of a preset, a batch, and the towers that train."""

    preset: str
    fields: dict[str, Any]
    batch: Callable[[], dict[str, Tensor]]
    towers: tuple[str, ...] = ("vision_model", "text_model")


DUAL_ENCODER = {"vision_config": VISION, "text_config": CLIP_TEXT, "projection_dim": 16, "num_classes": CLASSES}
PERSON = {
    "text_config": {**SIZES, "max_position_embeddings": 20},
    "projection_dim": 16,
    "num_cameras": 3,
    "num_classes": CLASSES,
}
SMALLEST = {
    "cfine": Smallest(
        "tiny",
        {
            "vision_config": VISION,
            "text_config": CLIP_TEXT,
            "max_text_length": LENGTH,
            "gld_num_attention_heads": 2,
            "num_classes": CLASSES,
        },
        lambda: pairs() | {"input_ids": bert_sentences()},
    ),
    "vfe_tps": Smallest("tiny", {**DUAL_ENCODER, "cross_modal_num_attention_heads": 2, "mask_patch_size": 8}, pairs),
    "dual_encoder": Smallest("tiny", DUAL_ENCODER, pairs),
    "mgcc": Smallest("tiny", {"vision_config": VISION, "text_config": CLIP_TEXT}, pairs),
    "clip_reid": Smallest(  # patches as large as CLIP's, because the stride of overlapping ones is given in pixels
        "tiny",
        {"vision_config": {**SIZES, "patch_size": 16, "image_size": [64, 32]}, **PERSON},
        photos,
        ("vision_model",),
    ),
    "clip_reid rn50": Smallest(
        "tiny-rn50",
        {"vision_config": {"stem_width": 4, "image_size": [64, 32]}, **PERSON, "num_cameras": 1},
        photos,
        ("vision_model",),
    ),
}

ROWS = [row for row in ABLATIONS if row.method in METHODS]
TABLES = [
    table for table in ABLATION_TABLES if any((row.paper, row.table) == (table.paper, table.name) for row in ROWS)
]


def smallest(row: AblationRow) -> Smallest:
    return SMALLEST[f"{row.method} rn50" if row.config.get("backbone") == "rn50" else row.method]


def merged(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` over `fields`, sub-configurations field by field."""
    both = {**fields, **changes}
    for name in both:
        if isinstance(fields.get(name), dict) and isinstance(changes.get(name), dict):
            both[name] = {**fields[name], **changes[name]}
    return both


def recipes_of(row: AblationRow) -> list[Recipe]:
    """The row's recipes with its switches put in as a user would on the command line."""
    return [load_recipe(name, row.recipe_overrides()) for name in row.starts_from]


def build(row: AblationRow) -> Any:
    method, sizes = METHODS[row.method], smallest(row)
    torch.manual_seed(0)
    fields = merged(sizes.fields, dict(row.config))
    model = method.training_class(method.config_class.from_preset(sizes.preset, **fields)).train()
    with torch.no_grad():  # apart from their initialisation, where features are so alike that some terms are at rest
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@dataclass(frozen=True)
class Outcome:
    """One optimiser step of a row."""

    loss: float
    terms: tuple[str, ...]
    parameters: dict[str, torch.Size]
    trainable: frozenset[str]
    with_gradient: frozenset[str]
    changed: frozenset[str]


def take_step(row: AblationRow, model: Any) -> Outcome:
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    torch.manual_seed(3)  # masks and samples
    output = model(**smallest(row).batch())
    trainable = frozenset(name for name, value in model.named_parameters() if value.requires_grad)
    if trainable:
        output.loss.backward()
        recipe = recipes_of(row)[0]
        found = recipe.stage_one if getattr(model, "training_stage", 2) == 1 else recipe.optimization
        assert found is not None
        betas = (found.betas[0], found.betas[1])
        build_optimizer(model, found.optimizer, found.parameter_groups, betas, found.eps).step()
    return Outcome(
        loss=output.loss.item(),
        terms=tuple(output.loss_terms),
        parameters={name: value.shape for name, value in before.items()},
        trainable=trainable,
        with_gradient=frozenset(
            name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()
        ),
        changed=frozenset(name for name, value in model.named_parameters() if not torch.equal(value, before[name])),
    )


@cache
def outcome(index: int) -> Outcome:
    return take_step(ROWS[index], build(ROWS[index]))


def row_name(index: int) -> str:
    return str(ROWS[index])


@pytest.mark.parametrize("index", range(len(ROWS)), ids=row_name)
def test_a_row_trains(index):
    found, row = outcome(index), ROWS[index]
    assert torch.tensor(found.loss).isfinite()
    assert found.with_gradient <= found.changed <= found.trainable, (
        "all with a gradient take the step, and nothing else"
    )
    training = row.config.get("training")
    if training == "zero_shot":
        assert not found.trainable
    elif training == "linear_probe":
        assert {name.split(".")[1] for name in found.changed} == {"image_probe", "text_probe"}
    else:
        for tower in smallest(row).towers:
            assert any(tower in name for name in found.changed), tower


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.paper} {table.name}")
def test_no_row_of_a_table_ignores_its_switches(table):
    """With the same parameters the same seed gives the same weights: equal losses would mean an option without effect."""
    indices = [index for index, row in enumerate(ROWS) if (row.paper, row.table) == (table.paper, table.name)]
    for one, other in combinations(indices, 2):
        a, b = outcome(one), outcome(other)
        if (a.parameters, a.trainable, a.terms) == (b.parameters, b.trainable, b.terms):
            assert a.loss != b.loss, f"{row_name(one)} equals {row_name(other)}"
    in_all = set.intersection(*(set(outcome(index).parameters) for index in indices))
    for index in indices:
        found = outcome(index)
        unused = found.trainable - in_all - found.with_gradient
        assert not unused, f"{row_name(index)} has parameters that nothing uses: {unused}"


@pytest.mark.parametrize("row", ablation_rows(paper="clip_reid", table="M"), ids=lambda row: row.label)
def test_stage_one_of_clip_reid_learns_that_many_words(row):
    model = build(row)
    model.set_training_stage(1)
    found = take_step(row, model)
    assert found.terms == ("i2t", "t2i")
    assert found.changed == {"prompt_learner.context"}
    assert found.parameters["prompt_learner.context"][:2] == (CLASSES, row.config["num_context_tokens"])


def test_every_row_belongs_to_a_table_and_has_its_own_switches():
    assert len({(table.paper, table.name) for table in ABLATION_TABLES}) == len(ABLATION_TABLES)
    for table in ABLATION_TABLES:
        rows = ablation_rows(paper=table.paper, table=table.name)
        assert len(rows) >= 2
        assert len({row.label for row in rows}) == len(rows)
        assert len({(row.method, repr(row.config)) for row in rows}) == len(rows)
    assert sum(len(ablation_rows(paper=table.paper, table=table.name)) for table in ABLATION_TABLES) == len(ABLATIONS)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_is_reached_from_its_recipes(row):
    recipes = recipes_of(row)
    assert {recipe.dataset for recipe in recipes} == set(row.reported or (recipe.dataset for recipe in recipes))
    for recipe in recipes:
        assert recipe.method == row.method
        for field, value in row.config.items():
            if field in ("vision_config", "text_config"):
                assert getattr(recipe.model, field).items() >= value.items()
            else:
                assert recipe.model.config[field] == value
        for field, value in row.recipe.items():
            section, _, name = field.partition(".")
            assert getattr(getattr(recipe, section), name) == value


@pytest.mark.parametrize("label", ["0 Baseline", "1 +CLIP"])
def test_cfines_image_encoders_are_read_with_the_rows_switches(label, tmp_path):
    """The two rows differ in the pretrained tower, whose published configuration is not quite the authors'."""
    (row,) = (row for row in ablation_rows(paper="cfine", table="Table IV") if row.label == label)
    is_clip = label == "1 +CLIP"
    sizes = {**SIZES, "image_size": 32, "patch_size": 4}
    published = CLIPVisionModel(CLIPVisionConfig(**sizes)) if is_clip else ViTModel(ViTConfig(**sizes))
    published.save_pretrained(tmp_path)
    fields = {"num_classes": CLASSES, **row.config, "text_config": SIZES}
    config = METHODS["cfine"].training_class.from_towers(tmp_path, **fields).config.vision_config
    expected = {
        "patch_bias": not is_clip,
        "use_pre_layernorm": is_clip,
        "hidden_act": "quick_gelu" if is_clip else "gelu",
        "layer_norm_eps": 1e-5 if is_clip else 1e-6,
        "hidden_dropout_prob": 0.0 if is_clip else 0.1,
    }
    assert {name: getattr(config, name) for name in expected} == expected


def test_the_full_method_of_a_table_is_the_default_configuration():
    """Rows that spell out the whole method must not drift from what the configuration does by default."""
    for paper, table, label in (
        ("cfine", "Table IV", "9 CFine"),
        ("cfine", "Table V", "Ours"),
        ("cfine", "Table VI", "Ours"),
        ("vfe_tps", "Table 6", "TG-MIM, IS-GVFC"),
        ("mgcc", "Table 3", "S_I-T, S_P-W, S_P-T, S_I-W"),
        ("mgcc", "Table 4", "(0.3, 0.4)"),
        ("mgcc", "Table 6", "AF"),
        ("clip_reid", "Table 5", "ViT two stage"),
        ("clip_reid", "Table 6", "L_i2tce"),
        ("clip_reid", "Table 7", "neither"),
        ("clip_reid", "M", "M = 4"),
    ):
        (row,) = (row for row in ablation_rows(paper=paper, table=table) if row.label == label)
        config_class = METHODS[row.method].config_class
        assert config_class(**dict(row.config)).to_dict() == config_class().to_dict()


def test_reported_figures_are_percentages_that_add_up():
    """A slip in copying shows: ranks rise, and Rsum is their sum (0.02 for the papers' own rounding)."""
    for row in ABLATIONS:
        for figures in row.reported.values():
            ranks = [figures[name] for name in ("R1", "R5", "R10") if name in figures]
            assert ranks == sorted(ranks)
            assert all(0 < rank < 100 for rank in ranks)
            if "Rsum" in figures and len(ranks) == 3:
                assert figures["Rsum"] == pytest.approx(sum(ranks), abs=0.02), row


def test_reading_the_rows_loads_no_model():
    code = "import sys; import reid_zoo.models.ablations; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_document_is_up_to_date():
    written = (Path(__file__).parents[2] / "docs" / "ablations.md").read_text(encoding="utf-8")
    assert written == ablation_document(), "run python docs/write_ablations.py"


def test_the_document_of_one_paper_has_its_rows_only():
    document = ablation_document("mgcc")
    assert "| mean-max | `aggregation=mean_max` | 60.59 / 82.12 / 88.65 / 53.13 |" in document
    assert "cfr_aggregation" not in document
