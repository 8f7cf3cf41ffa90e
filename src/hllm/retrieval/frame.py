"""Recommendations as a data frame with the caller's ids."""

# Proved by tests/test_recommend_known.py.

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import polars as pl

from hllm.data.dataset import Dataset
from hllm.retrieval.retriever import Recommendations

Source = Literal["model", "popularity"]
"""The origin of a recommendation; it stands beside each one."""


def recommended(dataset: Dataset, users: pl.Series, best: Recommendations, sources: Sequence[Source]) -> pl.DataFrame:
    """Return a frame user_id, item_id, score, rank, source; no row where fewer than k were found."""
    labels = pl.Series(sources, dtype=pl.String)
    return frame_of(dataset, {"user_id": users, "source": labels}, best).select(
        "user_id", "item_id", "score", "rank", "source"
    )


def frame_of(dataset: Dataset, queries: Mapping[str, pl.Series], best: Recommendations) -> pl.DataFrame:
    """Return a frame of the columns of `queries`, item_id, score and rank (from 1)."""
    mask = np.isfinite(best.scores)
    query = np.nonzero(mask)[0]
    rank = np.broadcast_to(np.arange(1, mask.shape[1] + 1), mask.shape)[mask]
    answer = {"item_id": dataset.item_ids[best.items[mask]], "score": best.scores[mask].astype(np.float64)}
    return pl.DataFrame({name: values[query] for name, values in queries.items()} | answer | {"rank": rank})
