"""Recommend by chance, which any other recommender has to beat first."""

# Proved by tests/evaluation/test_baselines.py.

from typing import final

import numpy as np
from jaxtyping import Float

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.random import stream
from hllm.retrieval.histories import Histories


@final
class Random:
    """Every item has an equal chance; the same history gets the same scores in whatever order users are asked for."""

    def __init__(self, dataset: Dataset, split: Split, *, seed: int = 0) -> None:
        self.num_items = dataset.num_items
        self.seed = seed

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return numbers drawn evenly between 0 and 1, from a stream of each history's own."""
        scores = np.zeros((len(histories), self.num_items), dtype=np.float32)
        for row, items in zip(scores, histories, strict=True):
            key = np.asarray(items, dtype=np.int64).tobytes().hex()
            row[:] = stream(self.seed, "random baseline", key).random(self.num_items, dtype=np.float32)
        return scores
