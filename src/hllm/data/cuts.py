"""Ways to divide interactions: which are for training, and which are validation and test targets.

Each returns a mask of all interactions and the sorted positions, among all interactions, of both parts' targets.
None depends on the order in which users came: what is drawn is drawn by a hash of the id.
"""

from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from hllm.data.dataset import Dataset
from hllm.errors import ConfigError, DataError, first_few
from hllm.random import fractions_of

TargetChoice = Literal["last", "first", "all", "random"]
InteractionMask = Bool[np.ndarray, " interaction"]
Parts = tuple[InteractionMask, Int[np.ndarray, " validation_target"], Int[np.ndarray, " test_target"]]


def leave_one_out(dataset: Dataset, min_length: int) -> Parts:
    """Take the last two interactions of each user that has `min_length`."""
    ends = dataset.offsets[1:][np.diff(dataset.offsets) >= min_length]
    training = np.ones(dataset.num_interactions, dtype=bool)
    training[ends - 2] = training[ends - 1] = False
    return training, ends - 2, ends - 1


def ratio(dataset: Dataset, shares: tuple[float, float], min_length: int, targets: TargetChoice, seed: int) -> Parts:
    """Take the latest `shares` (validation, test) of each user that has `min_length`: rounded, at least one each."""
    lengths = np.diff(dataset.offsets)
    validation, test = (np.maximum(1, np.floor(share * lengths + 0.5).astype(np.int64)) for share in shares)
    from_end = np.repeat(dataset.offsets[1:], lengths) - np.arange(dataset.num_interactions)  # 1: the latest
    enough = np.repeat(lengths >= min_length, lengths)
    in_test = enough & (from_end <= np.repeat(test, lengths))
    in_validation = enough & ~in_test & (from_end <= np.repeat(test + validation, lengths))
    return _with_targets(dataset, ~(in_test | in_validation), in_validation, in_test, targets, seed)


def temporal(dataset: Dataset, validation_cut: int, test_cut: int, targets: TargetChoice, seed: int) -> Parts:
    """Cut at two moments, the same for all users.

    An interaction at the very moment of a cut falls after it, so nothing in training is as late as a target.
    """
    training, early = dataset.timestamps < validation_cut, dataset.timestamps < test_cut
    return _with_targets(dataset, training, early & ~training, ~early, targets, seed)


def temporal_held_out(
    dataset: Dataset, test_cut: int, validation_share: float | None, targets: TargetChoice, seed: int
) -> Parts:
    """Cut at one moment; a validation target is a user's last interaction before it.

    Without `validation_share` those of all users are; with it those of this share of the users, who are held out: no
    interaction of theirs is for training.

    Source: validation by last training item and by user, Gusak et al., RecSys 2025, arXiv:2507.16289.
    """
    training = dataset.timestamps < test_cut
    validation = _choose(dataset, training & _has_history(dataset), "last", seed, "validation")
    test = _choose(dataset, ~training & _has_history(dataset), targets, seed, "test")
    if validation_share is None:
        training[validation] = False
        return training, validation, test
    users = _users(dataset)
    (chosen,) = _drawn(dataset.users[users[validation]], (validation_share,), seed, "users")
    return training & ~np.isin(users, users[validation[chosen]]), validation[chosen], test


def hold_out_users(dataset: Dataset, shares: tuple[float, float], min_length: int, seed: int) -> Parts:
    """Hold out `shares` (validation, test) of the users that have `min_length`; each one's last item is the target."""
    lengths = np.diff(dataset.offsets)
    enough = np.flatnonzero(lengths >= min_length)
    # The test users come first: they do not depend on the share for validation.
    test, validation = (enough[chosen] for chosen in _drawn(dataset.users[enough], shares[::-1], seed, "users"))
    training = np.ones(dataset.num_users, dtype=bool)
    training[validation] = training[test] = False
    last = dataset.offsets[1:] - 1
    return np.repeat(training, lengths), last[validation], last[test]


def hold_out_items(dataset: Dataset, shares: tuple[float, float], targets: TargetChoice, seed: int) -> Parts:
    """Hold out `shares` (validation, test) of the items that were interacted with: no training interaction has them."""
    used = np.unique(dataset.item_index)
    test, validation = (used[chosen] for chosen in _drawn(dataset.item_ids[used], shares[::-1], seed, "items"))
    in_validation, in_test = (np.isin(dataset.item_index, held_out) for held_out in (validation, test))
    return _with_targets(dataset, ~(in_validation | in_test), in_validation, in_test, targets, seed)


def by_column(dataset: Dataset, values: dict[str, tuple[str, ...]], targets: TargetChoice, seed: int) -> Parts:
    """Read the parts from the dataset's split column; `values` are the names that "training" and so on have there.

    Interactions with an empty cell are in no part. Raises DataError for other names, ConfigError without the column.
    """
    if dataset.parts is None:
        raise ConfigError('split.kind = "column" reads a column of the interactions: name it with data.split_col')
    known = [name for names in values.values() for name in names]
    strange = [name for name in dataset.part_names if name and name not in known]
    if strange:
        bad = int(np.isin(dataset.parts, [dataset.part_names.index(name) for name in strange]).sum())
        raise DataError(
            f"{bad:,} of {dataset.num_interactions:,} interactions have {first_few(strange)} in data.split_col; "
            f"expected {first_few(known, len(known))} or an empty cell. "
            "Name what stands there with split.training_values, split.validation_values and split.test_values"
        )
    training, validation, test = (np.isin(dataset.part_names, values[p]) for p in ("training", "validation", "test"))
    of = dataset.parts
    return _with_targets(dataset, training[of], validation[of], test[of], targets, seed)


def _with_targets(
    dataset: Dataset,
    training: InteractionMask,
    in_validation: InteractionMask,
    in_test: InteractionMask,
    targets: TargetChoice,
    seed: int,
) -> Parts:
    known = _has_history(dataset)
    return (
        training,
        _choose(dataset, in_validation & known, targets, seed, "validation"),
        _choose(dataset, in_test & known, targets, seed, "test"),
    )


def _choose(
    dataset: Dataset, among: InteractionMask, targets: TargetChoice, seed: int, part: str
) -> Int[np.ndarray, " target"]:
    """Return the positions of each user's targets among some interactions."""
    rows = np.flatnonzero(among)
    if targets == "all" or not len(rows):
        return rows
    of_user = _users(dataset)[rows]
    first = np.flatnonzero(np.diff(of_user, prepend=-1))
    counts = np.diff(first, append=len(rows))
    match targets:
        case "first":
            chosen = first
        case "last":
            chosen = first + counts - 1
        case "random":
            draws = fractions_of(_text(dataset.users[of_user[first]]), seed, f"{part} target")
            chosen = first + (draws * counts).astype(np.int64)
    return rows[chosen]


def _drawn(ids: pl.Series, shares: tuple[float, ...], seed: int, purpose: str) -> list[Int[np.ndarray, " _"]]:
    """Return the rows, ascending, of as many of the ids as each share says, at least one; no id twice."""
    order = np.argsort(fractions_of(_text(ids), seed, purpose), kind="stable")
    ends = np.cumsum([max(1, round(share * len(ids))) for share in shares])
    return [np.sort(rows) for rows in np.split(order, ends)[: len(shares)]]


def _text(ids: pl.Series) -> list[str]:
    return ids.cast(pl.String).to_list()


def _users(dataset: Dataset) -> Int[np.ndarray, " interaction"]:
    return np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))


def _has_history(dataset: Dataset) -> InteractionMask:
    """Return True for every interaction but each user's first."""
    known = np.ones(dataset.num_interactions, dtype=bool)
    known[dataset.offsets[:-1]] = False
    return known
