"""The audience of a new item: the users to whom it would be offered first."""

# What the frame holds is proved by tests/test_api.py.

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hllm.retrieval.exact import USERS_PER_TILE
from hllm.retrieval.histories import Histories
from hllm.retrieval.query import Query
from hllm.retrieval.scorer import ModelScorer
from hllm.retrieval.tiles import Products, masked

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
    queries = scorer.comparable(users)
    score = (queries * scorer.comparable(item)).sum(-1)
    limit = (score - _ROUNDING * score.abs().clamp_min(1.0))[:, None]
    above = torch.zeros(len(score), dtype=torch.int64, device=score.device)
    for start in range(0, len(score), USERS_PER_TILE):
        tile = slice(start, start + USERS_PER_TILE)
        for _, values in masked(Products(queries[tile], scorer.keys), histories[tile], None):
            above[tile] += (values >= limit[tile]).count_nonzero(1)
    return score.cpu().numpy(), above.cpu().numpy()
