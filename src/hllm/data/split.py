"""Splits of a Dataset into training interactions and one validation and one test target for a user.

In every split a user's training interactions are the oldest ones, a target's history is everything the user
did before it, and the validation target is older than the test target.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int
from pydantic import Field

from hllm import artifacts
from hllm.config import Config
from hllm.data.dataset import Dataset
from hllm.errors import DataError

NONE = -1


class SplitConfig(Config):
    """How interactions are divided between training, validation and test."""

    kind: Literal["leave-one-out", "temporal"] = "leave-one-out"
    """"leave-one-out": each user's last item is the test target, the one before it the validation target.
    "temporal": interactions before one moment are for training; see the two shares below."""
    min_length: int = Field(default=3, ge=2)
    """Leave-one-out only: users with fewer interactions are for training alone. With 2 a user may be asked for its
    second item with no history at all, as in the HLLM paper's code."""
    validation_share: float = 0.1
    """Temporal only: share of all interactions, by time, between the training cut and the test cut."""
    test_share: float = 0.1
    """Temporal only: share of all interactions, by time, after the test cut."""


@dataclass(frozen=True)
class Split:
    """Positions into each user's own history; NONE where a user has no such target."""

    kind: str
    train_end: Int[np.ndarray, " user"]
    """A user's interactions before this position are for training."""
    validation: Int[np.ndarray, " user"]
    """Position of the validation target."""
    test: Int[np.ndarray, " user"]
    """Position of the test target."""

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of the kind and of every position."""
        arrays = [artifacts.digest_of_integers(a) for a in (self.train_end, self.validation, self.test)]
        return artifacts.fingerprint([self.kind, *arrays])

    def targets(self, part: Literal["validation", "test"]) -> Int[np.ndarray, " user"]:
        """Return the target positions of one part, NONE for users without one."""
        return self.validation if part == "validation" else self.test

    def train_counts(self, dataset: Dataset) -> Int[np.ndarray, " item"]:
        """Return how often each item occurs in the training interactions."""
        return np.bincount(self.training_log(dataset)[1], minlength=dataset.num_items)

    def training_log(self, dataset: Dataset) -> tuple[Int[np.ndarray, " event"], Int[np.ndarray, " event"]]:
        """Return user_index and item_index of every training interaction; a user's stand together, oldest first."""
        inside = self.in_training(dataset)
        users = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
        return users[inside], dataset.item_index[inside]

    def in_training(self, dataset: Dataset) -> Bool[np.ndarray, " interaction"]:
        """Return which interactions are for training."""
        lengths = np.diff(dataset.offsets)
        position = np.arange(dataset.num_interactions) - np.repeat(dataset.offsets[:-1], lengths)
        inside: Bool[np.ndarray, " interaction"] = position < np.repeat(self.train_end, lengths)
        return inside


def split_dataset(dataset: Dataset, config: SplitConfig) -> Split:
    """Split as configured. Raises DataError if nothing is left to train on or no target is left to test."""
    split = _leave_one_out(dataset, config.min_length) if config.kind == "leave-one-out" else _temporal(dataset, config)
    if (split.train_end < 2).all():
        raise DataError(
            f"the {config.kind} split leaves no user with two training interactions, so nothing to learn from; "
            f"the longest of {dataset.num_users:,} histories has {np.diff(dataset.offsets).max()} interactions in all"
        )
    for part in ("validation", "test"):
        if (split.targets(part) == NONE).all():
            raise DataError(f"the {config.kind} split leaves no {part} target; more interactions are needed")
    return split


def _leave_one_out(dataset: Dataset, min_length: int) -> Split:
    """Split off the last two items of each user that has enough."""
    lengths = np.diff(dataset.offsets)
    enough = lengths >= min_length
    return Split(
        kind="leave-one-out",
        train_end=np.where(enough, lengths - 2, lengths),
        validation=np.where(enough, lengths - 2, NONE),
        test=np.where(enough, lengths - 1, NONE),
    )


def _temporal(dataset: Dataset, config: SplitConfig) -> Split:
    """Cut at two moments, the same for all users; a target is the user's last item in its period.

    An interaction at the very moment of a cut falls after it, so nothing in training is as late as a target.
    A target needs a history: a user's first interaction is never one.
    """
    shares = (1.0 - config.validation_share - config.test_share, 1.0 - config.test_share)
    if not 0.0 < shares[0] < shares[1] < 1.0:
        raise DataError(
            f"split: validation_share {config.validation_share} and test_share {config.test_share} must be above 0 "
            "and leave a share for training"
        )
    if dataset.timestamps.min() == dataset.timestamps.max():
        raise DataError('split.kind = "temporal" needs real times: all interactions have the same one')
    in_order = np.sort(dataset.timestamps)
    validation_cut, test_cut = (int(in_order[int(share * len(in_order))]) for share in shares)
    starts = dataset.offsets[:-1]
    users = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))

    def number_before(moment: int) -> Int[np.ndarray, " user"]:
        return np.bincount(users[dataset.timestamps < moment], minlength=dataset.num_users)

    train_end, validation_end = number_before(validation_cut), number_before(test_cut)
    test_end = dataset.offsets[1:] - starts

    def last_of(begin: Int[np.ndarray, " user"], end: Int[np.ndarray, " user"]) -> Int[np.ndarray, " user"]:
        return np.where((end > begin) & (end > 1), end - 1, NONE)

    return Split("temporal", train_end, last_of(train_end, validation_end), last_of(validation_end, test_end))
