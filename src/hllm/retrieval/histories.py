"""Histories: what each user did, oldest first; all that a recommender knows of a user."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final, overload

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm.data.dataset import Dataset

ItemLists = Sequence[Int[np.ndarray, " _"]]
"""Item indices for each user, such as those that must not be recommended."""

Rows = Int[np.ndarray, " chosen"] | Bool[np.ndarray, " user"] | slice


@final
@dataclass(frozen=True, eq=False)
class Histories(Sequence[Int[np.ndarray, " _"]]):
    """The elements of each user's history: items of the catalogue, and texts that stand between them.

    As a sequence they are each user's items alone, without the texts, and so they are item lists too.
    """

    items: ItemLists
    """Item indices, oldest first. The number -1 - n stands for row n of `texts`."""
    times: Sequence[Int[np.ndarray, " _"]] | None = None
    """Seconds since 1970 of each element; None if they are not known."""
    actions: Sequence[Int[np.ndarray, " _"]] | None = None
    """Positions in the dataset's action_names, for each element; None if they are not known."""
    texts: Float[Tensor, "text dim"] | None = None
    """Vectors of elements that are no items, as the Item LLM gives them. All users share these rows."""

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, users: int) -> Int[np.ndarray, " _"]: ...
    @overload
    def __getitem__(self, users: Rows) -> "Histories": ...
    def __getitem__(self, users: int | Rows) -> "Int[np.ndarray, ' _'] | Histories":
        """Return one user's items without the texts, or the whole histories of some users."""
        if isinstance(users, int | np.integer):
            items = self.items[int(users)]
            return items if self.texts is None else items[items >= 0]
        rows = np.arange(len(self))[users].tolist()
        return self._each(lambda column: [column[row] for row in rows])

    @property
    def lengths(self) -> Int[np.ndarray, " user"]:
        """Return the number of each user's elements, texts included."""
        return np.array([len(own) for own in self.items], dtype=np.int64)

    @property
    def known(self) -> Bool[np.ndarray, " user"]:
        """Return which users have at least one element."""
        return self.lengths > 0

    def latest(self, number: int) -> "Histories":
        """Return the latest `number` elements of each history, or all where there are fewer."""
        return self._each(lambda column: [own[max(0, len(own) - number) :] for own in column])

    def _each(self, change: Callable[[ItemLists], ItemLists]) -> "Histories":
        times, actions = (None if column is None else change(column) for column in (self.times, self.actions))
        return Histories(change(self.items), times, actions, self.texts)


def histories_of(dataset: Dataset, users: Int[np.ndarray, " user"], ends: Int[np.ndarray, " user"]) -> Histories:
    """Return what each of `users` did before the interaction at position `ends` of the dataset."""
    slices = [slice(int(dataset.offsets[user]), int(end)) for user, end in zip(users, ends, strict=True)]
    columns = (dataset.item_index, dataset.seconds_or_zero, dataset.actions)
    items, times, actions = ([column[s] for s in slices] for column in columns)
    return Histories(items, times, actions)
