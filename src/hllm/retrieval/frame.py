"""Recommendations as a data frame with the caller's ids."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import polars as pl

from hllm.data.dataset import Dataset
from hllm.retrieval.retriever import Recommendations

Source = Literal["model", "popularity"]
"""Where a recommendation comes from; it stands beside each one."""


def recommended(dataset: Dataset, users: pl.Series, found: Recommendations, sources: Sequence[Source]) -> pl.DataFrame:
    """Return a frame user_id, item_id, score, rank, source; no row where fewer than k were found."""
    labels = pl.Series(sources, dtype=pl.String)
    return frame_of(dataset, {"user_id": users, "source": labels}, found).select(
        "user_id", "item_id", "score", "rank", "source"
    )


def frame_of(dataset: Dataset, queries: Mapping[str, pl.Series], found: Recommendations) -> pl.DataFrame:
    """Return a frame of what is known of each query, item_id, score and rank (from 1)."""
    kept = np.isfinite(found.scores)
    query = np.nonzero(kept)[0]
    rank = np.broadcast_to(np.arange(1, kept.shape[1] + 1), kept.shape)[kept]
    answer = {"item_id": dataset.item_ids[found.items[kept]], "score": found.scores[kept].astype(np.float64)}
    return pl.DataFrame({name: values[query] for name, values in queries.items()} | answer | {"rank": rank})
