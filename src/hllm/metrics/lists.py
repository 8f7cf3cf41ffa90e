"""List metrics say whether a user's list is diverse, surprising, and in the proportions of the history.

Every function takes a table of recommendations, one row a user and -1 where a row ends early, and uses all of its
columns: cut it to the first k before. Memory is that of a tile of users.
"""

# Proved by tests/metrics/test_beyond_accuracy.py.

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from hllm.metrics.exposure import ratio

_TILE_NUMBERS = 2**22
ALPHA = 0.01


def diversity(
    items: Int[np.ndarray, "user k"], embeddings: Float[np.ndarray, "item dim"]
) -> Float[np.ndarray, " user"]:
    """Return each user's intra-list diversity: the mean of 1 - cosine over pairs of items; NaN for less than two.

    An embedding of zeros has cosine 0 with every other.

    Source: Smyth & McClave, "Similarity vs. Diversity", ICCBR 2001; Ziegler et al., WWW 2005.
    """
    result = np.empty(len(items))
    for part in _tiles(len(items), items.shape[1] * embeddings.shape[1]):
        mask = items[part] >= 0
        vectors = embeddings[items[part]].astype(np.float64) * mask[:, :, None]
        length = np.linalg.norm(vectors, axis=-1, keepdims=True)
        vectors = np.divide(vectors, length, out=vectors, where=length > 0)
        # |Σ v|² is the sum of all cosines, those of items with themselves included.
        self_cosines = np.square(vectors).sum((1, 2))
        cosines = np.square(vectors.sum(1)).sum(1) - self_cosines
        number = mask.sum(1).astype(np.float64)
        result[part] = 1 - ratio(cosines, number * (number - 1))
    return result


def category_diversity(
    items: Int[np.ndarray, "user k"], categories: Bool[np.ndarray, "item category"]
) -> Float[np.ndarray, " user"]:
    """Return the share of pairs of a user's items that have no category in common.

    Items without any category are left out; NaN where fewer than two are left.

    Source: intra-list diversity as of Ziegler et al., WWW 2005, with distance 1 where labels differ and 0 elsewhere.
    """
    result = np.empty(len(items))
    k = items.shape[1]
    for part in _tiles(len(items), k * max(k, categories.shape[1])):
        labels = (categories[items[part]] & (items[part] >= 0)[:, :, None]).astype(np.float32)
        common = labels @ labels.transpose(0, 2, 1) > 0
        number = labels.any(2).sum(1).astype(np.float64)  # each has a category in common with itself
        pairs = number * (number - 1)
        result[part] = ratio(pairs - (common.sum((1, 2)) - number), pairs)
    return result


def serendipity(
    items: Int[np.ndarray, "user k"], expected: Int[np.ndarray, "user k"], targets: Int[np.ndarray, "user target"]
) -> Float[np.ndarray, " user"]:
    """Return the share of each user's k places whose item is a target and not among the `expected` ones.

    `expected` are the k recommendations of a simple recommender, such as the most popular items that the user has
    not seen; rows of `targets` may end early with -1.

    Source: Ge et al., "Beyond Accuracy", RecSys 2010, section 4, after Murakami et al., 2008: useful is to be a target.
    """
    result = np.empty(len(items))
    k = items.shape[1]
    for part in _tiles(len(items), k * max(expected.shape[1], targets.shape[1])):
        places = items[part, :, None]
        hits = (
            (places == targets[part, None, :]).any(2) & ~(places == expected[part, None, :]).any(2) & (items[part] >= 0)
        )
        result[part] = hits.sum(1) / k
    return result


def miscalibration(
    items: Int[np.ndarray, "user k"],
    histories: Sequence[Int[np.ndarray, " _"]],
    categories: Bool[np.ndarray, "item category"],
) -> Float[np.ndarray, " user"]:
    """Return, in nats, how far the categories of each user's list are from those of the history; 0: the same shares.

    It is KL(p ‖ 0.99 q + 0.01 p), where an item with c categories gives each 1/c, and p and q are the means over the
    history and over the list. Items without any category are left out; NaN where nothing is left of either.

    Source: Steck, "Calibrated Recommendations", RecSys 2018, section 3, with equal weights and α = 0.01.
    """
    shares = categories / np.maximum(categories.sum(1, keepdims=True), 1)
    result = np.empty(len(items))
    for user, (row, history) in enumerate(zip(items, histories, strict=True)):
        history_shares, list_shares = shares[history].sum(0), shares[row[row >= 0]].sum(0)
        if not (history_shares.any() and list_shares.any()):
            result[user] = np.nan
            continue
        p, q = history_shares / history_shares.sum(), list_shares / list_shares.sum()
        support = p > 0
        result[user] = (p[support] * np.log(p[support] / ((1 - ALPHA) * q[support] + ALPHA * p[support]))).sum()
    return result


def _tiles(num_users: int, numbers_per_user: int) -> Iterator[slice]:
    step = max(1, _TILE_NUMBERS // max(1, numbers_per_user))
    return (slice(start, start + step) for start in range(0, num_users, step))
