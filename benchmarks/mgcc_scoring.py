"""MGCC's score of every caption with every image: `similarity` against a plain all-pairs implementation of the formulas.

    python benchmarks/mgcc_scoring.py [--captions 6148] [--images 3074] [--plain-captions 384] [--threads 1] [--json]

Token counts are the official ones for CUHK-PEDES (15 patches, 10 words, width 768), features are seeded noise of unit length.
The plain implementation takes blocks of 128 x 128 and writes each formula down as it is, without gradients; because it is
slow, it scores the first captions only. Each of the two runs in a process of its own on the same data. Printed: CPU and
wall-clock microseconds per pair, memory added on top of features, model and result, and the largest difference of the two.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reid_zoo.models.mgcc.configuration_mgcc import MGCCConfig
from reid_zoo.models.mgcc.late_interaction_mgcc import MultiGranularityFusion
from reid_zoo.models.mgcc.modeling_mgcc import MGCCModel
from reid_zoo.outputs import RetrievalFeatures

BLOCK = 128
TOLERANCE = 1e-5  # of the largest score: float32 sums of 768 products in another order
LOGIT_SCALE = 1 / 0.07


def build_features(
    num_captions: int, num_images: int, config: MGCCConfig
) -> tuple[RetrievalFeatures, RetrievalFeatures]:
    """Seeded noise of unit length: captions, then images, in blocks of 128, of each block global vectors, then tokens."""
    generator = torch.Generator().manual_seed(0)

    def side(count: int, num_tokens: int) -> RetrievalFeatures:
        vectors, tokens = torch.empty(count, config.hidden_size), torch.empty(count, num_tokens, config.hidden_size)
        for start in range(0, count, BLOCK):
            for made in (vectors[start : start + BLOCK], tokens[start : start + BLOCK]):
                made.copy_(functional.normalize(torch.randn(made.shape, generator=generator), dim=-1))
        return RetrievalFeatures(embeds=vectors, granularities={"global": vectors}, tokens=tokens)

    return side(num_captions, config.num_text_tokens), side(num_images, config.num_image_tokens)


def build_model(noise: float) -> MGCCModel:
    """A model with the official sizes of everything that scores, and small towers; the fusion's matrices with noise."""
    towers = {"vision_config": {"num_hidden_layers": 1}, "text_config": {"num_hidden_layers": 1, "vocab_size": 64}}
    model = MGCCModel(MGCCConfig(**towers)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.fusion.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
        model.fusion.logit_scale.fill_(LOGIT_SCALE).log_()
    return model


def plain_attention(values: Tensor, matrix: Tensor, temperature: float, dim: int) -> Tensor:
    """AF of the paper's Eqs. 5-8, with the release's matrix, over one axis."""
    values = values.movedim(dim, -1)
    return (torch.softmax(values / temperature, dim=-1) @ matrix * values).sum(dim=-1)


@torch.no_grad()
def plain_scores(
    fusion: MultiGranularityFusion, texts: RetrievalFeatures, images: RetrievalFeatures, temperature: float
) -> Tensor:
    """`(T, I)` scores, block by block, formula by formula (MGCC spec sections 4, 5 and 10)."""

    def block(t: Tensor, words: Tensor, g: Tensor, patches: Tensor) -> Tensor:
        it = g @ fusion.global_matrix @ t.T
        patch_word = torch.einsum("xpd,yqd->xpyq", patches @ fusion.local_matrix, words)
        image_level = plain_attention(patch_word, fusion.patch_matrix, temperature, 1)  # x y q
        text_level = plain_attention(patch_word, fusion.word_matrix, temperature, 3)  # x p y
        by_image = plain_attention(image_level, fusion.second_word_matrix, temperature, 2)
        by_text = plain_attention(text_level, fusion.second_patch_matrix, temperature, 1)
        patch_text = torch.einsum("xpd,yd->xyp", patches, t)
        image_word = torch.einsum("yqd,xd->xyq", words, g)
        pt = plain_attention(patch_text, fusion.patch_text_matrix, temperature, 2)
        iw = plain_attention(image_word, fusion.image_word_matrix, temperature, 2)
        return fusion.logit_scale.exp() * (it + (by_image + by_text) / 2 + pt + iw) / 4

    rows = []
    for start in range(0, len(texts.tokens), BLOCK):
        t, words = texts.embeds[start : start + BLOCK], texts.tokens[start : start + BLOCK]
        blocks = [
            block(t, words, images.embeds[column : column + BLOCK], images.tokens[column : column + BLOCK])
            for column in range(0, len(images.tokens), BLOCK)
        ]
        rows.append(torch.cat(blocks).T)
    return torch.cat(rows)


def reset_peak() -> float:
    """Start counting the peak anew where the system can (Linux); memory in use now, in MB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def peak_memory() -> float:
    """Largest resident set of this process since `reset_peak`, in MB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except OSError:
        divisor = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / divisor


def measure(options: argparse.Namespace) -> None:
    """What a child does: score, save the scores, print the figures."""
    torch.set_num_threads(options.threads)
    model = build_model(options.noise)
    texts, images = build_features(options.captions, options.images, model.config)
    if options.measure == "plain":
        kept = slice(0, options.plain_captions)
        texts = RetrievalFeatures(embeds=texts.embeds[kept].clone(), tokens=texts.tokens[kept].clone())

    def score(captions: slice, pictures: slice) -> Tensor:
        some = [
            RetrievalFeatures(
                embeds=side.embeds[part], granularities={"global": side.embeds[part]}, tokens=side.tokens[part]
            )
            for side, part in ((texts, captions), (images, pictures))
        ]
        if options.measure == "plain":
            return plain_scores(model.fusion, some[0], some[1], model.config.softmax_temperature)
        return model.similarity(some[0], some[1])

    score(slice(8), slice(8))  # libraries load their kernels on first use
    before = reset_peak()
    started = time.perf_counter(), time.process_time()
    scores = score(slice(None), slice(None))
    seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    added = peak_memory() - before - scores.numel() * scores.element_size() / 2**20
    np.save(options.output, scores.numpy())
    figures = {
        "pairs": scores.numel(),
        "cpu_seconds": seconds[1],
        "wall_seconds": seconds[0],
        "cpu_us_per_pair": 1e6 * seconds[1] / scores.numel(),
        "wall_us_per_pair": 1e6 * seconds[0] / scores.numel(),
        "result_mb": scores.numel() * scores.element_size() / 2**20,
        "added_mb": added,
    }
    print(json.dumps(figures))


def run_child(name: str, arguments: list[str], folder: Path) -> tuple[dict[str, float], np.ndarray]:
    """Figures and scores of one implementation, measured in a process of its own."""
    output = folder / f"{name}.npy"
    command = [sys.executable, __file__, *arguments, "--measure", name, "--output", str(output)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(answer.splitlines()[-1]), np.load(output, mmap_mode="r")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=6148)
    parser.add_argument("--images", type=int, default=3074)
    parser.add_argument("--plain-captions", type=int, default=384, help="captions that the plain implementation scores")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--noise", type=float, default=0.02, help="on the fusion's matrices; 0: identities")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--measure", choices=["zoo", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options)
        return
    arguments = [argument for argument in sys.argv[1:] if argument != "--json"]
    with tempfile.TemporaryDirectory() as folder:
        zoo, ours = run_child("zoo", arguments, Path(folder))
        plain, theirs = run_child("plain", arguments, Path(folder))
        difference = float(np.abs(ours[: len(theirs)] - theirs).max() / np.abs(theirs).max())
        mean = float(ours.mean(dtype=np.float64))
    ratio = plain["cpu_us_per_pair"] / zoo["cpu_us_per_pair"]
    result: dict[str, Any] = {
        **{name: getattr(options, name) for name in ("captions", "images", "threads", "noise")},
        **{"zoo": zoo, "plain": plain, "cpu_ratio": ratio},
        **{"compared_pairs": plain["pairs"], "relative_difference": difference, "mean_score": mean},
    }
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{options.captions} captions x {options.images} images, {options.threads} thread(s)")
        for name, figures in (("reid_zoo", zoo), ("plain", plain)):
            print(
                f"{name}: {figures['pairs']} pairs, {figures['cpu_us_per_pair']:.2f} us of CPU and "
                f"{figures['wall_us_per_pair']:.2f} us of wall clock per pair ({figures['cpu_seconds']:.1f} s and "
                f"{figures['wall_seconds']:.1f} s), {figures['added_mb']:.0f} MB added beside a result of "
                f"{figures['result_mb']:.0f} MB"
            )
        print(f"ratio of CPU time: {ratio:.2f}")
        print(f"largest difference on {plain['pairs']} pairs: {difference:.1e} of the largest score; mean {mean:.6f}")
    if not difference <= TOLERANCE:
        sys.exit(f"the two implementations differ by more than {TOLERANCE} of the largest score")


if __name__ == "__main__":
    main()
