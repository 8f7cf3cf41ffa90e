"""Slices are groups of queries that a metric is also reported for. Each function returns a mask for each slice.

The slices of one function are disjoint and together hold every query; one without queries is all False.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int

HEAD_SHARE = 0.2
LENGTH_BOUNDS = (5, 10, 20, 50)
AGE_BOUNDS_DAYS = (1, 7, 30, 365)
NEVER = np.iinfo(np.int64).max
_DAY_S = 86_400

Slices = dict[str, Bool[np.ndarray, " query"]]


def popularity_slices(
    training_counts: Int[np.ndarray, " item"],
    targets: Int[np.ndarray, " query"],
    *,
    head_share: float = HEAD_SHARE,
) -> Slices:
    """Return "head", queries whose target is among the most popular items of the catalogue, and "tail", the others.

    The head is at most `head_share` of the items, by training interactions, those without any counted too. Items as
    popular as the best of the tail are in the tail, so that no order decides.

    Source: head and tail as in Park & Tuzhilin, RecSys 2008; that the head is a fifth of the items is custom.
    """
    num_tail = len(training_counts) - int(head_share * len(training_counts) + 1e-9)
    limit = np.sort(training_counts)[num_tail - 1] if num_tail else -1
    head = training_counts[targets] > limit
    return {"head": head, "tail": ~head}


def length_slices(lengths: Int[np.ndarray, " query"], *, bounds: Sequence[int] = LENGTH_BOUNDS) -> Slices:
    """Return slices by the number of items in the history before the target: "0", "1-5", "6-10", … ">50"."""
    edges = (0, *bounds)
    slices = {"0": lengths == 0}
    slices |= {f"{low + 1}-{high}": (lengths > low) & (lengths <= high) for low, high in pairwise(edges)}
    return slices | {f">{edges[-1]}": lengths > edges[-1]}


def first_seen(
    items: Int[np.ndarray, " event"], seconds: Int[np.ndarray, " event"], num_items: int
) -> Int[np.ndarray, " item"]:
    """Return the time of each item's first interaction; NEVER for an item without any."""
    first = np.full(num_items, NEVER)
    np.minimum.at(first, items, seconds)
    return first


def age_slices(
    first_times: Int[np.ndarray, " item"],
    targets: Int[np.ndarray, " query"],
    seconds: Int[np.ndarray, " query"],
    *,
    bounds_days: Sequence[int] = AGE_BOUNDS_DAYS,
) -> Slices:
    """Return slices by the target's age when it is asked for: "new", "0-1 days", "1-7 days", … ">365 days".

    The age is the time of the query minus that of the item's first training interaction, see `first_seen`; a target
    with none by then is "new". An age of a bound is in the slice that ends there. Times are seconds, and must be
    those of a clock: positions in a history have no ages.
    """
    first = first_times[targets]
    new = first > seconds
    days = (seconds - np.minimum(first, seconds)) / _DAY_S
    slices = {"new": new, f"0-{bounds_days[0]} days": ~new & (days <= bounds_days[0])}
    slices |= {f"{low}-{high} days": (days > low) & (days <= high) for low, high in pairwise(bounds_days)}
    return slices | {f">{bounds_days[-1]} days": days > bounds_days[-1]}
