"""Compute ranking metrics for queries with several targets each; ties are shared out as for one target.

Targets of one query with the same number of items above them have the same score: they are m of the w items of
one tied block, which covers ranks s+1 … s+w. Under a random order of the block each of its ranks holds a target
with probability m/w, and every metric here is the exact expectation over the orders of all blocks.

Source: definitions as in ir-measures (R@k, nDCG@k, RR@k, P@k, AP@k, Success@k) with relevance 0 or 1, hence AP
divided by the number of all targets, not by min(k, targets); expectations as in McSherry & Najork, ECIR 2008.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from hllm.errors import DataError
from hllm.metrics.ranking import CUTOFFS, UNREACHABLE, TargetRanks, cumulative, discount


class _Blocks(NamedTuple):
    """Tied blocks that hold a target, by query and then by rank."""

    query: Int[np.ndarray, " block"]
    start: Int[np.ndarray, " block"]
    """Items above the block: s."""
    width: Int[np.ndarray, " block"]
    """Items in it: w."""
    targets: Int[np.ndarray, " block"]
    """Targets in it: m."""
    before: Int[np.ndarray, " block"]
    """The query's targets above it."""


def several_target_metrics(
    ranks: TargetRanks, query: Int[np.ndarray, " target"], cutoffs: Sequence[int] = CUTOFFS
) -> dict[str, Float[np.ndarray, " query"]]:
    """Return each query's expected metrics at each cut-off, under names such as "ndcg@10".

    `ranks` has a row for each target and `query` says whose it is; results are in ascending order of the distinct
    queries. They are recall, NDCG, MRR (of the first target), precision, MAP and hit_rate (at least one target).
    All targets of a query must be distinct items, ranked in one list: same history, same excluded items. Raises
    DataError if the ranks show that they were not, or are below 0. A target that is UNREACHABLE is a miss that counts
    as a target.
    """
    names, numbered = np.unique(query, return_inverse=True)
    blocks = _blocks(ranks.checked(), numbered)
    num_targets = np.bincount(numbered)

    def summed(of_block: Float[np.ndarray, " block"]) -> Float[np.ndarray, " query"]:
        return np.bincount(blocks.query, weights=of_block, minlength=len(names)).astype(np.float64)

    chance = blocks.targets / blocks.width
    # Given a target at the block's j-th rank, (j - 1) · slope others stand before it in the block.
    slope = (blocks.targets - 1) / np.maximum(blocks.width - 1, 1)
    result: dict[str, Float[np.ndarray, " query"]] = {}
    for k in cutoffs:
        place = np.arange(1, k + 1, dtype=np.float64)
        gains, harmonic = cumulative(discount(place)), cumulative(1 / place)
        low, high = np.minimum(blocks.start, k), np.minimum(blocks.start + blocks.width, k)
        hits = summed(chance * (high - low))
        # Sum of (before + 1 + (rank - start - 1) · slope) / rank over the block's ranks up to k
        constant = blocks.before + 1 - (blocks.start + 1) * slope
        precisions = chance * (constant * (harmonic[high] - harmonic[low]) + slope * (high - low))
        first = _first_target(blocks, k)
        result |= {
            f"recall@{k}": hits / num_targets,
            f"ndcg@{k}": summed(chance * (gains[high] - gains[low])) / gains[np.minimum(num_targets, k)],
            f"mrr@{k}": first @ (1 / place),
            f"precision@{k}": hits / k,
            f"map@{k}": summed(precisions) / num_targets,
            f"hit_rate@{k}": first.sum(1),
        }
    return result


def _first_target(blocks: _Blocks, k: int) -> Float[np.ndarray, "query rank"]:
    """Return the probability that a query's first target has rank 1 … k.

    It stands in the query's first block, at its j-th place with probability C(w - j, m - 1) / C(w, m).
    """
    opening = np.flatnonzero(np.diff(blocks.query, prepend=-1))
    start, width, targets = (x[opening] for x in (blocks.start, blocks.width, blocks.targets))
    result = np.zeros((len(opening), k))
    probability = targets / width
    for j in range(1, k + 1):
        inside = start + j <= k
        result[inside, start[inside] + j - 1] = probability[inside]
        probability = probability * np.maximum(width - j - targets + 1, 0) / np.maximum(width - j, 1)
    return result


def _blocks(ranks: TargetRanks, query: Int[np.ndarray, " target"]) -> _Blocks:
    order = np.lexsort((ranks.better, query))
    query, start, width = query[order], ranks.better[order].astype(np.int64), ranks.tied[order].astype(np.int64) + 1
    new = np.r_[True, (np.diff(query) != 0) | (np.diff(start) != 0)][: len(query)]
    opening = np.flatnonzero(new)
    targets = np.diff(np.append(opening, len(query)))
    block = np.cumsum(new) - 1
    first_of_query = np.searchsorted(query, query[opening])
    blocks = _Blocks(query[opening], start[opening], width[opening], targets, opening - first_of_query)
    reachable = blocks.start < UNREACHABLE
    uneven = width != blocks.width[block]
    overfull = (targets > blocks.width) & reachable
    same = np.diff(blocks.query) == 0
    overlapping = same & (blocks.start[1:] < blocks.start[:-1] + blocks.width[:-1])
    wrong = np.unique(np.concatenate([query[uneven], blocks.query[overfull], blocks.query[1:][overlapping]]))
    if len(wrong):
        raise DataError(
            f"the ranks of {len(wrong):,} queries contradict each other: two of their targets are one item, or were "
            "not ranked in one list. Give each target once, all with the same history and the same excluded items"
        )
    return blocks
