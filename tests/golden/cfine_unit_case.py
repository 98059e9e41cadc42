"""A unit case of CFine: pieces of the method in `tensors.safetensors` and `cases.json`, compared group by group.

A group is the tensors whose names begin with `<group>.` and the entries of `cases.json` about them. Its check has to use
every one of them: a tensor or an entry that it does not ask for is a failure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from golden_case import assert_close
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertTokenizer

from reid_zoo import CFineConfig, CFineModel, ReIDProcessor
from reid_zoo.data import load_text_person_benchmark
from reid_zoo.evaluation import evaluate_retrieval
from reid_zoo.losses import CMPCLoss, CMPMLoss, CrossModalTripletLoss, DiversityLoss
from reid_zoo.models.encoders.position_grid import resample_position_grid, square_grid
from reid_zoo.training.optimization import LearningRateSchedule, learning_rate_factor

FILES = {"tensors.safetensors", "cases.json"}


class CFineUnitCase:
    """Files of one unit case; remembers which tensors and entries a check asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tensors: dict[str, Tensor] = load_file(folder / "tensors.safetensors")
        self.entries: dict[str, Any] = json.loads((folder / "cases.json").read_text())
        self.used: set[str] = set()

    def tensor(self, key: str) -> Tensor:
        self.used.add(key)
        return self.tensors[key]

    def names(self, pattern: str) -> list[str]:
        """What the group in brackets stands for in the names of tensors of that form."""
        return sorted({found[1] for key in self.tensors if (found := re.fullmatch(pattern, key))})

    def entry(self, name: str, fields: set[str]) -> dict[str, Any]:
        """An entry of `cases.json`, which has to have these fields; notes are prose."""
        self.used.add(name)
        content: dict[str, Any] = self.entries[name]
        assert set(content) - {"notes"} == fields, f"{self.folder}: {name} has {sorted(content)}"
        return content

    def compare(self, key: str, actual: Tensor) -> None:
        assert_close(key, actual, self.tensor(key))


def check_triplet(unit: CFineUnitCase) -> None:
    situations = unit.names(r"triplet\.(\w+)\.\w+")
    margins = unit.entry("triplet", set(situations))
    unit.used.add("triplet_notes")
    assert situations
    for name in situations:
        assert set(margins[name]) == {"margin"}
        key = f"triplet.{name}"
        pids = unit.tensor(f"{key}.pids")
        similarity = unit.tensor(f"{key}.similarity").clone().requires_grad_()
        loss = CrossModalTripletLoss(margin=margins[name]["margin"])
        value = loss(similarity, pids)
        value.backward()
        # a sum of a few float32 hinges, each a small difference
        torch.testing.assert_close(value, unit.tensor(f"{key}.loss"), rtol=2e-5, atol=1e-6)
        torch.testing.assert_close(similarity.grad, unit.tensor(f"{key}.grad"), rtol=2e-5, atol=1e-6)
        unit.compare(f"{key}.image_anchor", loss.mine(similarity, pids))
        unit.compare(f"{key}.text_anchor", loss.mine(similarity.T, pids))


def check_cm(unit: CFineUnitCase) -> None:
    arguments = [unit.tensor(f"cm.{name}") for name in ("image", "text", "pids")]
    unit.compare("cm.cmpm", CMPMLoss()(*arguments))
    weight = unit.tensor("cm.W")
    classifier = CMPCLoss(*weight.shape)
    classifier.weight.data = weight.clone()
    unit.compare("cm.cmpc", classifier(*arguments))


def check_div(unit: CFineUnitCase) -> None:
    names = unit.names(r"div\.(\w+)_input")
    assert names
    for name in names:
        unit.compare(f"div.{name}", DiversityLoss()(unit.tensor(f"div.{name}_input")))


def check_eval(unit: CFineUnitCase) -> None:
    """Cosine of the concatenated granularities; Rank-k over all queries in both directions."""
    model = CFineModel(CFineConfig.from_preset("tiny"))
    embeds = {}
    for side in ("image", "text"):
        bank = unit.tensor(f"eval.{side}_bank")
        embeds[side] = model._embed(dict(zip(model.config.granularities, bank, strict=True)))
    unit.compare("eval.similarity", model.similarity(embeds["text"], embeds["image"]).T)
    entry = unit.entry("evaluation", {"k", "image_to_text", "text_to_image"})
    for direction, scores in (
        ("image_to_text", unit.tensor("eval.similarity")),
        ("text_to_image", unit.tensor("eval.similarity").T),
    ):
        query, _, gallery = direction.split("_")
        metrics = evaluate_retrieval(
            similarity=scores,
            query_person_ids=unit.tensor(f"eval.{query}_pids"),
            gallery_person_ids=unit.tensor(f"eval.{gallery}_pids"),
            denominator="all",
        )
        # shares of small counts, which the released code divides in float32
        torch.testing.assert_close([metrics.rank(k) for k in entry["k"]], entry[direction], rtol=1e-6, atol=0)


def check_posembed(unit: CFineUnitCase) -> None:
    unit.entry("posembed", set())
    source = unit.tensor("posembed.source")
    sizes = unit.names(r"posembed\.to_(\d+x\d+)")
    assert sizes
    for size in sizes:
        rows, columns = (int(length) for length in size.split("x"))
        resampled = [resample_position_grid(table, square_grid(len(table)), (rows, columns)) for table in source]
        unit.compare(f"posembed.to_{size}", torch.stack(resampled))


def check_pixels(unit: CFineUnitCase) -> None:
    size = unit.entry("pixels", {"size"})["size"]
    photo = Image.fromarray(unit.tensor("pixels.uint8_hwc").numpy())
    interpolations = unit.names(r"pixels\.(bicubic|bilinear)")
    assert interpolations
    for interpolation in interpolations:
        processor = ReIDProcessor.build(None, image_size=size, interpolation=interpolation)
        pixels = processor(images=photo)["pixel_values"]
        assert pixels.dtype == torch.float32
        unit.compare(f"pixels.{interpolation}", pixels[0])


def check_tokenizer(unit: CFineUnitCase) -> None:
    entry = unit.entry("tokenizer", {"vocab", "do_lower_case", "max_length", "texts", "input_ids", "attention_mask"})
    vocabulary = {word: index for index, word in enumerate(entry["vocab"])}
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=entry["do_lower_case"])
    processor = ReIDProcessor.build(tokenizer, image_size=(8, 8), max_text_length=entry["max_length"])
    assert entry["texts"]
    for text, ids, mask in zip(entry["texts"], entry["input_ids"], entry["attention_mask"], strict=True):
        found = processor.process_texts([text])
        assert found["input_ids"][0].tolist() == ids, text
        assert found["attention_mask"][0].tolist() == mask, text


def cfine_schedule(table: dict[str, Any]) -> LearningRateSchedule:
    """The schedule that a table of learning rates states beside its rows."""
    return LearningRateSchedule(
        kind="multistep",
        warmup_epochs=table["warmup_epochs"],
        warmup_factor=table["warmup_factor"],
        milestones=tuple(table["milestones"]),
        gamma=table["gamma"],
    )


def check_lr_schedule(unit: CFineUnitCase) -> None:
    fields = {"columns", "rows", "base_lrs", "milestones", "gamma", "warmup_factor", "warmup_epochs"}
    table = unit.entry("lr_schedule", fields)
    assert table["columns"] == ["epoch (1-based)", "new-module lr", "backbone lr"]
    steps = 3
    factor = learning_rate_factor(cfine_schedule(table), steps, len(table["rows"]))
    assert [row[0] for row in table["rows"]] == list(range(1, len(table["rows"]) + 1))
    for epoch, *rates in table["rows"]:
        for step in ((epoch - 1) * steps, epoch * steps - 1):  # constant inside an epoch
            found = [base * factor(step) for base in table["base_lrs"]]
            torch.testing.assert_close(found, rates, rtol=1e-9, atol=0)


def check_data(unit: CFineUnitCase, root: Path) -> None:
    """The released order of samples, and labels, from an annotation file written to `root`."""
    entry = unit.entry("data", {"raw", "samples"})
    folder = root / "CUHK-PEDES"
    (folder / "imgs").mkdir(parents=True)
    (folder / "reid_raw.json").write_text(json.dumps(entry["raw"]))
    samples = dict(entry["samples"])
    unique = samples.pop("test_unique", None)
    assert set(samples) == {record["split"] for record in entry["raw"]}
    for split, expected in samples.items():
        dataset = load_text_person_benchmark("cuhk-pedes", root, split, check_images=False, order="cfine")
        found, first = [], []
        for record in dataset:
            path = record.image_path.relative_to(folder / "imgs").as_posix()
            for caption in record.captions:
                assert isinstance(record.person_id, int)
                first.append(int(path not in {row[0] for row in found}))
                found.append([path, caption, record.person_id - 1])
        assert found == expected, split
        if split == "test" and unique is not None:
            assert first == unique
        labels = dataset.person_labels()
        if split == "train" and set(labels) == set(range(1, len(labels) + 1)):  # else the release leaves gaps
            assert [labels[label + 1] for _, _, label in expected] == [label for _, _, label in expected]


CHECKS: dict[str, Callable[..., None]] = {
    "triplet": check_triplet,
    "cm": check_cm,
    "div": check_div,
    "eval": check_eval,
    "posembed": check_posembed,
    "pixels": check_pixels,
    "tokenizer": check_tokenizer,
    "lr_schedule": check_lr_schedule,
    "data": check_data,
}
ENTRIES = {"triplet_notes": "triplet", "evaluation": "eval"}  # the others are named as their group


def groups_of(unit: CFineUnitCase) -> set[str]:
    """The groups that a case has tensors or entries of."""
    return {key.partition(".")[0] for key in unit.tensors} | {ENTRIES.get(name, name) for name in unit.entries}


def check_group(unit: CFineUnitCase, group: str, root: Path) -> None:
    """Run one group's check; every tensor and entry of the group has to be used. `root` is an empty folder."""
    arguments = (root,) if group == "data" else ()
    CHECKS[group](unit, *arguments)
    wanted = {key for key in unit.tensors if key.partition(".")[0] == group}
    wanted |= {name for name in unit.entries if ENTRIES.get(name, name) == group}
    left = sorted(wanted - unit.used)
    assert not left, f"{unit.folder}: not compared: {left}"
