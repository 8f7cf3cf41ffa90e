"""The certificate of an index: its recall against exact search and the time of a search, kept in its manifest."""

# Proved by tests/retrieval/index/test_index.py.

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hllm.config import Config
from hllm.retrieval.retriever import Recommendations

Search = Callable[[Float[Tensor, "query dim"]], Recommendations]

MAX_TIMED = 1000
TIMED_SECONDS = 10.0
_SAME = 1e-5
_WARM_UP = 3


class Latency(Config):
    """Time of one search for one query, on one thread."""

    p50_ms: float
    """Half of the searches took no longer."""
    p99_ms: float
    """99 of 100 searches took no longer."""
    num_searches: int
    """Number of timed searches."""


class Certificate(Config):
    """A measurement of an index, on the machine that made it."""

    k: int
    """Items that each search returns."""
    recall: float
    """Share of the k best items by exact search that the index finds, mean over the queries."""
    lowest_recall: float
    """The same share for the worst query."""
    num_queries: int
    """Queries that recall was measured with."""
    queries: str
    """A description of the queries."""
    num_items: int
    """Items in the index."""
    num_changes: int
    """Items added, updated or deleted since the index was built, when it was measured."""
    index: Latency
    """The time of a search by the index."""
    exact: Latency
    """The time of the same search, exactly."""
    threads: int
    """Threads of the timed searches."""
    machine: str
    """The processor that the times were taken on."""

    def __str__(self) -> str:
        """Return two lines for people."""
        return (
            f"recall@{self.k} {self.recall:.4f} of exact search (lowest {self.lowest_recall:.2f}), over "
            f"{self.num_queries:,} queries: {self.queries}\n"
            f"one search, {self.threads} thread: p50 {self.index.p50_ms:.2f} ms, p99 {self.index.p99_ms:.2f} ms; "
            f"exactly: p50 {self.exact.p50_ms:.2f} ms, p99 {self.exact.p99_ms:.2f} ms ({self.machine})"
        )


def recall_of(best: Recommendations, exact: Recommendations) -> Float[np.ndarray, " query"]:
    """Return the share of the exact best that was found, for each query.

    An item as good as the last of the exact ones counts as one of them, up to a relative rounding of 1e-5. Where
    exact search finds nothing, the share is 1.
    """
    real = np.isfinite(exact.scores)
    number = real.sum(1)
    last = np.where(real, exact.scores, np.inf).min(1, initial=np.inf)
    last[number == 0] = 0
    limit = last - _SAME * np.maximum(1e-3, np.abs(last))
    hits = (np.isfinite(best.scores) & (best.scores >= limit[:, None])).sum(1)
    return np.where(number == 0, 1.0, np.minimum(hits, number) / np.maximum(1, number))


def latency_of(search: Search, queries: Float[Tensor, "query dim"]) -> Latency:
    """Time single searches on one thread, one after another: at most MAX_TIMED, at most about TIMED_SECONDS."""
    with _one_thread():
        for row in range(min(_WARM_UP, len(queries))):
            search(queries[row : row + 1])
        taken: list[float] = []
        while len(taken) < MAX_TIMED and sum(taken) < TIMED_SECONDS:
            row = len(taken) % len(queries)
            start = time.perf_counter()
            search(queries[row : row + 1])
            taken.append(time.perf_counter() - start)
    p50, p99 = np.percentile(taken, [50, 99]) * 1000
    return Latency(p50_ms=round(float(p50), 3), p99_ms=round(float(p99), 3), num_searches=len(taken))


def processor() -> str:
    """Return the kind of processor and the number of cores."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch, and FAISS if it has been imported, on one thread."""
    before, faiss = torch.get_num_threads(), sys.modules.get("faiss")
    torch.set_num_threads(1)
    before_faiss = faiss.omp_get_max_threads() if faiss else 0
    if faiss:
        faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if faiss:
            faiss.omp_set_num_threads(before_faiss)
