"""Targets are what every recommender is asked for; groups of them have numbers of their own."""

# Proved by tests/evaluation/test_evaluate.py.

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.errors import ConfigError, nearest
from hllm.evaluation.protocol import EvaluationConfig
from hllm.metrics import slices

Groups = dict[str, Bool[np.ndarray, " target"]]


@dataclass(frozen=True)
class Targets:
    """One row for each target; the rows are the same for all recommenders under one protocol."""

    user_ids: pl.Series
    item_ids: pl.Series
    history_length: Int[np.ndarray, " target"]
    """Interactions of the user before the target."""
    num_ranked: Int[np.ndarray, " target"]
    """Items that the target is ranked among, itself included."""
    groups: Mapping[str, Bool[np.ndarray, " target"]]
    """Mask of the targets of each group, such as "cold items"."""

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def users(self) -> Int[np.ndarray, " target"]:
        """Return a number for each target that is equal for targets of one user."""
        ids = self.user_ids.alias("id")
        numbering = ids.unique(maintain_order=True).to_frame().with_row_index("number")
        numbers = ids.to_frame().join(numbering, on="id", how="left", maintain_order="left")["number"]
        return numbers.cast(pl.Int64).to_numpy()

    def only(self, members: Bool[np.ndarray, " target"]) -> "Targets":
        """Return some of the targets."""
        mask = pl.Series(members)
        return Targets(
            user_ids=self.user_ids.filter(mask),
            item_ids=self.item_ids.filter(mask),
            history_length=self.history_length[members],
            num_ranked=self.num_ranked[members],
            groups={name: group[members] for name, group in self.groups.items()},
        )

    def first_of_users(self) -> "Targets":
        """Return the first target of each user."""
        first = np.zeros(len(self), dtype=bool)
        first[np.unique(self.users, return_index=True)[1]] = True
        return self.only(first)

    def group(self, name: str | None) -> Bool[np.ndarray, " target"]:
        """Return which targets are in a group, None being all of them; ConfigError if it was not asked for."""
        if name is None:
            return np.ones(len(self), dtype=bool)
        if name not in self.groups:
            raise ConfigError(
                f"unknown slice {name!r}{nearest(name, self.groups)}; evaluated were: {', '.join(self.groups)}"
            )
        return self.groups[name]


@dataclass(frozen=True)
class Asked:
    """Facts from which the groups are made."""

    dataset: Dataset
    split: Split
    config: EvaluationConfig
    items: Int[np.ndarray, " target"]
    """Each target's item_index."""
    interactions: Int[np.ndarray, " target"]
    """Each target's position among all interactions."""
    history_length: Int[np.ndarray, " target"]


def _cold_items(targets: Asked) -> Groups:
    return {"cold items": is_cold(targets.dataset, targets.split, targets.items, targets.config)}


def _popularity(targets: Asked) -> Groups:
    counts = targets.split.train_counts(targets.dataset)
    return {f"{name} items": members for name, members in slices.popularity_slices(counts, targets.items).items()}


def _history_length(targets: Asked) -> Groups:
    return {f"history {name}": members for name, members in slices.length_slices(targets.history_length).items()}


def _item_age(targets: Asked) -> Groups:
    dataset, training = targets.dataset, targets.split.training
    first = slices.first_seen(dataset.item_index[training], dataset.seconds[training], dataset.num_items)
    ages = slices.age_slices(first, targets.items, dataset.seconds[targets.interactions])
    return {f"item age {name}": members for name, members in ages.items()}


SLICES: dict[str, Callable[[Asked], Groups]] = {
    "cold items": _cold_items,
    "popularity": _popularity,
    "history length": _history_length,
    "item age": _item_age,
}
"""For each name that `EvaluationConfig.slices` may hold, the groups it makes. They are stored with the ranks."""


def groups_of(asked: Asked) -> Groups:
    """Return the targets of each group that the config asks for, empty groups too."""
    return {name: members for family in asked.config.slices for name, members in SLICES[family](asked).items()}


def is_cold(
    dataset: Dataset, split: Split, items: Int[np.ndarray, " target"], config: EvaluationConfig
) -> Bool[np.ndarray, " target"]:
    """Return which targets have at most `cold_at_most` training interactions."""
    cold: Bool[np.ndarray, " target"] = split.train_counts(dataset)[items] <= config.cold_at_most
    return cold
