"""Exact search on several cores.

torch's own threads meet at a barrier after every operation. Search runs many short operations, and where a core is busy
with something else every barrier waits for it: on a loaded machine of two cores, converting 100 000 vectors took
380 ms instead of 4. Here each thread searches its own share of the rows with torch confined to that thread, and they
meet once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .exact_search import exact_top_k

__all__ = ["parallel_top_k", "search_threads"]

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def search_threads() -> int:
    """Number of threads that a search uses: as many as torch (`OMP_NUM_THREADS`, `torch.set_num_threads`)."""
    import torch

    return int(torch.get_num_threads())


def _start() -> ThreadPoolExecutor:
    """The threads, all started, each with a torch that uses no other.

    `torch.set_num_threads` is valid for the thread that calls it and for threads that have not used torch before, so
    afterwards it is called once more with the old value, in a thread of its own, for the sake of the latter.
    """
    import torch

    count = search_threads()
    started = threading.Barrier(count + 1)

    def confine() -> None:
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, "reid_zoo-search")
    for _ in range(count):
        pool.submit(confine)
    started.wait()
    restore = threading.Thread(target=torch.set_num_threads, args=(count,))
    restore.start()
    restore.join()
    return pool


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def parallel_top_k(
    shares: Sequence[Iterable[tuple[np.ndarray, np.ndarray]]],
    queries: np.ndarray,
    top_k: int,
    *,
    largest_norm: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`exact_top_k` over the blocks of all shares together, each share in its own thread."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = _start()
        pool = _pool
    tasks = [pool.submit(exact_top_k, share, queries, top_k, largest_norm=largest_norm) for share in shares]
    results = [task.result() for task in tasks]
    ids = np.concatenate([result[0] for result in results], axis=1)
    scores = np.concatenate([result[1] for result in results], axis=1)
    best = np.lexsort((ids, -scores), axis=1)[:, :top_k]
    return np.take_along_axis(ids, best, axis=1), np.take_along_axis(scores, best, axis=1)
