"""Rank metrics and re-ranking against a plain reference of the released way, in one run on the same data.

    python benchmarks/evaluation.py [--sizes cuhk-pedes icfg-pedes market-1501 msmt17 re-ranking] [--repeats 3] [--json]

The released way: the whole matrix of scores is sorted with its indices, labels are looked up in the order found, and
precisions are cumulated over all places (of the whole matrix in torch for text-to-image; in a Python loop over the queries
in NumPy, with removal of junk, for image-to-image). For re-ranking: dense matrices over all pairs of items.

Data: noise for text-to-image, noisy identity centres for image-to-image, seed 0; the figures to be expected are at the
top of the file and compared. Every measurement runs in a process of its own with one thread; scores (features, for
re-ranking) exist before the clock starts. Time is CPU time, median of the repeats; memory is the peak of the process
minus what it held before the call. Where a reference would take minutes or more memory than most have, it is run on the
first queries only and scaled by their share, which the output says; `--full-reference` runs it whole.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FIGURES = ("R1", "R5", "R10", "mAP", "mINP")


@dataclass(frozen=True)
class Size:
    """One data set.

    Attributes:
        queries: Number of queries.
        gallery: Number of gallery items.
        identities: Number of identities.
        cameras: Number of cameras; 0 for text-to-image.
        sample: Queries that the reference gets.
        expected: R1, R5, R10, mAP, mINP as fractions.
        tolerance: Of the comparison with them.
    """

    queries: int
    gallery: int
    identities: int
    cameras: int
    sample: int
    expected: tuple[float, ...]
    tolerance: float = 1e-6


SIZES = {
    "cuhk-pedes": Size(6148, 3074, 1000, 0, 6148, (0.000487964, 0.003741054, 0.008945999, 0.00324146, 0.00147821)),
    "icfg-pedes": Size(19848, 19848, 1000, 0, 2000, (0.001108424, 0.005844418, 0.010479645, 0.00149367, 0.00105382)),
    "market-1501": Size(3368, 15913, 750, 6, 3368, (0.8934085, 0.9934679, 0.9973278, 0.454769, 0.0315408)),
    "msmt17": Size(11659, 82161, 3060, 15, 500, (0.8369500, 0.9738400, 0.9896218, 0.312708, 0.0070699)),
    # R1 and mAP after re-ranking, of the released code with float16 inside.
    "re-ranking": Size(3368, 15913, 750, 6, 3368, (0.973575, 0.944882), 2e-4),
}


@dataclass
class Data:
    """Features of unit length, identities, cameras."""

    queries: np.ndarray
    gallery: np.ndarray
    ids: dict[str, np.ndarray]


def make_data(size: Size) -> Data:
    """The recipe; its draws are in this order."""
    random = np.random.default_rng(0)

    def normal(rows: int) -> np.ndarray:
        return random.standard_normal((rows, 512), dtype=np.float32)

    def labels(number: int) -> np.ndarray:
        return random.permutation(np.arange(number) % size.identities)

    ids: dict[str, np.ndarray] = {}
    if size.cameras == 0:
        queries, gallery = normal(size.queries), normal(size.gallery)
        ids["query_person_ids"], ids["gallery_person_ids"] = labels(size.queries), labels(size.gallery)
    else:
        centres = normal(size.identities)
        ids["query_person_ids"], ids["gallery_person_ids"] = labels(size.queries), labels(size.gallery)
        ids["query_camera_ids"] = random.integers(0, size.cameras, size.queries)
        ids["gallery_camera_ids"] = random.integers(0, size.cameras, size.gallery)
        queries = centres[ids["query_person_ids"]] + np.float32(2.5) * normal(size.queries)
        gallery = centres[ids["gallery_person_ids"]] + np.float32(2.5) * normal(size.gallery)
    for features in (queries, gallery):
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    return Data(queries, gallery, ids)


def make_scores(size: Size, data: Data) -> np.ndarray:
    """Cosines, or minus the distance 2 - 2 cos."""
    scores = data.queries @ data.gallery.T
    if size.cameras:
        scores *= -2
        scores += 2
        np.negative(scores, out=scores)
    return scores


def rank_text_to_image(scores: np.ndarray, ids: dict[str, np.ndarray]) -> list[float]:
    """The released way of text-to-image retrieval."""
    import torch

    query_labels = torch.from_numpy(ids["query_person_ids"])
    gallery_labels = torch.from_numpy(ids["gallery_person_ids"])
    order = torch.argsort(torch.from_numpy(scores), dim=1, descending=True)
    matches = gallery_labels[order] == query_labels[:, None]
    hits = matches.cumsum(1)
    found = hits[:, :10].clamp(max=1).float().mean(0)
    total = matches.sum(1)
    precisions = torch.stack([hits[:, place] / (place + 1.0) for place in range(scores.shape[1])], 1) * matches
    last = [row.nonzero()[-1] for row in matches]
    penalties = torch.cat([hits[query, place] / (place + 1.0) for query, place in enumerate(last)])
    return [
        *(float(found[k - 1]) for k in (1, 5, 10)),
        float((precisions.sum(1) / total).mean()),
        float(penalties.mean()),
    ]


def rank_image_to_image(scores: np.ndarray, ids: dict[str, np.ndarray]) -> list[float]:
    """The released way of image-to-image retrieval."""
    order = np.argsort(-scores, axis=1)
    matches = (ids["gallery_person_ids"][order] == ids["query_person_ids"][:, None]).astype(np.int32)
    curves, precisions, penalties = [], [], []
    for query, row in enumerate(order):
        same_person = ids["gallery_person_ids"][row] == ids["query_person_ids"][query]
        same_camera = ids["gallery_camera_ids"][row] == ids["query_camera_ids"][query]
        matched = matches[query][~(same_person & same_camera)]
        if not matched.any():
            continue
        hits = matched.cumsum()
        curves.append(np.minimum(hits[:50], 1))
        last = np.flatnonzero(matched)[-1]
        penalties.append(hits[last] / (last + 1.0))
        precisions.append((hits / np.arange(1.0, len(hits) + 1) * matched).sum() / matched.sum())
    found = np.mean(curves, axis=0)
    return [found[0], found[4], found[9], float(np.mean(precisions)), float(np.mean(penalties))]


def rerank_densely(data: Data, k1: int = 20, k2: int = 6, lambda_value: float = 0.3) -> np.ndarray:
    """The released way of k-reciprocal re-ranking."""
    features = np.concatenate([data.queries, data.gallery])
    number, num_queries = len(features), len(data.queries)
    norms = np.square(features).sum(1)
    original = norms[:, None] + norms - 2 * (features @ features.T)
    original = (original / original.max(axis=0)).T
    order = np.argsort(original, axis=1)
    encoding = np.zeros_like(original)

    def reciprocal(item: int, k: int) -> np.ndarray:
        forward = order[item, : k + 1]
        return forward[np.where(order[forward, : k + 1] == item)[0]]

    for item in range(number):
        own = reciprocal(item, k1)
        members = own
        for candidate in own:
            added = reciprocal(candidate, round(k1 / 2))
            if len(np.intersect1d(added, own)) > 2 / 3 * len(added):
                members = np.append(members, added)
        members = np.unique(members)
        weights = np.exp(-original[item, members])
        encoding[item, members] = weights / weights.sum()
    original = original[:num_queries]
    encoding = np.stack([encoding[order[item, :k2]].mean(axis=0) for item in range(number)])
    holders = [np.flatnonzero(encoding[:, column]) for column in range(number)]
    result = np.empty_like(original)
    for query in range(num_queries):
        overlap = np.zeros(number, dtype=np.float32)
        for column in np.flatnonzero(encoding[query]):
            overlap[holders[column]] += np.minimum(encoding[query, column], encoding[holders[column], column])
        result[query] = 1 - overlap / (2 - overlap)
    result = (1 - lambda_value) * result + lambda_value * original
    return result[:, num_queries:]


def task(name: str, who: str, num_queries: int) -> tuple[Callable[[], Any], Callable[[Any], list[float]]]:
    """What is measured, and how figures are read off its result."""
    from reid_zoo.evaluation.metrics import RetrievalMetrics, evaluate_retrieval
    from reid_zoo.evaluation.reranking import KReciprocalReranking

    size = SIZES[name]
    data = make_data(size)

    def summary(metrics: RetrievalMetrics) -> list[float]:
        return [metrics.as_dict()[figure] / 100 for figure in FIGURES]

    if name == "re-ranking":

        def figures(result: Any) -> list[float]:
            if who == "ours":
                return [result.R1 / 100, result.mAP / 100]
            metrics = evaluate_retrieval(similarity=-result, **data.ids)
            return [metrics.R1 / 100, metrics.mAP / 100]

        def ours() -> RetrievalMetrics:
            scores = KReciprocalReranking(data.queries, data.gallery).scores
            return evaluate_retrieval(np.arange(size.queries), data.gallery, score_function=scores, **data.ids)

        return (ours if who == "ours" else lambda: rerank_densely(data)), figures
    if who == "features":
        return lambda: evaluate_retrieval(data.queries, data.gallery, **data.ids), summary
    data.queries = data.queries[:num_queries]
    data.ids |= {key: values[:num_queries] for key, values in data.ids.items() if key.startswith("query")}
    scores = make_scores(size, data)
    if who == "ours":
        return lambda: evaluate_retrieval(similarity=scores, **data.ids), summary
    rank = rank_image_to_image if size.cameras else rank_text_to_image
    return lambda: rank(scores, data.ids), list


def memory(field: str) -> float:
    """`VmRSS` (now) or `VmHWM` (peak) of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def measure(name: str, who: str, num_queries: int, repeats: int) -> dict[str, Any]:
    """Run one task in this process."""
    import torch

    torch.set_num_threads(1)
    run, figures = task(name, who, num_queries)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory("VmRSS")
    cpu, wall = [], []
    result: Any = None
    for _ in range(repeats):
        result = None
        started = time.process_time(), time.perf_counter()
        result = run()
        cpu.append(time.process_time() - started[0])
        wall.append(time.perf_counter() - started[1])
    added = memory("VmHWM") - before
    return {
        "queries": num_queries,
        "cpu_s": statistics.median(cpu),
        "wall_s": statistics.median(wall),
        "added_mb": added,
        "figures": [float(value) for value in figures(result)],
    }


def measure_in_child(name: str, who: str, num_queries: int, repeats: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", name, who, str(num_queries), "--repeats", str(repeats)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(command, env=os.environ | threads, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def compare(name: str, repeats: int, *, full_reference: bool) -> dict[str, Any]:
    """All measurements of one size."""
    size = SIZES[name]
    sample = size.queries if full_reference else size.sample
    ours = measure_in_child(name, "ours", size.queries, repeats)
    reference = measure_in_child(name, "reference", sample, 1)
    report = {"ours": ours, "reference": reference}
    if name != "re-ranking":
        report["features"] = measure_in_child(name, "features", size.queries, 1)
    scale = size.queries / sample
    differences = np.abs(np.subtract(ours["figures"], size.expected))
    same = ours if sample == size.queries else measure_in_child(name, "ours", sample, 1)
    return report | {
        "reference_scale": scale,
        "ratio_cpu": reference["cpu_s"] * scale / ours["cpu_s"],
        "ratio_memory": reference["added_mb"] * scale / ours["added_mb"],
        "as_expected": bool((differences <= size.tolerance).all()),
        "largest_difference_to_reference": float(np.abs(np.subtract(same["figures"], reference["figures"])).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=3, help="calls of ours; the reference is called once")
    parser.add_argument("--full-reference", action="store_true", help="never a sample (msmt17 needs about 25 GB)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", nargs=3, metavar=("SIZE", "WHO", "QUERIES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, who, queries = options.child
        print(json.dumps(measure(name, who, int(queries), options.repeats)))
        return
    reports = {}
    for name in options.sizes:
        reports[name] = report = compare(name, options.repeats, full_reference=options.full_reference)
        if options.json:
            continue
        size, scale = SIZES[name], report["reference_scale"]
        print(f"{name}: {size.queries} x {size.gallery}")
        for who in ("ours", "features", "reference"):
            if who in report:
                values = report[who]
                note = (
                    f" (first {values['queries']} queries; times {scale:.2f})"
                    if values["queries"] < size.queries
                    else ""
                )
                label = {"ours": "ours", "features": "ours, from features", "reference": "reference"}[who]
                print(f"  {label}: {values['cpu_s']:.2f} s CPU, {values['added_mb']:.0f} MB added{note}")
        print(
            f"  {report['ratio_cpu']:.1f} times the speed, {report['ratio_memory']:.1f} times less memory; figures as "
            f"expected: {report['as_expected']}; largest difference {report['largest_difference_to_reference']:.1e}"
        )
    if options.json:
        print(json.dumps(reports, indent=1))


if __name__ == "__main__":
    main()
