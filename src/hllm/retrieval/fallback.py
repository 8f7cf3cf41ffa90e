"""Fallback: users without a history get the popular items; the column `source` says so."""

# Proved by tests/test_recommend_known.py.

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool

from hllm.retrieval.frame import Source
from hllm.retrieval.histories import Histories, ItemLists
from hllm.retrieval.retriever import Recommendations, Retriever


def recommend_or_fall_back(
    retriever: Retriever,
    popular: Callable[[], Retriever],
    histories: Histories,
    k: int,
    *,
    exclude: ItemLists | None = None,
    candidates: Bool[np.ndarray, " item"] | None = None,
) -> tuple[Recommendations, list[Source]]:
    """Return the k best items of each user, and their source; see `Retriever.recommend`.

    A user whose history is empty gets those of `popular`, whose score is the number of training interactions.
    `popular` is called only if there is such a user.
    """
    known = histories.known
    if known.all():
        return retriever.recommend(histories, k, exclude=exclude, candidates=candidates), ["model"] * len(known)
    items = np.full((len(known), k), -1, dtype=np.int64)
    scores = np.full((len(known), k), -np.inf, dtype=np.float32)
    rows = np.flatnonzero(known)
    if len(rows):
        excluded = None if exclude is None else [exclude[row] for row in rows.tolist()]
        best = retriever.recommend(histories[rows], k, exclude=excluded, candidates=candidates)
        items[rows], scores[rows] = best.items, best.scores
    nobody = Histories([np.zeros(0, dtype=np.int64)])
    best = popular().recommend(nobody, k, candidates=candidates)
    items[~known], scores[~known] = best.items, best.scores
    return Recommendations(items, scores), ["model" if each else "popularity" for each in known]
