"""Time and memory of ranking a whole catalogue, against all scores of a batch of users at once and their best 200.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py

Goal C6: at most half of the dense version's time, at most 512 MB. 20,000 users, 100,000 items, random vectors of 128
dimensions; each user has one target and 10 items seen. The dense version is ours, written as recommender code commonly
does it: scores of 256 users for all items, -inf for those seen, `topk(200)`, the place of the target in it. It gives
a tie to whichever item `topk` puts first, where the library shares it out; the metrics of both at 10, 50 and 200 agree
to 1e-6. That the library's counts are exact is checked first, against those in all scores of 1,000 users at once.

The versions take turns, each time in a process of its own; seconds are those of the ranking alone, megabytes the
process's greatest resident memory: interpreter, torch, vectors and all. Printed are JSON and one line for people.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from measure import peak_bytes

from hllm.metrics import TargetRanks, ranking_metrics
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.histories import Histories

USERS, ITEMS, DIM, SEEN, BEST, BATCH = 20_000, 100_000, 128, 10, 200, 256
CUTOFFS = (10, 50, 200)
REPEATS = 3


class Vectors:
    """A scorer whose histories begin with the user's number."""

    def __init__(self, users: torch.Tensor, keys: torch.Tensor) -> None:
        self.users = users
        self.keys = keys

    @property
    def num_items(self) -> int:
        """Return the size of the catalogue."""
        return len(self.keys)

    def queries(self, histories: Histories) -> torch.Tensor:
        """Return the users' vectors."""
        return self.users[[int(history[0]) for history in histories]]

    def score(self, histories: Histories) -> np.ndarray:
        """Return all scores."""
        return (self.queries(histories) @ self.keys.T).numpy()


def dense(vectors: Vectors, targets: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """Return metrics from the best 200 of every row of scores."""
    places = []
    for start in range(0, USERS, BATCH):
        batch = slice(start, start + BATCH)
        scores = vectors.users[batch] @ vectors.keys.T
        scores.scatter_(1, torch.from_numpy(seen[batch]), -torch.inf)
        best = scores.topk(BEST).indices
        hit = best == torch.from_numpy(targets[batch])[:, None]
        places.append(torch.where(hit.any(1), hit.int().argmax(1), BEST).numpy())
    ranks = np.concatenate(places)
    return means(TargetRanks(ranks, np.zeros_like(ranks)))


def streamed(vectors: Vectors, targets: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """Return metrics from the library's ranks."""
    histories = Histories([np.array([user]) for user in range(USERS)])
    return means(ExactRetriever(vectors).rank(histories, targets, list(seen)))


def means(ranks: TargetRanks) -> dict[str, float]:
    """Return the means over users."""
    return {name: float(values.mean()) for name, values in ranking_metrics(ranks, CUTOFFS).items()}


VERSIONS: dict[str, Callable[[Vectors, np.ndarray, np.ndarray], dict[str, float]]] = {
    "dense": dense,
    "streamed": streamed,
}


def world() -> tuple[Vectors, np.ndarray, np.ndarray]:
    """Draw vectors, targets and the items seen."""
    draw = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    keys = torch.randn(ITEMS, DIM, generator=draw)
    targets = rng.integers(ITEMS, size=USERS)
    seen = (targets[:, None] + rng.integers(1, ITEMS, size=(USERS, SEEN))) % ITEMS
    # Users near their targets, so that there is something to find.
    return Vectors(torch.randn(USERS, DIM, generator=draw) + 0.3 * keys[targets], keys), targets, seen


def require_exact_counts(number: int = 1000) -> None:
    """Compare the library's counts for some users with those in all their scores."""
    vectors, targets, seen = world()
    histories = Histories([np.array([user]) for user in range(number)])
    ranks = ExactRetriever(vectors).rank(histories, targets[:number], list(seen[:number]))
    scores = vectors.score(histories)
    np.put_along_axis(scores, seen[:number], -np.inf, 1)
    of_target = np.take_along_axis(scores, targets[:number, None], 1)
    assert (ranks.better == (scores > of_target).sum(1)).all(), "items above the target"
    assert (ranks.tied == (scores == of_target).sum(1) - 1).all(), "items level with the target"


def measure(version: str) -> dict[str, object]:
    """Rank once, in this process."""
    vectors, targets, seen = world()
    clock, cpu = time.perf_counter(), time.process_time()
    metrics = VERSIONS[version](vectors, targets, seen)
    return {
        "wall_s": time.perf_counter() - clock,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": peak_bytes() / 2**20,
        "metrics": metrics,
    }


def c6(repeats: int = REPEATS) -> dict[str, object]:
    """Measure both versions in turn; return medians, spans and the ratio of the times, once the metrics agree."""
    require_exact_counts()
    runs: dict[str, list[dict[str, object]]] = {version: [] for version in VERSIONS}
    for _ in range(repeats):
        for version, found in runs.items():
            command = [sys.executable, __file__, "--only", version]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout))
    expected = runs["streamed"][0]["metrics"]
    for run in (*runs["dense"], *runs["streamed"]):
        for name, value in expected.items():  # type: ignore[attr-defined]
            assert abs(run["metrics"][name] - value) < 1e-6, f"{name} differs"  # type: ignore[index]
    result: dict[str, object] = {
        "users": USERS, "items": ITEMS, "dim": DIM, "repeats": repeats,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "metrics": expected,
    }  # fmt: skip
    for version, found in runs.items():
        for number in ("wall_s", "cpu_s", "peak_mb"):
            values = [float(run[number]) for run in found]  # type: ignore[arg-type]
            result[f"{version}_{number}"] = [statistics.median(values), min(values), max(values)]
    for number in ("wall_s", "cpu_s"):
        pairs = zip(runs["dense"], runs["streamed"], strict=True)
        ratios = [float(a[number]) / float(b[number]) for a, b in pairs]  # type: ignore[arg-type]
        result[f"ratio_{number}"] = [statistics.median(ratios), min(ratios), max(ratios)]
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(VERSIONS), help="rank once and print that alone")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    given = parser.parse_args(arguments)
    if given.only:
        print(json.dumps(measure(given.only)))
        return
    result = c6(given.repeats)
    print(json.dumps(result, indent=1))
    ratio, peak = result["ratio_cpu_s"], result["streamed_peak_mb"]
    print(f"C6: {ratio[0]:.2f} x as fast in CPU time ({ratio[1]:.2f}-{ratio[2]:.2f}), peak {peak[0]:.0f} MB")  # type: ignore[index]


if __name__ == "__main__":
    main()
