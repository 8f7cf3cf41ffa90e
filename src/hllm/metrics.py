"""Ranking metrics for one target per user, from the target's rank; ties are shared out, never won.

A target with `better` items strictly above it and `tied` others at exactly its score has, under a random
order of the tied, a rank uniform on better+1 … better+tied+1. Every metric here is the expectation over that
order, so a model that gives all items the same score lands exactly at chance.

Source: definitions as in ir-measures (R@k, nDCG@k, RR@k) with one relevant item; for the expectation over
ties, McSherry & Najork, ECIR 2008.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

CUTOFFS = (5, 10, 20, 50)
UNREACHABLE = 2**62  # beyond every cut-off
DEFINITIONS = {
    "recall": "expected share of users whose target is among the first k (one target: also called hit rate)",
    "ndcg": "expected 1/log2(1 + rank) if rank <= k else 0 (one target: the ideal is 1)",
    "mrr": "expected 1/rank if rank <= k else 0",
}


@dataclass(frozen=True)
class TargetRanks:
    """Where each user's target stands among the ranked catalogue."""

    better: Int[np.ndarray, " user"]
    """Number of items scored strictly higher; UNREACHABLE for a target that cannot be recommended."""
    tied: Int[np.ndarray, " user"]
    """Number of other items with exactly the target's score."""


def ranking_metrics(ranks: TargetRanks, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, Float[np.ndarray, " user"]]:
    """Return each user's expected recall, NDCG and MRR at each cut-off, under names such as "ndcg@10"."""
    first, width = ranks.better.astype(np.int64), ranks.tied.astype(np.int64) + 1
    result = {}
    for name, gain in (("recall", np.ones_like), ("ndcg", _discount), ("mrr", np.reciprocal)):
        for k in cutoffs:
            total = np.concatenate([[0.0], np.cumsum(gain(np.arange(1, k + 1, dtype=np.float64)))])
            # The tied block covers ranks first+1 … first+width; those beyond k gain nothing.
            gained = total[np.minimum(first + width, k)] - total[np.minimum(first, k)]
            result[f"{name}@{k}"] = gained / width
    return result


def _discount(rank: Float[np.ndarray, " rank"]) -> Float[np.ndarray, " rank"]:
    return 1.0 / np.log2(1.0 + rank)
