"""A cut divides interactions; the functions here choose targets and draw users or items for every kind of cut.

No cut depends on the order in which users came: what is drawn is drawn by a hash of the id.
"""

# Proved by tests/data/test_split.py.

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from hllm.data.dataset import Dataset
from hllm.random import fractions_of

TargetChoice = Literal["last", "first", "all", "random"]
InteractionMask = Bool[np.ndarray, " interaction"]


@dataclass(frozen=True)
class Cut:
    """Parts of all interactions; some may be in none."""

    training: InteractionMask
    """True for each interaction that is for training."""
    validation: Int[np.ndarray, " validation_target"]
    """Positions of the validation targets among all interactions, ascending."""
    test: Int[np.ndarray, " test_target"]
    """Positions of the test targets, likewise."""
    withheld_items: Int[np.ndarray, " withheld_item"] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Items that training must not see at all, ascending."""


def with_targets(
    dataset: Dataset,
    training: InteractionMask,
    in_validation: InteractionMask,
    in_test: InteractionMask,
    targets: TargetChoice,
    seed: int,
) -> Cut:
    """Choose each user's targets among the interactions of both held-out parts, if they have a history."""
    follows = has_history(dataset)
    return Cut(
        training,
        choose_targets(dataset, in_validation & follows, targets, seed, "validation"),
        choose_targets(dataset, in_test & follows, targets, seed, "test"),
    )


def choose_targets(
    dataset: Dataset, candidates: InteractionMask, targets: TargetChoice, seed: int, part: str
) -> Int[np.ndarray, " target"]:
    """Return the positions of each user's targets among the interactions that may be one."""
    positions = np.flatnonzero(candidates)
    if targets == "all" or not len(positions):
        return positions
    user = user_of_each(dataset)[positions]
    first = np.flatnonzero(np.diff(user, prepend=-1))
    counts = np.diff(first, append=len(positions))
    match targets:
        case "first":
            chosen = first
        case "last":
            chosen = first + counts - 1
        case "random":
            draws = fractions_of(_as_text(dataset.users[user[first]]), seed, f"{part} target")
            chosen = first + (draws * counts).astype(np.int64)
    return positions[chosen]


def draw(ids: pl.Series, shares: Sequence[float], seed: int, purpose: str) -> list[Int[np.ndarray, " _"]]:
    """Return the rows, ascending, of as many of the ids as each share says, at least one; no id twice."""
    order = np.argsort(fractions_of(_as_text(ids), seed, purpose), kind="stable")
    ends = np.cumsum([max(1, round(share * len(ids))) for share in shares])
    return [np.sort(rows) for rows in np.split(order, ends)[: len(shares)]]


def user_of_each(dataset: Dataset) -> Int[np.ndarray, " interaction"]:
    """Return the user_index of every interaction."""
    return np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))


def has_history(dataset: Dataset) -> InteractionMask:
    """Return True for every interaction but each user's first."""
    follows = np.ones(dataset.num_interactions, dtype=bool)
    follows[dataset.offsets[:-1]] = False
    return follows


def require_a_share_for_training(validation_share: float, test_share: float) -> None:
    """Raise ValueError if validation and test together take all."""
    if not validation_share + test_share < 1.0:
        raise ValueError(
            f"split: validation_share {validation_share} and test_share {test_share} leave nothing for training"
        )


def _as_text(ids: pl.Series) -> list[str]:
    return ids.cast(pl.String).to_list()
