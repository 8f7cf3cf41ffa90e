"""Make sparse matrices of zeros and ones: which user did something with which item."""

# Proved by tests/evaluation/test_baselines.py.

import numpy as np
from jaxtyping import Int
from scipy import sparse

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.retrieval.histories import Histories


def training_matrix(dataset: Dataset, split: Split) -> sparse.csr_array:
    """Return users by items: 1 where the user has the item among its training interactions, however often."""
    users, items = split.training_log(dataset)
    return _ones(users, items, (dataset.num_users, dataset.num_items))


def history_matrix(histories: Histories, num_items: int) -> sparse.csr_array:
    """Return histories by items: 1 where the history holds the item, however often."""
    rows = np.repeat(np.arange(len(histories)), [len(items) for items in histories])
    items = np.concatenate([np.zeros(0, dtype=np.int64), *histories])
    return _ones(rows, items, (len(histories), num_items))


def _ones(
    rows: Int[np.ndarray, " entry"], columns: Int[np.ndarray, " entry"], shape: tuple[int, int]
) -> sparse.csr_array:
    matrix = sparse.csr_array((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix
