"""A Split divides a Dataset into training interactions, validation targets and test targets.

The history of a target is everything that the user did before it, whatever part that is in: what a server would know.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Int
from pydantic import BeforeValidator, Field

from hllm.data.cuts.column import ColumnSplit
from hllm.data.cuts.held_out_items import ItemSplit
from hllm.data.cuts.held_out_users import UserSplit
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.cuts.ratio import RatioSplit
from hllm.data.cuts.temporal import TemporalSplit
from hllm.data.dataset import Dataset
from hllm.errors import DataError


def _with_kind(values: Any) -> Any:
    return {"kind": "leave-one-out", **values} if isinstance(values, Mapping) else values


SplitConfig = Annotated[
    Annotated[
        LeaveOneOutSplit | TemporalSplit | RatioSplit | UserSplit | ItemSplit | ColumnSplit, Field(discriminator="kind")
    ],
    BeforeValidator(_with_kind),
]
"""A split's kind and options. Without `kind`, it is leave-one-out."""


@dataclass(frozen=True)
class Split:
    """A Split says which interactions are for training and which are targets; some may be neither."""

    kind: str
    training: Bool[np.ndarray, " interaction"]
    """True for each interaction that is for training."""
    validation: Int[np.ndarray, " validation_target"]
    """Positions of the validation targets among all interactions, ascending; a user may have several."""
    test: Int[np.ndarray, " test_target"]
    """Positions of the test targets, likewise; none is a validation target."""
    withheld_items: Int[np.ndarray, " withheld_item"] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Items that training must not see at all, ascending."""

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of the kind, of the training interactions and of every target."""
        digest = hashlib.sha256(f"{self.kind} {len(self.training)} {len(self.validation)} {len(self.test)}".encode())
        digest.update(np.packbits(self.training).tobytes())
        for positions in (self.validation, self.test):
            digest.update(positions.astype("<i8").tobytes())
        return digest.hexdigest()

    def targets(self, part: Literal["validation", "test"]) -> Int[np.ndarray, " target"]:
        """Return the positions of one part's targets among all interactions, ascending."""
        return self.validation if part == "validation" else self.test

    def train_counts(self, dataset: Dataset) -> Int[np.ndarray, " item"]:
        """Return how often each item occurs in the training interactions."""
        return np.bincount(self.training_log(dataset)[1], minlength=dataset.num_items)

    def withheld(self, dataset: Dataset) -> Bool[np.ndarray, " item"]:
        """Return True for each item that training must not see at all."""
        withheld = np.zeros(dataset.num_items, dtype=bool)
        withheld[self.withheld_items] = True
        return withheld

    def training_lengths(self, dataset: Dataset) -> Int[np.ndarray, " user"]:
        """Return how many training interactions each user has."""
        return np.diff(np.concatenate([[0], np.cumsum(self.training)])[dataset.offsets])

    def training_log(self, dataset: Dataset) -> tuple[Int[np.ndarray, " event"], Int[np.ndarray, " event"]]:
        """Return user_index and item_index of every training interaction; a user's stand together, oldest first."""
        users = np.repeat(np.arange(dataset.num_users), self.training_lengths(dataset))
        return users, dataset.item_index[self.training]

    def describe(self, dataset: Dataset) -> dict[str, int]:
        """Return the number of interactions in each part, which add up to all, and of users with any in it.

        "unused" are those that are only ever part of histories.
        """
        num_targets = len(self.validation) + len(self.test)
        training = self.training_lengths(dataset)

        def users_of(positions: Int[np.ndarray, " _"]) -> int:
            return len(np.unique(np.searchsorted(dataset.offsets, positions, side="right")))

        return {
            "training": int(training.sum()),
            "validation": len(self.validation),
            "test": len(self.test),
            "unused": dataset.num_interactions - int(training.sum()) - num_targets,
            "training_users": int((training > 0).sum()),
            "validation_users": users_of(self.validation),
            "test_users": users_of(self.test),
        }


def split_dataset(dataset: Dataset, config: SplitConfig) -> Split:
    """Split as configured.

    Raises DataError if the data do not bear such a split, if there is nothing to learn from, or if a part has no
    target; ConfigError for split.kind = "column" without data.split_col.
    """
    cut = config.cut(dataset)
    split = Split(config.kind, cut.training, cut.validation, cut.test, cut.withheld_items)
    if split.training_lengths(dataset).max() < 2:
        raise DataError(
            f"the {config.kind} split leaves no user with two training interactions, so nothing to learn from; "
            f"the longest of {dataset.num_users:,} histories has {np.diff(dataset.offsets).max()} interactions in all"
        )
    for part in ("validation", "test"):
        if not len(split.targets(part)):
            raise DataError(f"the {config.kind} split leaves no {part} target; more interactions are needed")
    return split


def require_two_items(dataset: Dataset, split: Split) -> None:
    """Raise DataError if training meets one item alone: a model would learn nothing, and say so nowhere."""
    if len(np.unique(dataset.item_index[split.training])) < 2:
        raise DataError(
            f"all {int(split.training.sum()):,} training interactions are with one item, so there is nothing to tell "
            "apart; interactions with two items at least are needed"
        )


def options_of(config: SplitConfig) -> dict[str, Any]:
    """Return the settings of a split besides its kind, those that are set, as JSON-able values."""
    return config.model_dump(mode="json", exclude={"kind"}, exclude_none=True)
