"""One training step (forward, backward, optimiser) of every method: the zoo against a plain reference of the same maths.

    python benchmarks/training_step.py [--methods irra mgcc] [--preset small|base] [--batch-size 8] [--steps 2] [--json]
    python benchmarks/training_step.py --preset base --batch-size 64 --steps 20 --device cuda --dtype bfloat16

The reference stands in `plain_training_steps.py`. Both sides have the same weights and the same batch of seeded noise, with
sentences as long as those of CUHK-PEDES. Each runs in a process of its own, one after the other: first, without dropout
and in float32, for the loss and the norm of the gradient, which must be equal; then the steps that are timed, with whatever
dropout the configuration has. Printed: images per second (median step), peak of memory during the steps, the part of it
that is not weights, gradients and moments of Adam, and their ratios; on a GPU the share of its peak arithmetic that the
counted floating-point operations of the forward and backward pass reach (MFU).

The zoo's side is what `ReIDTrainer` does: its layers on the processor, and its optimiser. `small`: ViT-S/16 and a text
tower of 6 layers, width 384, everything else (pixels, text length, vocabulary, identities) as published. `base`: as
published.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from mgcc_scoring import peak_memory, reset_peak
from plain_training_steps import PLAIN_LOSSES
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reid_zoo.data.masking import mask_words, random_image_mask
from reid_zoo.models.onednn_linear import onednn_is_faster, use_onednn
from reid_zoo.models.registry import get_method
from reid_zoo.training.optimization import ParameterGroup, build_optimizer

TOLERANCE = 1e-4  # of the loss, and of the norm of its gradient
# The features of noise by a new ResNet are almost alike, and the hardest triplets are differences of them: in float32 the
# gradient of the plain reference itself is 2 % away from that in float64 (its norm 1e-4).
TOLERANCES = {"clip_reid_rn50": 1e-3}
LEARNING_RATE = 1e-5
MEAN_LENGTH, LENGTH_DEVIATION, SHORTEST = 30, 8, 12  # tokens of a sentence with start and end

_VISION = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6}
_TEXT = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6}
_SMALL: dict[str, Any] = {"vision_config": _VISION, "text_config": _TEXT}
_SMALL_JOINT = _SMALL | {"projection_dim": 384}
# Name → model type, and the fields of its configuration for each preset.
METHODS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "cfine": ("cfine", {"base": {}, "small": _SMALL | {"gld_num_attention_heads": 6}}),
    "irra": ("irra", {"base": {}, "small": _SMALL_JOINT}),
    "vfe_tps": ("vfe_tps", {"base": {}, "small": _SMALL_JOINT}),
    "mgcc": ("mgcc", {"base": {}, "small": _SMALL}),
    "clip_reid": ("clip_reid", {"base": {}, "small": _SMALL_JOINT}),
    "clip_reid_rn50": (
        "clip_reid",
        {
            "base": {"backbone": "rn50"},
            "small": {"backbone": "rn50", "vision_config": {"stem_width": 32}, "text_config": _TEXT},
        },
    ),
    "clip_reid_sie_olp": (
        "clip_reid",
        {
            "base": {"vision_config": {"patch_stride": 12}, "sie_camera": True, "num_cameras": 6},
            "small": _SMALL_JOINT
            | {"vision_config": _VISION | {"patch_stride": 12}, "sie_camera": True, "num_cameras": 6},
        },
    ),
    "dual_encoder": ("dual_encoder", {"base": {}, "small": _SMALL_JOINT}),
}
# Dense peaks of one device in floating-point operations per second, from NVIDIA's data sheets (SXM).
PEAK_FLOPS = {
    "H100": {"bfloat16": 989e12, "float32": 67e12},
    "H200": {"bfloat16": 989e12, "float32": 67e12},
}


def build_model(name: str, preset: str) -> Any:
    """The seeded training model of a method."""
    model_type, presets = METHODS[name]
    method = get_method(model_type)
    torch.manual_seed(0)
    return method.training_class(method.config_class(**presets[preset])).train()


def build_batch(model: Any, size: int) -> dict[str, Tensor]:
    """Seeded noise with the shapes of a batch: two samples of every person."""
    generator, config = torch.Generator().manual_seed(1), model.config
    vision = config.vision_config
    batch = {
        "pixel_values": torch.randn(size, 3, *vision.image_size, generator=generator),
        "person_labels": torch.arange(size) // 2,
    }
    if config.model_type == "clip_reid":
        if config.sie_camera:
            batch["camera_ids"] = torch.arange(size) % config.num_cameras
        return batch
    is_bert = config.model_type == "cfine"
    start, end = (101, 102) if is_bert else (config.text_config.vocab_size - 2, config.text_config.vocab_size - 1)
    length = config.max_text_length
    words = torch.randint(1000, 20000, (size, length), generator=generator)
    ends = (MEAN_LENGTH + LENGTH_DEVIATION * torch.randn(size, generator=generator)).long().clamp(SHORTEST, length) - 1
    positions = torch.arange(length)
    words[:, 0] = start
    words[torch.arange(size), ends] = end
    batch["input_ids"] = words.masked_fill(positions > ends[:, None], 0)
    if is_bert:
        batch["attention_mask"] = (positions <= ends[:, None]).long()
    torch.manual_seed(2)
    if config.model_type == "irra":
        masked = mask_words(batch["input_ids"], config.mask_token_id, probability=config.mask_probability)
        batch |= {"masked_input_ids": masked.input_ids, "masked_labels": masked.labels}
    if config.model_type == "vfe_tps":
        sizes = tuple(vision.image_size), vision.patch_size, config.mask_unit_size, config.mask_ratio
        batch["patch_mask"] = random_image_mask(size, *sizes)
        batch["gvfc_indices"] = torch.randperm(size)[: config.gvfc_num_samples]
    return batch


def switch_off_dropout(model: nn.Module) -> Callable[[], None]:
    """Set every dropout to 0; returns what puts it back."""
    changed = []
    for module in model.modules():
        for name in ("p", "dropout"):
            if isinstance(getattr(module, name, None), float):
                changed.append((module, name, getattr(module, name)))
                setattr(module, name, 0.0)

    def put_back() -> None:
        for module, name, value in changed:
            setattr(module, name, value)

    return put_back


def linear_flops(rows: torch.Size, columns: torch.Size, *others: Any, **more: Any) -> int:
    """Operations of a matrix product by oneDNN, which torch's counter does not know."""
    return 2 * rows.numel() * columns[0]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What a child does: check, step, report."""
    torch.set_num_threads(options.threads)
    name, device = options.methods[0], torch.device(options.device)
    on_gpu = device.type == "cuda"
    before = 0.0 if on_gpu else reset_peak()
    model = build_model(name, options.preset).to(device)
    batch = {key: value.to(device) for key, value in build_batch(model, options.batch_size).items()}
    if "masked_input_ids" in batch:  # the release masks its captions in place: all losses see the masked ones
        batch["input_ids"] = batch["masked_input_ids"]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if options.measure == "plain":
        plain = PLAIN_LOSSES[METHODS[name][0]]
        optimizer: torch.optim.Optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)

        def loss_of_batch() -> Tensor:
            return plain(model, batch)
    else:
        if not on_gpu and onednn_is_faster() and not options.mkl:
            use_onednn(model)
        groups = (ParameterGroup(name="all", learning_rate=LEARNING_RATE),)
        optimizer = build_optimizer(model, "adam", groups, (0.9, 0.999), 1e-8)

        def loss_of_batch() -> Tensor:
            return model(**batch).loss

    torch.backends.cudnn.allow_tf32 = False
    put_back = switch_off_dropout(model)
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_linear: linear_flops}) as counter:
        loss = loss_of_batch()
        loss.backward()
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    figures: dict[str, Any] = {"loss": loss.item(), "gradient_norm": norm.item(), "flops": counter.get_total_flops()}
    del loss, norm
    put_back()
    autocast = torch.autocast(device.type, torch.bfloat16) if options.dtype == "bfloat16" else nullcontext()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = loss_of_batch()
        loss.backward()
        optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()

    for _ in range(5 if on_gpu else 1):
        step()
    optimizer.zero_grad(set_to_none=True)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        reset_peak()
    # On the processor its time counts, so that what else runs on the machine does not (with one thread).
    clock = time.process_time if not on_gpu and options.threads == 1 else time.perf_counter
    seconds = []
    for _ in range(options.steps):
        started = clock()
        step()
        seconds.append(clock() - started)
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_memory() - before
    kept = [*model.parameters(), *model.buffers(), *(p.grad for p in parameters if p.grad is not None)]
    kept += [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    fixed = sum(tensor.numel() * tensor.element_size() for tensor in kept) / 2**20
    figures |= {
        "seconds": statistics.median(seconds),
        "images_per_second": options.batch_size / statistics.median(seconds),
        "peak_mb": peak,
        "activations_mb": peak - fixed,
    }
    if on_gpu:
        figures["device"] = torch.cuda.get_device_name(device)
    return figures


def run_child(name: str, side: str, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one side of a method, measured in a process of its own."""
    command = [sys.executable, __file__, "--measure", side, "--methods", name]
    for option in ("preset", "batch_size", "device", "dtype", "steps", "threads"):
        command += [f"--{option.replace('_', '-')}", str(getattr(options, option))]
    command += ["--mkl"] if options.mkl else []
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(answer.splitlines()[-1])


def peak_flops(options: argparse.Namespace, device: str | None) -> float | None:
    """Peak arithmetic of the device: as given, or from the table."""
    if options.peak_flops is not None:
        return options.peak_flops
    return next((peaks[options.dtype] for key, peaks in PEAK_FLOPS.items() if device and key in device), None)


def compare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both sides of a method, one after the other."""
    zoo, plain = (run_child(name, side, options) for side in ("zoo", "plain"))
    peak = peak_flops(options, zoo.get("device"))
    if peak is not None:
        for figures in (zoo, plain):
            figures["mfu"] = figures["flops"] / figures["seconds"] / peak
    return {
        "method": name,
        "zoo": zoo,
        "plain": plain,
        "speed_ratio": zoo["images_per_second"] / plain["images_per_second"],
        "peak_ratio": zoo["peak_mb"] / plain["peak_mb"],
        "activations_ratio": zoo["activations_mb"] / plain["activations_mb"],
        "loss_difference": abs(zoo["loss"] - plain["loss"]) / abs(plain["loss"]),
        "gradient_difference": abs(zoo["gradient_norm"] - plain["gradient_norm"]) / plain["gradient_norm"],
    }


def line(result: dict[str, Any]) -> str:
    """One row of the printed table."""
    zoo, plain = result["zoo"], result["plain"]
    cells = [
        result["method"],
        f"{plain['images_per_second']:.2f}",
        f"{zoo['images_per_second']:.2f}",
        f"{result['speed_ratio']:.2f}",
        f"{plain['peak_mb']:.0f}",
        f"{zoo['peak_mb']:.0f}",
        f"{result['peak_ratio']:.2f}",
        f"{plain['activations_mb']:.0f}",
        f"{zoo['activations_mb']:.0f}",
        f"{result['activations_ratio']:.2f}",
        f"{plain['flops'] / 1e12:.2f}",
        f"{zoo['flops'] / 1e12:.2f}",
    ]
    if "mfu" in zoo:
        cells += [f"{100 * plain['mfu']:.1f} %", f"{100 * zoo['mfu']:.1f} %"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=[*METHODS], default=[*METHODS], metavar="METHOD")
    parser.add_argument("--preset", choices=["small", "base"], default="small")
    parser.add_argument("--batch-size", type=int, default=8, help="an even number, at least 4")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16: autocast")
    parser.add_argument("--steps", type=int, default=2, help="timed steps; the median counts")
    parser.add_argument("--threads", type=int, default=1, help="1: processor time is measured, else wall clock")
    parser.add_argument(
        "--peak-flops", type=float, help="of the device, per second; by default known for H100 and H200"
    )
    parser.add_argument(
        "--mkl", action="store_true", help="leave the zoo's matrix products to MKL, as elsewhere than on AMD"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--measure", choices=["zoo", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.batch_size < 4 or options.batch_size % 2:
        parser.error(f"--batch-size is {options.batch_size}, but must be even and at least 4")
    if options.measure:
        print(json.dumps(measure(options)))
        return
    if not options.json:
        titles = ["method", "plain images/s", "zoo", "ratio", "plain peak MB", "zoo", "ratio"]
        titles += ["plain beyond weights and optimiser MB", "zoo", "ratio", "plain TFLOP", "zoo"]
        if options.device.startswith("cuda"):
            titles += ["plain MFU", "zoo"]
        print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|", flush=True)
    results = []
    for name in options.methods:
        results.append(compare(name, options))
        if not options.json:
            print(line(results[-1]), flush=True)
    if options.json:
        settings = {
            key: getattr(options, key) for key in ("preset", "batch_size", "device", "dtype", "steps", "threads", "mkl")
        }
        print(json.dumps(settings | {"results": results}))
    for result in results:
        for quantity in ("loss", "gradient"):
            tolerance = TOLERANCES.get(result["method"], TOLERANCE)
            if not result[f"{quantity}_difference"] <= tolerance:
                sys.exit(
                    f"{result['method']}: the {quantity} differs by {result[f'{quantity}_difference']:.1e} of the "
                    f"reference's, more than {tolerance}"
                )


if __name__ == "__main__":
    main()
