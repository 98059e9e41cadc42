"""Exact gallery search against a plain NumPy search (float32 product and full argsort), in one run on the same vectors.

    python benchmarks/gallery_search.py [--rows 100000] [--size 512] [--queries 20]

Prints the median time per query of both (wall clock and CPU over all threads), their ratio, and whether the answers agree.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from reid_zoo.gallery import ModelIdentity
from reid_zoo.gallery.engines.base import StoreSchema
from reid_zoo.gallery.engines.lance import LanceStore


def median_ms(search: Callable[[np.ndarray], object], queries: np.ndarray) -> tuple[float, float]:
    """Wall-clock and CPU milliseconds per query."""
    wall, cpu = [], []
    for query in queries:
        started = time.perf_counter(), time.process_time()
        search(query)
        wall.append(1000 * (time.perf_counter() - started[0]))
        cpu.append(1000 * (time.process_time() - started[1]))
    return statistics.median(wall), statistics.median(cpu)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--top-k", type=int, default=100)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    vectors = random.standard_normal((options.rows, options.size), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = random.standard_normal((options.queries, options.size), dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    stored = vectors.astype(np.float16).astype(np.float32)

    def plain(query: np.ndarray) -> np.ndarray:
        return np.argsort(-(stored @ query), kind="stable")[: options.top_k]

    with tempfile.TemporaryDirectory() as folder:
        identity = ModelIdentity("benchmark", None, "none", options.size, "benchmark")
        store = LanceStore.create(str(Path(folder) / "gallery"), StoreSchema(identity, {}))
        started = time.perf_counter()
        for start in range(0, options.rows, 10_000):
            part = vectors[start : start + 10_000]
            store.upsert(np.arange(start, start + len(part)), part, {})
        written = time.perf_counter() - started

        def ours(query: np.ndarray) -> np.ndarray:
            return store.search(query[None], options.top_k).ids[0]

        same = [np.array_equal(ours(query), plain(query)) for query in queries]  # also builds the matrix
        (ours_ms, ours_cpu), (plain_ms, plain_cpu) = median_ms(ours, queries), median_ms(plain, queries)
        store.close()
    print(f"{options.rows} x {options.size}, top {options.top_k}: written in {written:.1f} s")
    print(f"gallery (float16 on disk): {ours_ms:.1f} ms, {ours_cpu:.1f} ms of CPU per query")
    print(
        f"plain NumPy (float32 in memory): {plain_ms:.1f} ms, {plain_cpu:.1f} ms of CPU; ratio {plain_ms / ours_ms:.2f}"
    )
    print(f"identical answers: {sum(same)} of {len(same)} queries")


if __name__ == "__main__":
    main()
