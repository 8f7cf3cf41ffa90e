"""Histories: what each user did, oldest first."""

from collections.abc import Sequence
from typing import overload

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm.data.dataset import Dataset

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


def some_of(histories: Histories, rows: Int[np.ndarray, " user"]) -> Histories:
    """Return the histories of some users, with all that is known of them."""
    if isinstance(histories, LoggedHistories):
        columns = (histories.items, histories.times, histories.actions)
        return LoggedHistories(*([column[int(row)] for row in rows] for column in columns))
    items = [histories[int(row)] for row in rows]
    if isinstance(histories, HistoriesWithTexts):
        return HistoriesWithTexts(items, histories.vectors[rows], histories.given[rows])
    return items
