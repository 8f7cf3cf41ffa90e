"""Ranking metrics judge the rank of one target per user; ties are shared out, never won.

A target with `better` items strictly above it and `tied` others at exactly its score has, under a random
order of the tied, a rank uniform on better+1 … better+tied+1. Every metric here is the expectation over that
order, so a model that gives all items the same score lands exactly at chance.

Source: definitions as in ir-measures (R@k, nDCG@k, RR@k, P@k, AP@k) with one relevant item; for the
expectation over ties, McSherry & Najork, ECIR 2008.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from hllm.errors import DataError

CUTOFFS = (5, 10, 20, 50)
UNREACHABLE = 2**62  # beyond every cut-off


@dataclass(frozen=True)
class TargetRanks:
    """Rank of each user's target in the catalogue."""

    better: Int[np.ndarray, " user"]
    """Number of items scored strictly higher; UNREACHABLE for a target that cannot be recommended."""
    tied: Int[np.ndarray, " user"]
    """Number of other items with exactly the target's score."""

    def checked(self) -> "TargetRanks":
        """Return the ranks; DataError for numbers of items below 0, whose metrics would be worth more than a hit."""
        wrong = np.flatnonzero((self.better < 0) | (self.tied < 0))
        if len(wrong):
            first = ", ".join(f"better {self.better[row]} tied {self.tied[row]}" for row in wrong[:3])
            raise DataError(
                f"{len(wrong):,} of {len(self.better):,} targets have less than no items above them or level with "
                f"them; first: {first}. The retriever that ranked them is at fault"
            )
        return self


def ranking_metrics(ranks: TargetRanks, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, Float[np.ndarray, " user"]]:
    """Return each user's expected metrics at each cut-off, under names such as "ndcg@10".

    They are recall (with one target also the hit rate), NDCG, MRR, precision (recall / k) and MAP. Average
    precision with one relevant item is its reciprocal rank, so MAP equals MRR. Raises DataError for ranks below 0.
    """
    ranks = ranks.checked()
    first, width = ranks.better.astype(np.int64), ranks.tied.astype(np.int64) + 1
    result = {}
    for name, gain in (("recall", np.ones_like), ("ndcg", discount), ("mrr", np.reciprocal)):
        for k in cutoffs:
            total = cumulative(gain(np.arange(1, k + 1, dtype=np.float64)))
            # The tied block covers ranks first+1 … first+width; those beyond k gain nothing.
            gained = total[np.minimum(first + width, k)] - total[np.minimum(first, k)]
            result[f"{name}@{k}"] = gained / width
    result |= {f"precision@{k}": result[f"recall@{k}"] / k for k in cutoffs}
    return result | {f"map@{k}": result[f"mrr@{k}"] for k in cutoffs}


def discount(rank: Float[np.ndarray, " rank"]) -> Float[np.ndarray, " rank"]:
    """Return NDCG's weight of a rank, 1/log2(1 + rank)."""
    return 1.0 / np.log2(1.0 + rank)


def cumulative(gains: Float[np.ndarray, " rank"]) -> Float[np.ndarray, " count"]:
    """Return the sum of the gains of the first 0, 1, … ranks."""
    return np.concatenate([[0.0], np.cumsum(gains)])
