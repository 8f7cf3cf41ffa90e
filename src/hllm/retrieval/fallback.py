"""What a user gets of whom nothing is known: what is popular, and it is said so."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool

from hllm.retrieval.frame import Source
from hllm.retrieval.histories import Histories, HistoriesWithTexts, some_of
from hllm.retrieval.retriever import Recommendations, Retriever


def is_known(histories: Histories) -> Bool[np.ndarray, " user"]:
    """Return which users have a history or a sentence."""
    known = np.array([len(history) > 0 for history in histories], dtype=bool)
    return known | histories.given if isinstance(histories, HistoriesWithTexts) else known


def recommend_or_fall_back(
    retriever: Retriever,
    popular: Callable[[], Retriever],
    histories: Histories,
    k: int,
    *,
    exclude: Histories | None = None,
    candidates: Bool[np.ndarray, " item"] | None = None,
) -> tuple[Recommendations, list[Source]]:
    """Return the k best items of each user, and their source; see `Retriever.recommend`.

    A user with neither a history nor a sentence gets those of `popular`, whose score is the number of training
    interactions; `popular` is called only if there is such a user.
    """
    known = is_known(histories)
    if known.all():
        return retriever.recommend(histories, k, exclude=exclude, candidates=candidates), ["model"] * len(known)
    items = np.full((len(known), k), -1, dtype=np.int64)
    scores = np.full((len(known), k), -np.inf, dtype=np.float32)
    rows = np.flatnonzero(known)
    if len(rows):
        left_out = None if exclude is None else [exclude[int(row)] for row in rows]
        found = retriever.recommend(some_of(histories, rows), k, exclude=left_out, candidates=candidates)
        items[rows], scores[rows] = found.items, found.scores
    best = popular().recommend([np.zeros(0, dtype=np.int64)], k, candidates=candidates)
    items[~known], scores[~known] = best.items, best.scores
    return Recommendations(items, scores), ["model" if each else "popularity" for each in known]
