"""Recommenders without training, to be beaten: popularity, item co-occurrence, first-order Markov."""

from collections.abc import Callable
from typing import final

import numpy as np
from jaxtyping import Float, Int

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.errors import ConfigError
from hllm.retrieval.retriever import Histories


@final
class Popularity:
    """Every user gets the items that occur most often in the training interactions."""

    def __init__(self, dataset: Dataset, split: Split) -> None:
        self.counts = split.train_counts(dataset).astype(np.float32)
        self.num_items = dataset.num_items

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return the counts, the same for all."""
        return np.tile(self.counts, (len(histories), 1))


@final
class CoOccurrence:
    """How many (training user, history item) pairs lead from the history to an item: a walk of three steps.

    Source: the learning-free optimum of GTE ("How Expressive are Graph Neural Networks in Recommendation?",
    CIKM 2023) with k = 3, which after removing seen items is A·AᵀA.
    """

    def __init__(self, dataset: Dataset, split: Split) -> None:
        self.num_items = dataset.num_items
        self.together = _square(dataset, "co-occurrence")
        for history in _training_histories(dataset, split):
            items = np.unique(history)
            self.together[np.ix_(items, items)] += 1.0

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return the sum over the history's items of their co-occurrences with each item."""
        return np.stack([self.together[np.unique(items)].sum(0) for items in histories])


@final
class Markov:
    """How often an item followed the history's last item in training, popularity breaking ties.

    Source: first-order transition counts, as the MC baseline of Rendle et al., WWW 2010, section 4.
    """

    def __init__(self, dataset: Dataset, split: Split) -> None:
        self.num_items = dataset.num_items
        self.follows = _square(dataset, "markov")
        for items in _training_histories(dataset, split):
            np.add.at(self.follows, (items[:-1], items[1:]), 1.0)
        counts = split.train_counts(dataset)
        self.popularity = (counts / (1.0 + counts.max())).astype(np.float32)

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return transition counts from the last item plus a popularity below 1."""
        rows = [self.follows[items[-1]] if len(items) else np.zeros_like(self.popularity) for items in histories]
        scores: Float[np.ndarray, "user item"] = np.stack(rows) + self.popularity
        return scores


BASELINES: dict[str, Callable[[Dataset, Split], Popularity | CoOccurrence | Markov]] = {
    "popularity": Popularity,
    "co-occurrence": CoOccurrence,
    "markov": Markov,
}


def _training_histories(dataset: Dataset, split: Split) -> list[Int[np.ndarray, " _"]]:
    """Return the items of each user's training interactions, oldest first."""
    return np.split(split.training_log(dataset)[1], np.cumsum(split.training_lengths(dataset))[:-1])


def _square(dataset: Dataset, name: str) -> Float[np.ndarray, "item item"]:
    """Return an empty matrix of items by items; ConfigError beyond 4 GB."""
    num_bytes = 4 * dataset.num_items**2
    if num_bytes > 4e9:
        raise ConfigError(
            f"the baseline {name!r} holds a matrix of items by items: {num_bytes / 1e9:.0f} GB for "
            f"{dataset.num_items:,} items. Leave it out: --baselines popularity"
        )
    return np.zeros((dataset.num_items, dataset.num_items), dtype=np.float32)


def cold_items(dataset: Dataset, split: Split, at_most: int) -> Int[np.ndarray, " item"]:
    """Return the items with at most that many training interactions."""
    return np.flatnonzero(split.train_counts(dataset) <= at_most)
