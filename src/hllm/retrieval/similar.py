"""Similar items: the nearest ones in the item tier's space, to items or to new texts."""

# Proved by tests/test_api.py.

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hllm.data.dataset import Dataset
from hllm.embedding.texts import ItemReader, ItemText
from hllm.retrieval.frame import frame_of
from hllm.retrieval.retriever import Recommendations
from hllm.retrieval.scorer import ModelScorer


def similar_to_items(
    scorer: ModelScorer, dataset: Dataset, items: Sequence[Any] | pl.Series, *, k: int
) -> pl.DataFrame:
    """Return the k items nearest to each of `items` as query (its id), item_id, score (cosine), rank.

    An item is not listed as similar to itself. Raises DataError for unknown items.
    """
    rows = dataset.item_rows(items)
    best = _nearest(scorer, scorer.unit[torch.from_numpy(rows)], k, leave_out=rows)
    return frame_of(dataset, {"query": dataset.item_ids[rows]}, best)


def similar_to_texts(
    scorer: ModelScorer, dataset: Dataset, texts: Sequence[ItemText], reader: ItemReader, *, k: int
) -> pl.DataFrame:
    """Return the same for new texts; the query is the text's position."""
    queries = F.normalize(reader.read(texts)[:, : scorer.dim], dim=-1, eps=1e-6)
    positions = pl.Series(range(len(queries)), dtype=pl.Int64)
    return frame_of(dataset, {"query": positions}, _nearest(scorer, queries, k, leave_out=None))


def _nearest(
    scorer: ModelScorer, queries: Float[Tensor, "query cut"], k: int, *, leave_out: Int[np.ndarray, " query"] | None
) -> Recommendations:
    """Return the k items with the highest cosines, less one item for each query."""
    scores = (queries @ scorer.unit.T).cpu().numpy()
    if leave_out is not None:
        scores[np.arange(len(scores)), leave_out] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Recommendations(best, np.take_along_axis(scores, best, axis=1))
