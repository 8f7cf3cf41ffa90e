"""The audience of a new item: the users to whom it would be offered first."""

# Proved by tests/test_api.py.

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hllm.retrieval.histories import Histories
from hllm.retrieval.query import Query
from hllm.retrieval.scorer import ModelScorer

_ROUNDING = 1e-6  # of fp32: the same text encoded alone and among others, or a product of another shape


def audience(
    scorer: ModelScorer, query: Query, users: Float[Tensor, "user dim"], item: Float[Tensor, "1 dim"], *, k: int
) -> pl.DataFrame:
    """Return the k users of `query`, whose vectors are `users`, to whom `item` would be offered first.

    The frame is user_id, score, rank: the place that the item would take in that user's own list of unseen items,
    behind those that score the same up to rounding. Users are ordered by that place, then by score.
    """
    score, above = _places(scorer, query.histories, users, item)
    order = np.lexsort((-score, above))[:k]
    return pl.DataFrame(
        {"user_id": query.ids[order], "score": score[order].astype(np.float64), "rank": above[order] + 1}
    )


def _places(
    scorer: ModelScorer, histories: Histories, users: Float[Tensor, "user dim"], item: Float[Tensor, "1 dim"]
) -> tuple[Float[np.ndarray, " user"], Int[np.ndarray, " user"]]:
    """Return the item's score for each user, and how many unseen items are as good or better."""
    queries, table = scorer.comparable(users), torch.cat([scorer.keys, scorer.comparable(item)])
    score, above = np.empty(len(histories)), np.empty(len(histories), dtype=np.int64)
    for user, history in enumerate(histories):
        scores = (table @ queries[user]).cpu().numpy()
        scores[history] = -np.inf
        score[user] = scores[-1]
        above[user] = (scores[:-1] >= scores[-1] - _ROUNDING * max(1.0, abs(score[user]))).sum()
    return score, above
