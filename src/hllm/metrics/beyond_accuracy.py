"""Compute all metrics beyond accuracy of a table of recommendations, at several cut-offs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from hllm.errors import DataError
from hllm.metrics.exposure import coverage, gini, novelty, popularity
from hllm.metrics.lists import category_diversity, diversity, miscalibration, serendipity
from hllm.metrics.ranking import CUTOFFS


def beyond_accuracy(
    items: Int[np.ndarray, "user k"],
    training_counts: Int[np.ndarray, " item"],
    *,
    embeddings: Float[np.ndarray, "item dim"] | None = None,
    categories: Bool[np.ndarray, "item category"] | None = None,
    histories: Sequence[Int[np.ndarray, " _"]] | None = None,
    targets: Int[np.ndarray, "user target"] | None = None,
    expected: Int[np.ndarray, "user k"] | None = None,
    cutoffs: Sequence[int] = CUTOFFS,
) -> dict[str, Float[np.ndarray, " user"] | float]:
    """Return metrics of recommendations, best first, -1 where a row ends early, under names such as "novelty@10".

    Coverage and Gini index are numbers of the whole table; the others have a value for each user, NaN where a list
    is too short for it. Some need more: diversity `embeddings`, category_diversity `categories`, miscalibration
    also `histories`, serendipity the `targets` (-1 where a row ends early) and the recommendations `expected` from
    a simple recommender. Without these they are left out. `training_counts` has a number for each item of the
    catalogue. Raises DataError for a cut-off beyond the table's columns.
    """
    if max(cutoffs) > items.shape[1]:
        raise DataError(
            f"cut-off {max(cutoffs)} needs as many recommendations for each user; there are {items.shape[1]}. "
            f"Ask for {max(cutoffs)} or leave the cut-off out"
        )
    result: dict[str, Float[np.ndarray, " user"] | float] = {}
    for k in cutoffs:
        first = items[:, :k]
        result[f"coverage@{k}"] = coverage(first, len(training_counts))
        result[f"gini@{k}"] = gini(first, len(training_counts))
        result[f"novelty@{k}"] = novelty(first, training_counts)
        result[f"popularity@{k}"] = popularity(first, training_counts)
        if embeddings is not None:
            result[f"diversity@{k}"] = diversity(first, embeddings)
        if categories is not None:
            result[f"category_diversity@{k}"] = category_diversity(first, categories)
        if targets is not None and expected is not None:
            result[f"serendipity@{k}"] = serendipity(first, expected[:, :k], targets)
        if categories is not None and histories is not None:
            result[f"miscalibration@{k}"] = miscalibration(first, histories, categories)
    return result
