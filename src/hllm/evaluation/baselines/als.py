"""ALS factorises a matrix of implicit feedback by alternating least squares, through the library `implicit`."""

# Proved by tests/evaluation/test_baselines.py.

from typing import final

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.evaluation.baselines.matrices import history_matrix, training_matrix
from hllm.extras import require
from hllm.retrieval.histories import Histories
from hllm.retrieval.tiles import dot_products


@final
class ALS:
    """The product of a user's and an item's factors; a user's are solved for from the history, the items' learnt.

    Every training interaction counts `alpha` times a missing one. One thread and a fixed seed: the same numbers each
    time. Raises MissingExtraError without the library.

    Source: Hu, Koren & Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        *,
        factors: int = 64,
        regularization: float = 0.01,
        alpha: float = 1.0,
        iterations: int = 15,
    ) -> None:
        require("implicit", extra="baselines", purpose="The baseline 'als'")
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        self.num_items = dataset.num_items
        with threadpool_limits(1, "blas"):  # as the library asks for: its own threads do the work
            self.model = AlternatingLeastSquares(
                factors=factors,
                regularization=regularization,
                alpha=alpha,
                iterations=iterations,
                num_threads=1,
                random_state=0,
            )
            self.model.fit(sparse.csr_matrix(training_matrix(dataset, split)), show_progress=False)

        self.keys = torch.from_numpy(self.model.item_factors)

    def queries(self, histories: Histories) -> Float[Tensor, "user dim"]:
        """Return the factors of these histories' users; zeros for an empty one."""
        held = sparse.csr_matrix(history_matrix(histories, self.num_items))  # the library knows no csr_array
        return torch.from_numpy(self.model.recalculate_user(np.arange(len(histories)), held))

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return the products with the factors of these histories; 0 throughout for an empty one."""
        return dot_products(self.queries(histories), self.keys)
