"""Similar items: the nearest ones in the item tier's space, to items or to new texts."""

# Proved by tests/test_api.py.

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hllm.data.dataset import Dataset
from hllm.embedding.texts import ItemReader, ItemText
from hllm.retrieval.exact import USERS_PER_TILE, best
from hllm.retrieval.frame import frame_of
from hllm.retrieval.retriever import Recommendations
from hllm.retrieval.scorer import ModelScorer
from hllm.retrieval.tiles import Products, masked


def similar_to_items(scorer: ModelScorer, dataset: Dataset, items: Iterable[Any], *, k: int) -> pl.DataFrame:
    """Return the k items nearest to each of `items` as query (its id), item_id, score (cosine), rank.

    An item is not listed as similar to itself. Raises DataError for unknown items.
    """
    rows = dataset.item_rows(items)
    nearest = _nearest(scorer, scorer.unit[torch.from_numpy(rows)], k, leave_out=rows[:, None])
    return frame_of(dataset, {"query": dataset.item_ids[rows]}, nearest)


def similar_to_texts(
    scorer: ModelScorer, dataset: Dataset, texts: Iterable[ItemText], reader: ItemReader, *, k: int
) -> pl.DataFrame:
    """Return the same for new texts; the query is the text's position."""
    queries = F.normalize(reader.read(texts)[:, : scorer.dim], dim=-1, eps=1e-6)
    positions = pl.Series(range(len(queries)), dtype=pl.Int64)
    nothing = np.zeros((len(queries), 0), dtype=np.int64)
    return frame_of(dataset, {"query": positions}, _nearest(scorer, queries, k, leave_out=nothing))


def _nearest(
    scorer: ModelScorer, queries: Float[Tensor, "query cut"], k: int, *, leave_out: Int[np.ndarray, "query out"]
) -> Recommendations:
    """Return the k items with the highest cosines, without those that are left out for a query."""
    k = min(k, scorer.num_items)
    parts = []
    for start in range(0, len(queries), USERS_PER_TILE):
        tile = slice(start, start + USERS_PER_TILE)
        products = Products(queries[tile], scorer.unit)
        parts.append(best(masked(products, list(leave_out[tile]), None), len(queries[tile]), k))
    none = Recommendations(np.zeros((0, k), dtype=np.int64), np.zeros((0, k), dtype=np.float32))
    items, scores = ([getattr(part, name) for part in (none, *parts)] for name in ("items", "scores"))
    return Recommendations(np.concatenate(items), np.concatenate(scores))
