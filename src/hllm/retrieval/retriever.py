"""The Retriever: the one view of a recommender that evaluation, the command line and services have."""

# Proved by tests/retrieval/index/test_index.py.

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm.metrics import TargetRanks
from hllm.retrieval.histories import Histories, ItemLists


@dataclass(frozen=True)
class Recommendations:
    """The k best items for each user; rows end early (-1, -inf) where fewer may be recommended."""

    items: Int[np.ndarray, "user k"]
    scores: Float[np.ndarray, "user k"]


@runtime_checkable
class Retriever(Protocol):
    """Ranks the whole catalogue for histories."""

    def recommend(
        self,
        histories: Histories,
        k: int,
        *,
        exclude: ItemLists | None = None,
        candidates: Bool[np.ndarray, " item"] | None = None,
    ) -> Recommendations:
        """Return the k items with the highest scores, best first, equal scores in catalogue order.

        `exclude` holds items that a user must not get, such as those already seen; `candidates` is True for
        items that may be recommended at all.
        """

    def rank(self, histories: Histories, targets: Int[np.ndarray, " user"], exclude: ItemLists) -> TargetRanks:
        """Return where each user's target stands among all items but the excluded ones.

        An excluded target cannot be recommended: its `better` is UNREACHABLE, a miss at every cut-off.
        """


@runtime_checkable
class Scorer(Protocol):
    """Gives every item of the catalogue a score for each history: all that an exact Retriever needs."""

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return a new array of finite scores; higher is better."""


@runtime_checkable
class VectorScorer(Scorer, Protocol):
    """A Scorer whose scores are dot products, which an exact Retriever can compute a tile of items at a time."""

    @property
    def keys(self) -> Float[Tensor, "item dim"]:
        """One fp32 vector for each item of the catalogue."""

    def queries(self, histories: Histories) -> Float[Tensor, "user dim"]:
        """Return fp32 vectors on the keys' device, whose dot products with `keys` are the scores."""
