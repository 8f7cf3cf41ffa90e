"""What the lists themselves are like, besides whether the target is in them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.retrieval.retriever import Histories, Retriever


@dataclass(frozen=True)
class Lists:
    """The first items of each list, best first, -1 where it ends early, and what they may be held against."""

    items: Int[np.ndarray, "target k"]
    histories: Histories
    dataset: Dataset
    train_counts: Int[np.ndarray, " item"]
    """Training interactions of each item of the catalogue."""


def _coverage(lists: Lists) -> float:
    """Share of the catalogue that is in any list."""
    return len(np.unique(lists.items[lists.items >= 0])) / lists.dataset.num_items


def _popularity(lists: Lists) -> float:
    """Mean training interactions of a listed item."""
    return float(lists.train_counts[lists.items[lists.items >= 0]].mean())


LIST_METRICS: dict[str, Callable[[Lists], float]] = {"coverage": _coverage, "popularity": _popularity}
"""Numbers of the first k of all lists together."""


def list_metrics(
    retriever: Retriever, histories: Histories, dataset: Dataset, split: Split, cutoffs: tuple[int, ...]
) -> dict[str, float]:
    """Return each metric of the lists at each cut-off, under names such as "coverage@10"."""
    found = retriever.recommend(histories, max(cutoffs), exclude=histories).items
    counts = split.train_counts(dataset)
    return {
        f"{name}@{k}": metric(Lists(found[:, :k], histories, dataset, counts))
        for name, metric in LIST_METRICS.items()
        for k in cutoffs
    }
