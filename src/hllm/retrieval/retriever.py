"""What evaluation, the command line and services see of any recommender: a Retriever."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, overload, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm.data.dataset import Dataset
from hllm.metrics import TargetRanks

Histories = Sequence[Int[np.ndarray, " _"]]
"""Item indices of each user, oldest first."""


class LoggedHistories(Sequence[Int[np.ndarray, " _"]]):
    """Histories with the times and actions that the log has of them; a slice of them keeps these."""

    def __init__(
        self,
        items: Sequence[Int[np.ndarray, " _"]],
        times: Sequence[Int[np.ndarray, " _"]],
        actions: Sequence[Int[np.ndarray, " _"]],
    ) -> None:
        """Take, for each user, item indices, seconds since 1970 and positions in the dataset's action_names."""
        self.items = items
        self.times = times
        self.actions = actions

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, user: int) -> Int[np.ndarray, " _"]: ...
    @overload
    def __getitem__(self, user: slice) -> "LoggedHistories": ...
    def __getitem__(self, user: int | slice) -> "Int[np.ndarray, ' _'] | LoggedHistories":
        """Return one user's items, or the histories of some users."""
        if isinstance(user, slice):
            return LoggedHistories(self.items[user], self.times[user], self.actions[user])
        return self.items[user]


class HistoriesWithTexts(Sequence[Int[np.ndarray, " _"]]):
    """Histories that may each be followed by one more element: a sentence, known only by its vector.

    As a sequence they are the histories alone; a slice of them keeps the sentences.
    """

    def __init__(
        self,
        items: Sequence[Int[np.ndarray, " _"]],
        vectors: Float[Tensor, "user dim"],
        given: Bool[np.ndarray, " user"],
    ) -> None:
        """Take, for each user, item indices, a vector as the Item LLM gives it, and whether it counts."""
        self.items = items
        self.vectors = vectors
        self.given = given

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, user: int) -> Int[np.ndarray, " _"]: ...
    @overload
    def __getitem__(self, user: slice) -> "HistoriesWithTexts": ...
    def __getitem__(self, user: int | slice) -> "Int[np.ndarray, ' _'] | HistoriesWithTexts":
        """Return one user's items, or the histories of some users."""
        if isinstance(user, slice):
            return HistoriesWithTexts(self.items[user], self.vectors[user], self.given[user])
        return self.items[user]


def histories_of(dataset: Dataset, users: Int[np.ndarray, " user"], ends: Int[np.ndarray, " user"]) -> LoggedHistories:
    """Return what each of `users` did before the interaction at position `ends` of the dataset."""
    slices = [slice(int(dataset.offsets[user]), int(end)) for user, end in zip(users, ends, strict=True)]
    columns = (dataset.item_index, dataset.seconds_or_zero, dataset.actions)
    return LoggedHistories(*([column[s] for s in slices] for column in columns))


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
        exclude: Histories | None = None,
        candidates: Bool[np.ndarray, " item"] | None = None,
    ) -> Recommendations:
        """Return the k items with the highest scores, best first, equal scores in catalogue order.

        `exclude` holds items that a user must not get, such as those already seen; `candidates` is True for
        items that may be recommended at all.
        """

    def rank(self, histories: Histories, targets: Int[np.ndarray, " user"], exclude: Histories) -> TargetRanks:
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
