"""These baselines count which items stand together in histories: walks of three steps, and nearest neighbours."""

# Proved by tests/evaluation/test_baselines.py.

from typing import final

import numpy as np
from jaxtyping import Float
from scipy import sparse

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.errors import ConfigError
from hllm.evaluation.baselines.matrices import history_matrix, training_matrix
from hllm.retrieval.histories import Histories

MAX_PAIRS = 500_000_000  # 8 bytes each: 4 GB
_ROWS = 1024


@final
class CoOccurrence:
    """The number of walks user, item, user, item from a history to each item: A·AᵀA + 3·A.

    A holds the training interactions as ones. An item that the history lacks gets the number of pairs (training
    user, item of the history) where that user has both; the second term counts only for items of the history.
    Raises ConfigError if the pairs of items would not fit in 4 GB.

    Source: GTE with k = 3 ("How Expressive are Graph Neural Networks in Recommendation?", CIKM 2023, arXiv:2308.11127).
    Differs from the reference: the user's row of A is the history before the target, which may hold more than the
    user's training interactions.
    """

    def __init__(self, dataset: Dataset, split: Split) -> None:
        self.num_items = dataset.num_items
        matrix = training_matrix(dataset, split)
        pairs = min(int((np.diff(matrix.indptr).astype(np.int64) ** 2).sum()), self.num_items**2)
        if pairs > MAX_PAIRS:
            raise ConfigError(
                f"the baseline 'co-occurrence' holds how often two items stand in one history: up to {pairs:,} pairs, "
                f"{8 * pairs / 1e9:.0f} GB. Leave it out; 'item-knn' keeps only each item's nearest"
            )
        self.together = (matrix.T @ matrix).tocsr()

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return the sum over the history's distinct items of their co-occurrences with each item, and 3 for each."""
        held = history_matrix(histories, self.num_items)
        scores: Float[np.ndarray, "user item"] = (held @ self.together + 3 * held).toarray()
        return scores


@final
class ItemKNN:
    """The sum of cosines between an item and those of the history's items that have it among their nearest.

    Two items are compared by the training users that have them: c / (√(a·b) + shrinkage), where c users have both, a
    the one and b the other. Each item keeps its `neighbours` nearest, and all that are level with the last of them.
    Shrinkage holds down pairs that few users have. Memory: the neighbours, and 1,024 rows of items by items at a time.

    Source: item-based top-N recommendation, Deshpande & Karypis, ACM TOIS 22(1), 2004; the shrinkage as in Ferrari
    Dacrema et al., RecSys 2019, arXiv:1907.06902, section 3.2.
    """

    def __init__(self, dataset: Dataset, split: Split, *, neighbours: int = 100, shrinkage: float = 0.0) -> None:
        if neighbours < 1 or shrinkage < 0:
            raise ConfigError(
                f"item-knn: neighbours {neighbours} must be at least 1, and shrinkage {shrinkage} not below 0"
            )
        self.num_items = dataset.num_items
        matrix = training_matrix(dataset, split)
        by_item = matrix.T.tocsr()
        norms = np.sqrt(np.diff(by_item.indptr)).astype(np.float32)
        rows = [
            _nearest(by_item[start : start + _ROWS] @ matrix, start, norms, neighbours, shrinkage)
            for start in range(0, self.num_items, _ROWS)
        ]
        self.nearest = sparse.vstack(rows, format="csr")

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return the sums of cosines; 0 for an item that is near nothing in the history."""
        scores: Float[np.ndarray, "user item"] = (history_matrix(histories, self.num_items) @ self.nearest).toarray()
        return scores


def _nearest(
    together: sparse.csr_array, start: int, norms: Float[np.ndarray, " item"], neighbours: int, shrinkage: float
) -> sparse.csr_array:
    """Turn rows of co-occurrences, the first of them of item `start`, into the cosines of each item's nearest."""
    rows = np.repeat(np.arange(together.shape[0]), np.diff(together.indptr))
    columns = together.indices
    cosine = together.data / (norms[start + rows] * norms[columns] + np.float32(shrinkage))
    cosine[columns == start + rows] = 0.0  # an item is no neighbour of its own
    for begin, end in zip(together.indptr[:-1], together.indptr[1:], strict=True):
        values = cosine[begin:end]
        if len(values) > neighbours:
            values[values < np.partition(values, -neighbours)[-neighbours]] = 0.0
    kept = sparse.csr_array((cosine, columns, together.indptr), shape=together.shape)
    kept.eliminate_zeros()
    return kept
