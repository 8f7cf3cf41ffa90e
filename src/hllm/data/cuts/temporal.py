"""Split by time: interactions before one moment are for training, the same moment for all users.

An interaction at the very moment of a cut falls after it, so nothing in training is as late as a target. Nor does
training know the items that are first met after it: they are withheld, as nobody could have known them.

Source: validation by last training item and by user, Gusak et al., RecSys 2025, arXiv:2507.16289.
"""

# Proved by tests/data/test_split.py.

import math
from dataclasses import replace
from datetime import date
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from jaxtyping import Int
from pydantic import Field, field_validator, model_validator

from hllm.config import Config
from hllm.data.cuts.cut import (
    Cut,
    InteractionMask,
    TargetChoice,
    choose_targets,
    draw,
    has_history,
    require_a_share_for_training,
    user_of_each,
    with_targets,
)
from hllm.data.dataset import Dataset
from hllm.data.reading.times import as_moment
from hllm.errors import DataError


class TemporalSplit(Config):
    """Interactions before one moment are for training, the same moment for all users."""

    kind: Literal["temporal"] = "temporal"
    targets: TargetChoice = "last"
    """A user's held-out interactions that are targets: the "last", the "first", "all", or one at "random". A
    user's very first interaction has no history and is never a target."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share held out for validation: of all interactions by time, or of the users with validation = "users"."""
    test_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of all interactions that is held out for the test: the latest ones."""
    validation: Literal["time", "last-training-item", "users"] = "time"
    """"time": validation targets lie between two moments. "last-training-item": each user's last item before the
    moment of the test. "users": the same of a share of the users, none of whose interactions is for training."""
    validation_from: str | int | float | None = None
    """First moment of the validation, in place of validation_share. A date such as "2024-05-31" or
    "2024-05-31 12:00", in UTC unless it says otherwise, or a number of seconds since 1970."""
    test_from: str | int | float | None = None
    """First moment of the test, in place of test_share."""
    later_items: Literal["withheld", "kept"] = "withheld"
    """Items that nobody met before training ends. "withheld": training does not see them, neither as negatives nor in
    the statistics of whitening. "kept": it does, as it sees items that nobody ever met."""
    seed: int = 0
    """Seed of the draw of users and of random targets. A hash of the ids decides, not the order of the rows."""

    @field_validator("validation_from", "test_from", mode="before")
    @classmethod
    def _a_moment(cls, value: Any) -> Any:
        value = value.isoformat() if isinstance(value, date) else value  # TOML has dates of its own
        if isinstance(value, str | int | float):
            as_moment(value)
        return value

    @model_validator(mode="after")
    def _moments_or_shares(self) -> "TemporalSplit":
        by_time = self.validation == "time"
        if by_time and (self.validation_from is None) != (self.test_from is None):
            raise ValueError("split: give both of validation_from and test_from, or neither")
        unread = {
            "validation_from": not by_time,
            "validation_share": self.validation == "last-training-item" or self.validation_from is not None,
            "test_share": self.test_from is not None,
        }
        for name in (name for name, without_effect in unread.items() if without_effect):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"split.{name} has no effect beside the other options; leave it out")
        if by_time and self.validation_from is not None and self.test_from is not None:
            if as_moment(self.validation_from) >= as_moment(self.test_from):
                raise ValueError(
                    f"split.validation_from {self.validation_from} is not before split.test_from {self.test_from}"
                )
        elif by_time:
            require_a_share_for_training(self.validation_share, self.test_share)
        return self

    def cut(self, dataset: Dataset) -> Cut:
        """Cut at one moment or two; DataError if the times do not allow it."""
        _require_times_to_compare(dataset)
        cut, end = self._cut(dataset)
        return cut if self.later_items == "kept" else replace(cut, withheld_items=_met_only_since(dataset, end))

    def _cut(self, dataset: Dataset) -> tuple[Cut, int]:
        """Return the parts, and the first unit of time after training."""
        test_cut = _first_unit(dataset, "test_from", self.test_from, 1.0 - self.test_share)
        early = dataset.timestamps < test_cut
        if self.validation != "time":
            return self._validate_before_the_test(dataset, early), test_cut
        share = 1.0 - self.validation_share - self.test_share
        validation_cut = _first_unit(dataset, "validation_from", self.validation_from, share)
        training = dataset.timestamps < validation_cut
        cut = with_targets(dataset, training, early & ~training, ~early, self.targets, self.seed)
        return cut, min(validation_cut, test_cut)

    def _validate_before_the_test(self, dataset: Dataset, early: InteractionMask) -> Cut:
        """Take each user's last interaction before the test as the validation target, or those of some users."""
        follows = has_history(dataset)
        validation = choose_targets(dataset, early & follows, "last", self.seed, "validation")
        test = choose_targets(dataset, ~early & follows, self.targets, self.seed, "test")
        if self.validation == "last-training-item":
            early[validation] = False
            return Cut(early, validation, test)
        user = user_of_each(dataset)
        (drawn,) = draw(dataset.users[user[validation]], (self.validation_share,), self.seed, "users")
        return Cut(early & ~np.isin(user, user[validation[drawn]]), validation[drawn], test)


def _met_only_since(dataset: Dataset, end: int) -> Int[np.ndarray, " item"]:
    """Return the items that have interactions, but none before `end`, ascending."""
    is_early = dataset.timestamps < end
    return np.setdiff1d(dataset.item_index[~is_early], dataset.item_index[is_early])


def _require_times_to_compare(dataset: Dataset) -> None:
    if dataset.seconds_per_unit is None:
        raise DataError(
            'split.kind = "temporal" compares the times of different users, but these times only order what one user '
            'did; take another split, such as split.kind = "leave-one-out", or give the times with data.time_col and '
            "their unit with data.time_unit"
        )
    if dataset.timestamps.min() == dataset.timestamps.max():
        raise DataError('split.kind = "temporal" needs real times: all interactions have the same one')


def _first_unit(dataset: Dataset, name: str, moment: str | int | float | None, share_before: float) -> int:
    """Return the first unit of time of a part: not before `moment`, or with a share of all interactions before it."""
    if moment is None:
        row = max(0, int(share_before * dataset.num_interactions))
        return int(np.partition(dataset.timestamps, row)[row])
    assert dataset.seconds_per_unit is not None, "the caller has seen to it"
    units = Fraction(round(1 / dataset.seconds_per_unit))  # in a second
    unit = math.ceil(as_moment(moment) * units)
    first, last = int(dataset.timestamps.min()), int(dataset.timestamps.max())
    if not first < unit <= last:
        moments = [str(np.datetime64(math.floor(time / units), "s")) for time in (first, last)]
        raise DataError(
            f"split.{name} {moment} does not divide the data, whose times run from {moments[0]} to {moments[1]} (UTC)"
        )
    return unit
