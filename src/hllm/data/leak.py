"""Measure what the numbers of a split are worth: data from the targets' future, targets seen before, few targets."""

# The leak and the times are proved by tests/data/describing/test_measure.py, tests/evaluation/test_protocol.py.

from typing import Literal

import numpy as np
from jaxtyping import Bool

from hllm.data.dataset import Dataset
from hllm.data.split import Split

TimesKind = Literal["clock", "positions", "order", "none"]
"""Kind of a data set's times: see `Times.kind`."""
Part = Literal["validation", "test"]

POSITIONS_SHARE = 0.9  # of the users: what was filtered afterwards leaves gaps in a few
FEW_USERS = 20  # with a target: one of them moves a mean by 5 points and more
MOSTLY_SEEN = 0.5  # of the targets


def leak_share(dataset: Dataset, split: Split) -> float | None:
    """Return the share of training interactions later than the median test target; None if times are no clock.

    Under leave-one-out a model learns from what other users did after a target; in a temporal split the share is 0.

    Source: data leakage in Ji et al., arXiv:2010.11060; the median makes one number of it.
    """
    if times_kind(dataset) != "clock":
        return None
    median = np.median(dataset.timestamps[split.test])
    return float((dataset.timestamps[split.training] > median).mean())


def doubts(dataset: Dataset, split: Split, *parts: Part, seen_removed: bool) -> list[str]:
    """Return a sentence for each reason why numbers of the parts say little: few users, or targets seen before.

    `seen_removed` says whether the items of a history are left out of what it is asked for. The sentence on few users
    is of the first part that has few.
    """
    users = {part: _users_asked(dataset, split, part) for part in parts}
    few = [part for part in parts if users[part] < FEW_USERS][:1]
    sentences = [
        f"the {part} part has {_counted(len(split.targets(part)), 'target')} of {_counted(users[part], 'user')}: one "
        f"user more or less moves recall by {100 / users[part]:.0f} points. Below {FEW_USERS} users the numbers only "
        "show that everything runs"
        for part in few
    ]
    if not seen_removed:
        return sentences
    seen = seen_before(dataset)
    for part in parts:
        targets = split.targets(part)
        number = int(seen[targets].sum())
        if number > max(1, MOSTLY_SEEN * len(targets)):  # one alone is no pattern
            sentences.append(
                f"{number:,} of the {len(targets):,} {part} targets are items that the user had met "
                "before: seen items are not recommended, so every model misses these. If the table repeats its rows, "
                'set data.duplicate_interactions = "drop"'
            )
    return sentences


def _users_asked(dataset: Dataset, split: Split, part: Part) -> int:
    return len(np.unique(np.searchsorted(dataset.offsets, split.targets(part), side="right")))


def seen_before(dataset: Dataset) -> Bool[np.ndarray, " interaction"]:
    """Return True for each interaction with an item that its user had met before."""
    users = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    order = np.lexsort((dataset.item_index, users))  # stable: of a user's interactions with an item the first is first
    again = (np.diff(users[order], prepend=-1) == 0) & (np.diff(dataset.item_index[order], prepend=-1) == 0)
    seen = np.zeros(dataset.num_interactions, dtype=bool)
    seen[order[again]] = True
    return seen


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def times_kind(dataset: Dataset) -> TimesKind:
    """Return "clock", "positions", "order" or "none", as `Times.kind` explains."""
    if (dataset.timestamps == dataset.timestamps[0]).all():
        return "none"
    if _only_positions(dataset):
        return "positions"
    return "order" if dataset.seconds_per_unit is None else "clock"


def _only_positions(dataset: Dataset) -> bool:
    """Tell whether the times of nearly every user with two interactions or more count from 0, or from 1."""
    lengths = np.diff(dataset.offsets)
    starts = np.repeat(dataset.offsets[:-1], lengths)
    first = dataset.timestamps[starts]
    counted = np.arange(dataset.num_interactions) - starts
    differs = (dataset.timestamps != first + counted) | (first < 0) | (first > 1)
    wrong = np.add.reduceat(differs.astype(np.int64), dataset.offsets[:-1])[lengths > 1]
    return len(wrong) > 0 and float((wrong == 0).mean()) >= POSITIONS_SHARE
