"""Recommend by first-order transitions: what followed the last item."""

# Proved by tests/evaluation/test_baselines.py.

from typing import final

import numpy as np
from jaxtyping import Float
from scipy import sparse

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.retrieval.histories import Histories


@final
class Markov:
    """Score items by how often they came next after the last item in training; popularity below 1 breaks ties.

    Most items never followed a given one, so most scores would be level at 0: there the popular ones go first.

    Source: first-order transition counts, as the MC baseline of Rendle et al., WWW 2010, section 4.
    """

    def __init__(self, dataset: Dataset, split: Split) -> None:
        self.num_items = dataset.num_items
        users, items = split.training_log(dataset)
        same = users[:-1] == users[1:]
        before, after = items[:-1][same], items[1:][same]
        counts = split.train_counts(dataset)
        self.popularity = (counts / (1.0 + counts.max())).astype(np.float32)
        # Equal pairs are added up when the matrix is made.
        shape = (self.num_items, self.num_items)
        self.follows = sparse.csr_array((np.ones(len(before), dtype=np.float32), (before, after)), shape=shape)

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return transition counts from the last item, plus the popularity; that alone for an empty history."""
        scores = np.tile(self.popularity, (len(histories), 1))
        known = np.array([row for row, items in enumerate(histories) if len(items)], dtype=np.int64)
        last = np.array([int(histories[row][-1]) for row in known.tolist()], dtype=np.int64)
        scores[known] += self.follows[last].toarray()
        return scores
