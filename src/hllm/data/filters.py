"""Filters leave out users and items with too few interactions, once or until nothing changes."""

import numpy as np
from jaxtyping import Bool, Int


def filter_interactions(
    user: Int[np.ndarray, " interaction"],
    item: Int[np.ndarray, " interaction"],
    *,
    kind: str,
    min_user: int,
    min_item: int,
    num_items: int,
) -> tuple[Bool[np.ndarray, " interaction"], Bool[np.ndarray, " item"], int]:
    """Return which interactions stay, which items stay in the catalogue, and how often each bound was applied.

    "k-core": both bounds again and again until each user and item left has enough. What is left is the largest
    such set, whatever the order. "one-pass": items by their interactions in all the data, then users by what is
    left of theirs. Time and memory grow with the interactions, once a round; a round sees only what is left.

    Source: k-core as in SASRec's and RecBole's data. One pass: bytedance/HLLM, process_books.py, which also counts
    users before the items are dropped; that changes nothing, for a user with enough left had enough before.
    """
    rows = np.arange(len(user))
    stays = np.ones(num_items, dtype=bool)
    rounds = 0
    while True:
        rounds += 1
        before = len(rows)
        enough = np.bincount(item[rows], minlength=num_items) >= min_item
        stays &= enough
        rows = rows[enough[item[rows]]]
        rows = rows[(np.bincount(user[rows], minlength=1) >= min_user)[user[rows]]]
        if kind == "one-pass" or len(rows) == before:
            break
    in_data = np.zeros(len(user), dtype=bool)
    in_data[rows] = True
    return in_data, stays, rounds
