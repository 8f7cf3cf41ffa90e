"""EASE is a linear autoencoder over items, solved in closed form."""

# Proved by tests/evaluation/test_baselines.py.

from itertools import pairwise
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.errors import ConfigError
from hllm.evaluation.baselines.matrices import history_matrix, training_matrix
from hllm.retrieval.histories import Histories

MAX_BYTES = 8e9


@final
class EASE:
    """Each item's score is a weighted sum over the history's items, by ridge regression on the training interactions.

    `regularization` is λ, in training users. Dense: three matrices of items by items in fp32 while it is solved, one
    afterwards; ConfigError beyond 8 GB, which is 25,819 items. Items with the same training users have the same weights
    to the last digit, so that they are level.

    Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, arXiv:1905.03375, equation 8.
    """

    def __init__(self, dataset: Dataset, split: Split, *, regularization: float = 500.0) -> None:
        if regularization <= 0:
            raise ConfigError(f"ease: regularization {regularization} must be above 0")
        num_bytes = 3 * 4 * dataset.num_items**2
        if num_bytes > MAX_BYTES:
            raise ConfigError(
                f"the baseline 'ease' solves a matrix of items by items: {num_bytes / 1e9:.0f} GB for "
                f"{dataset.num_items:,} items. Leave it out; 'item-knn' is close to it and sparse"
            )
        self.num_items = dataset.num_items
        matrix = training_matrix(dataset, split)
        gram = torch.from_numpy((matrix.T @ matrix).toarray())
        gram.diagonal().add_(regularization)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        # Contiguous by rows, which the solver's result is not: scipy would copy it for each product.
        self.weights: Float[np.ndarray, "item item"] = (inverse / -inverse.diagonal()).contiguous().numpy()
        _make_level(self.weights, matrix)
        np.fill_diagonal(self.weights, 0.0)

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return the sums of the weights of the history's distinct items."""
        scores: Float[np.ndarray, "user item"] = history_matrix(histories, self.num_items) @ self.weights
        return scores


def _make_level(weights: Float[np.ndarray, "item item"], matrix: sparse.csr_array) -> None:
    """Give items with the same users the weights of the first of them; the solver's differ by rounding."""
    by_item = matrix.T.tocsr()
    by_item.sort_indices()
    alike: dict[bytes, list[int]] = {}
    for item, (start, end) in enumerate(pairwise(by_item.indptr)):
        alike.setdefault(by_item.indices[start:end].tobytes(), []).append(item)
    for items in alike.values():
        if len(items) > 1:
            between = weights[items[0], items[1]]
            weights[:, items] = weights[:, items[:1]]
            weights[items] = weights[items[:1]]
            weights[np.ix_(items, items)] = between
