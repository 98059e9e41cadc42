"""What every process of `test_multiple_processes.py` does: started by `accelerate launch`, writes what it found as JSON.

Before there is a process group every case is trained on the whole batch; afterwards, by
DistributedDataParallel, on a part of it in every process.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from joint_batch_training import train_tiny_model

from contract_cases import SENTENCES, build_processor, photos
from joint_batch_cases import JOINT_ARGUMENTS, JOINT_BATCH_CASES, build_joint_batch_case
from reid_zoo.distributed import (
    gather_batch,
    own_draws_on_every_process,
    process_index,
    same_draws_on_all_processes,
)
from reid_zoo.encoding import PersonEncoder
from reid_zoo.errors import ConfigurationError
from reid_zoo.models.joint_batch_norm import convert_batch_norms
from reid_zoo.training import ReIDTrainer, ReIDTrainingArguments, load_recipe
from reid_zoo.training.gradient_caching import cached_gradients
from reid_zoo.training.sharded_encoding import ShardedEncoder

STEPS = {"vfe_tps-history": 2}  # the second one uses what the first one remembered
IN_CHUNKS = ("cfine", "vfe_tps-ablations", "clip_reid")  # also with cached gradients
ROUNDING = 1e-9  # of the largest tensor
SPLITS = {"even": (3, 3), "uneven": (4, 2)}
CPU = torch.device("cpu")

Batch = dict[str, torch.Tensor]


@dataclass
class Step:
    """What one step gave: loss, terms and accuracies, gradients, and the state after the optimiser's step."""

    losses: Batch
    gradients: Batch
    state: Batch


def train(model: Any, batch: Batch, num_steps: int, accelerator: Accelerator | None = None) -> list[Step]:
    """Steps of gradient descent on one batch."""
    inner, steps = model.train(), []
    optimizer: Any = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    if accelerator is not None:
        model, optimizer = accelerator.prepare(model, optimizer)
    for _ in range(num_steps):
        optimizer.zero_grad()
        output = model(**batch)
        if accelerator is None:
            output.loss.backward()
        else:
            accelerator.backward(output.loss)
        losses = {"loss": output.loss, **output.loss_terms}
        losses |= {f"accuracy {name}": value for name, value in (output.accuracies or {}).items()}
        gradients = {name: p.grad.clone() for name, p in inner.named_parameters() if p.grad is not None}
        optimizer.step()
        state = {name: value.clone() for name, value in inner.state_dict().items()}
        steps.append(Step({name: value.detach() for name, value in losses.items()}, gradients, state))
    return steps


def worst(found: Batch, expected: Batch) -> tuple[float, str]:
    """Largest deviation of a tensor, relative to its largest value, and the tensor's name.

    A tensor that is nothing but rounding errors, such as the gradient of a bias in front of a batch norm, counts as 0.
    """
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    sizes = {name: float(value.abs().max()) for name, value in expected.items()}
    smallest = ROUNDING * max(sizes.values())
    return max(
        (float((found[name] - value).abs().max()) / max(sizes[name], smallest), name)
        for name, value in expected.items()
    )


def own_rows(batch: Batch, split: str) -> Batch:
    sizes = SPLITS[split]
    start = sum(sizes[: process_index()])
    rows = slice(start, start + sizes[process_index()])
    return {name: value if name in JOINT_ARGUMENTS else value[rows] for name, value in batch.items()}


def values_of_all(value: torch.Tensor) -> list[float]:
    return gather_batch(value.detach().reshape(1))[0].tolist()


def compare_with_one_process(built: dict[str, Any], expected: dict[str, list[Step]]) -> dict[str, Any]:
    """Deviations of every case, way to compute it and step."""
    # As transformers' Trainer does: not every method's forward uses every weight.
    accelerator = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    found: dict[str, Any] = {}
    for name, (model, batch) in built.items():
        for way in ("even", "uneven", *(["in chunks"] if name in IN_CHUNKS else [])):
            copied = copy.deepcopy(model)
            convert_batch_norms(copied)
            own = own_rows(batch, "even" if way == "in chunks" else way)
            with cached_gradients(copied, 2 if way == "in chunks" else 0):
                steps = train(copied, own, len(expected[name]), accelerator)
            found[f"{name}, {way}"] = [
                {part: worst(getattr(step, part), getattr(one, part)) for part in ("losses", "gradients", "state")}
                for step, one in zip(steps, expected[name], strict=True)
            ]
    return found


def losses_without_gathering(built: dict[str, Any]) -> list[float]:
    model, batch = built["dual_encoder"]
    model = copy.deepcopy(model).train()
    model.gather_across_processes = False
    return values_of_all(model(**own_rows(batch, "even")).loss)


def losses_of_draws(built: dict[str, Any]) -> dict[str, list[float]]:
    """Losses of all processes where samples are drawn from the joint batch, with generators in different states."""
    found = {}
    for name in ("vfe_tps", "vfe_tps-ablations", "mgcc-rank"):
        model, batch = built[name]
        model = copy.deepcopy(model).train()
        if name == "vfe_tps-ablations":
            del model.sampled_triplet_loss.sample
        torch.manual_seed(process_index())
        drawn = {key: value for key, value in own_rows(batch, "even").items() if key not in JOINT_ARGUMENTS}
        found[name] = values_of_all(model(**drawn).loss)
    return found


def draws() -> dict[str, Any]:
    """First numbers of every process inside of the two contexts, and behind them."""
    found = {}
    for name, context in (("same", same_draws_on_all_processes), ("own", own_draws_on_every_process)):
        torch.manual_seed(3)
        with context(CPU):
            found[name] = values_of_all(torch.rand(()))
        found[f"behind {name}"] = values_of_all(torch.rand(()))
    return found


def sharded_encoding(names: tuple[str, ...], built: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Deviation of shared-out encoding from that of one process, for five items and for one."""
    found: dict[str, dict[str, float]] = {}
    for case in (case for case in JOINT_BATCH_CASES if str(case) in names):
        model = copy.deepcopy(built[str(case)][0]).float().eval()
        processor = build_processor(case, model.config)
        alone, shared = PersonEncoder(model, processor), ShardedEncoder(model, processor, batch_size=2)
        found[str(case)] = {}
        for count in (5, 1):
            images: tuple[Any, ...] = (photos(count),)
            if model.config.uses_camera_ids:
                images += ([2, 0, 1, 1, 0][:count], [0, 1, 1, 0, 1][:count])
            calls = {"encode_images": images, "encode_image_features": images}
            if case.has_text:
                calls |= dict.fromkeys(("encode_texts", "encode_text_features"), (SENTENCES[:count],))
            for name, arguments in calls.items():
                results = [getattr(encoder, name)(*arguments) for encoder in (alone, shared)]
                found[str(case)][f"{name}, {count} items"] = deviation(*results)
    return found


def deviation(one: Any, two: Any) -> float:
    """Largest difference of two arrays, or of what two features are made of."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        return max(deviation(one[name], two[name]) for name in one)
    assert one.shape == two.shape
    return float((torch.as_tensor(one).double() - torch.as_tensor(two).double()).abs().max())


def models_that_do_not_gather(output: Path) -> list[str]:
    """What the trainer says of a model that knows nothing of joint batches, with and without gathering."""
    said = []
    for gathers in (True, False):
        arguments = ReIDTrainingArguments(
            output_dir=str(output), use_cpu=True, report_to="none", gather_across_processes=gathers
        )
        try:
            ReIDTrainer(torch.nn.Linear(2, 2), arguments, optimization=load_recipe("cfine-tiny").optimization)
            said.append("")
        except ConfigurationError as error:
            said.append(str(error))
    return said


def refusal() -> str:
    """What is said of batches that differ in more than their size."""
    try:
        gather_batch(torch.zeros(2, 3 + process_index()))
    except ConfigurationError as error:
        return str(error)
    return ""


def main(output: Path, people: Path) -> None:
    torch.set_num_threads(1)
    folder = output / f"models-{os.environ['RANK']}"
    built = {
        str(case): build_joint_batch_case(case, folder / f"{index}") for index, case in enumerate(JOINT_BATCH_CASES)
    }
    expected = {name: train(copy.deepcopy(model), batch, STEPS.get(name, 1)) for name, (model, batch) in built.items()}
    found = {
        "cases": compare_with_one_process(built, expected),
        "whole loss": float(expected["dual_encoder"][0].losses["loss"]),
        "losses without gathering": losses_without_gathering(built),
        "losses of draws": losses_of_draws(built),
        "draws": draws(),
        "refusal": refusal(),
        "sharded encoding": sharded_encoding(("mgcc", "clip_reid-sie-olp"), built),
        "models that do not gather": models_that_do_not_gather(output),
        "training": train_tiny_model(people, output / "trained", batch_size=3),
    }
    (output / f"process-{process_index()}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
