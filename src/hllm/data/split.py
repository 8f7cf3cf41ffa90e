"""Splits of a Dataset into training interactions, validation targets and test targets.

The history of a target is everything the user did before it, whatever part that is in: what a server would know.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int
from pydantic import Field, field_validator, model_validator

from hllm.config import Config
from hllm.data import cuts
from hllm.data.cuts import TargetChoice
from hllm.data.dataset import Dataset
from hllm.data.times import as_moment
from hllm.errors import DataError

# Which options each kind reads; the others must be left alone.
_OPTIONS = {
    "leave-one-out": {"min_length"},
    "temporal": {"validation", "validation_share", "test_share", "validation_from", "test_from", "targets", "seed"},
    "ratio": {"validation_share", "test_share", "min_length", "targets", "seed"},
    "users": {"validation_share", "test_share", "min_length", "seed"},
    "items": {"validation_share", "test_share", "targets", "seed"},
    "column": {"training_values", "validation_values", "test_values", "targets", "seed"},
}


class SplitConfig(Config):
    """How interactions are divided between training, validation and test."""

    kind: Literal["leave-one-out", "temporal", "ratio", "users", "items", "column"] = "leave-one-out"
    """"leave-one-out": each user's last item is the test target, the one before it the validation target.
    "temporal": interactions before one moment are for training, the same moment for all users.
    "ratio": the latest shares of each user's interactions are held out.
    "users": shares of the users are held out, with all they did; each one's last item is the target.
    "items": shares of the items are held out, with all that was done with them: cold items. They are no negatives
    either.
    "column": the parts are read from a column of the interactions, data.split_col."""
    targets: TargetChoice | None = None
    """Which of a user's held-out interactions are targets: the "last", the "first", "all", or one at "random". For
    "temporal", "ratio", "items" and "column". A user's first interaction of all has no history and is none. None:
    "all" for "ratio" and "column", "last" for the others."""
    min_length: int = Field(default=3, ge=2)
    """"leave-one-out", "ratio" and "users": users with fewer interactions are for training alone. With 2 a user may be
    asked for its second item with no history at all under "leave-one-out", as in the HLLM paper's code."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share held out for validation: of all interactions by time ("temporal"), of each user's interactions ("ratio"),
    of the users ("users", and "temporal" with validation = "users"), or of the items ("items")."""
    test_share: float = Field(default=0.1, gt=0, lt=1)
    """Share held out for the test, likewise; for "temporal" always of the interactions, the latest ones."""
    validation: Literal["time", "last-training-item", "users"] = "time"
    """"temporal" only. "time": validation targets lie between two moments. "last-training-item": each user's last item
    before the moment of the test. "users": the same of a share of the users, none of whose interactions is for
    training."""
    validation_from: str | int | float | None = None
    """"temporal" only: the first moment of the validation, in place of validation_share. A date such as "2024-05-31" or
    "2024-05-31 12:00", in UTC unless it says otherwise, or a number of seconds since 1970."""
    test_from: str | int | float | None = None
    """"temporal" only: the first moment of the test, in place of test_share."""
    training_values: tuple[str, ...] = ("train", "training")
    """"column" only: what the column holds for training. Interactions with an empty cell are in no part."""
    validation_values: tuple[str, ...] = ("valid", "validation", "val", "dev")
    """"column" only: what it holds for validation."""
    test_values: tuple[str, ...] = ("test",)
    """"column" only: what it holds for the test."""
    seed: int = 0
    """Of the users, items and random targets that are drawn; a hash of the ids decides, not the order of the rows."""

    @field_validator("validation_from", "test_from", mode="before")
    @classmethod
    def _a_moment(cls, value: Any) -> Any:
        value = value.isoformat() if isinstance(value, date) else value  # TOML has dates of its own
        if isinstance(value, str | int | float):
            as_moment(value)
        return value

    @model_validator(mode="after")
    def _only_options_of_the_kind(self) -> "SplitConfig":
        for name, field in type(self).model_fields.items():
            readers = [kind for kind, options in _OPTIONS.items() if name in options]
            if name != "kind" and self.kind not in readers and getattr(self, name) != field.default:
                raise ValueError(
                    f'split.{name} has no effect on split.kind = "{self.kind}"; it is for {_quoted(readers)}'
                )
        values = [*self.training_values, *self.validation_values, *self.test_values]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"split: {_quoted(twice)} may stand for one part only, and once, in the lists of values")
        return self

    @model_validator(mode="after")
    def _moments_or_shares(self) -> "SplitConfig":
        by_time = self.kind == "temporal" and self.validation == "time"
        if by_time and (self.validation_from is None) != (self.test_from is None):
            raise ValueError("split: give both of validation_from and test_from, or neither")
        unread = {
            "validation_from": self.kind == "temporal" and not by_time,
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
        elif self.kind != "temporal" or by_time:
            self._require_a_share_for_training()
        return self

    def _require_a_share_for_training(self) -> None:
        if not self.validation_share + self.test_share < 1.0:
            raise ValueError(
                f"split: validation_share {self.validation_share} and test_share {self.test_share} leave nothing for "
                "training"
            )

    def options(self) -> dict[str, Any]:
        """Return the settings that this kind of split reads, as JSON-able values."""
        return self.model_copy(update={"targets": self.which_targets}).model_dump(
            mode="json", include=_OPTIONS[self.kind], exclude_none=True
        )

    @property
    def which_targets(self) -> TargetChoice:
        """Return `targets`, or what None stands for."""
        return self.targets or ("all" if self.kind in ("ratio", "column") else "last")


@dataclass(frozen=True)
class Split:
    """Which interactions of a dataset are for training, and which are targets; some may be neither."""

    kind: str
    training: Bool[np.ndarray, " interaction"]
    """Whether each interaction is for training."""
    validation: Int[np.ndarray, " validation_target"]
    """Positions of the validation targets among all interactions, ascending; a user may have several."""
    test: Int[np.ndarray, " test_target"]
    """Positions of the test targets, likewise; none is a validation target."""

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
        """Return the items that training must not see at all: those that the kind "items" holds out."""
        if self.kind != "items":
            return np.zeros(dataset.num_items, dtype=bool)
        used = np.bincount(dataset.item_index, minlength=dataset.num_items) > 0
        withheld: Bool[np.ndarray, " item"] = used & (self.train_counts(dataset) == 0)
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
    shares = (config.validation_share, config.test_share)
    targets, seed = config.which_targets, config.seed
    match config.kind:
        case "leave-one-out":
            parts = cuts.leave_one_out(dataset, config.min_length)
        case "temporal":
            parts = _temporal(dataset, config)
        case "ratio":
            parts = cuts.ratio(dataset, shares, config.min_length, targets, seed)
        case "users":
            parts = cuts.hold_out_users(dataset, shares, config.min_length, seed)
        case "items":
            parts = cuts.hold_out_items(dataset, shares, targets, seed)
        case "column":
            names = {part: getattr(config, f"{part}_values") for part in ("training", "validation", "test")}
            parts = cuts.by_column(dataset, names, targets, seed)
    split = Split(config.kind, *parts)
    if split.training_lengths(dataset).max() < 2:
        raise DataError(
            f"the {config.kind} split leaves no user with two training interactions, so nothing to learn from; "
            f"the longest of {dataset.num_users:,} histories has {np.diff(dataset.offsets).max()} interactions in all"
        )
    for part in ("validation", "test"):
        if not len(split.targets(part)):
            needed = "more interactions are needed"
            if config.kind == "column":
                values = _quoted(getattr(config, f"{part}_values"))
                needed = f"no interaction with a history has {values} in data.split_col; see split.{part}_values"
            raise DataError(f"the {config.kind} split leaves no {part} target; {needed}")
    return split


def _temporal(dataset: Dataset, config: SplitConfig) -> cuts.Parts:
    times = dataset.timestamps
    if dataset.seconds_per_unit is None:
        raise DataError(
            'split.kind = "temporal" compares the times of different users, but these times only order what one user '
            'did; take another split, such as split.kind = "leave-one-out", or give the times with data.time_col and '
            "their unit with data.time_unit"
        )
    if times.min() == times.max():
        raise DataError('split.kind = "temporal" needs real times: all interactions have the same one')
    if config.test_from is None:
        shares = (1.0 - config.validation_share - config.test_share, 1.0 - config.test_share)
        at = [max(0, int(share * len(times))) for share in shares]
        validation_cut, test_cut = np.partition(times, at)[at].tolist()
    else:
        test_cut = _cut(dataset, "test_from", config.test_from)
    if config.validation != "time":
        share = config.validation_share if config.validation == "users" else None
        return cuts.temporal_held_out(dataset, test_cut, share, config.which_targets, config.seed)
    if config.validation_from is not None:
        validation_cut = _cut(dataset, "validation_from", config.validation_from)
    return cuts.temporal(dataset, validation_cut, test_cut, config.which_targets, config.seed)


def _cut(dataset: Dataset, name: str, value: str | int | float) -> int:
    """Return the first of the dataset's units of time that is not before a moment."""
    assert dataset.seconds_per_unit is not None, "the caller has seen to it"
    units = Fraction(round(1 / dataset.seconds_per_unit))  # in a second
    cut = math.ceil(as_moment(value) * units)
    first, last = int(dataset.timestamps.min()), int(dataset.timestamps.max())
    if not first < cut <= last:
        moments = [str(np.datetime64(math.floor(time / units), "s")) for time in (first, last)]
        raise DataError(
            f"split.{name} {value} does not divide the data, whose times run from {moments[0]} to {moments[1]} (UTC)"
        )
    return cut


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f'"{value}"' for value in values)
