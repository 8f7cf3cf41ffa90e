"""Exposure metrics say how much of the catalogue a recommender shows, how evenly, how popular and how novel.

Every function takes a table of recommendations, one row a user and -1 where a row ends early, and uses all of its
columns: cut it to the first k before. Item indices run from 0 to the size of the catalogue.
"""

# Proved by tests/metrics/test_beyond_accuracy.py.

import numpy as np
from jaxtyping import Float, Int


def coverage(items: Int[np.ndarray, "user k"], num_items: int) -> float:
    """Return the share of the catalogue that is recommended to anyone. It grows with the number of users asked.

    Source: catalogue coverage, Ge et al., "Beyond Accuracy: Evaluating Recommender Systems by Coverage and
    Serendipity", RecSys 2010.
    """
    return len(np.unique(items[items >= 0])) / num_items


def gini(items: Int[np.ndarray, "user k"], num_items: int) -> float:
    """Return the Gini index of how often each item of the catalogue is recommended; NaN if nothing is.

    With n items in ascending order of their share p of all recommendations it is Σ (2j - n - 1) p_j / (n - 1):
    0 if all items are recommended equally often, 1 if only one ever is.

    Source: Gunawardana & Shani, "Evaluating Recommender Systems", Recommender Systems Handbook, 2015.
    """
    exposures = np.sort(np.bincount(items[items >= 0], minlength=num_items))
    if not exposures.any():
        return float("nan")
    weights = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float(weights @ exposures / exposures.sum() / max(num_items - 1, 1))


def novelty(items: Int[np.ndarray, "user k"], training_counts: Int[np.ndarray, " item"]) -> Float[np.ndarray, " user"]:
    """Return each user's mean self-information, in bits, of the recommended items; NaN for an empty list.

    It is -log2 p(item), p the item's share of all training interactions. An item without any counts as if it had
    one, since its information would be infinite.

    Source: Zhou et al., PNAS 107(10), 2010; p as in "free discovery" of Vargas & Castells, RecSys 2011.
    """
    known = np.maximum(training_counts, 1)
    return mean_listed(np.log2(max(int(training_counts.sum()), 1)) - np.log2(known), items)


def popularity(
    items: Int[np.ndarray, "user k"], training_counts: Int[np.ndarray, " item"]
) -> Float[np.ndarray, " user"]:
    """Return each user's mean number of training interactions of the recommended items; NaN for an empty list.

    Source: average recommendation popularity, Yin et al., "Challenging the Long Tail Recommendation", VLDB 2012.
    """
    return mean_listed(training_counts.astype(np.float64), items)


def mean_listed(values: Float[np.ndarray, " item"], items: Int[np.ndarray, "user k"]) -> Float[np.ndarray, " user"]:
    """Return the mean value of each user's recommended items; NaN for an empty list."""
    listed = items >= 0
    return ratio(np.where(listed, values[items], 0.0).sum(1), listed.sum(1).astype(np.float64))


def ratio(of: Float[np.ndarray, " user"], to: Float[np.ndarray, " user"]) -> Float[np.ndarray, " user"]:
    """Return the quotients; NaN where there is nothing to divide by."""
    result: Float[np.ndarray, " user"] = np.divide(of, to, out=np.full(len(of), np.nan), where=to > 0)
    return result
