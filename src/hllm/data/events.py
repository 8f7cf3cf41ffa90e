"""Interactions in order: by user, then time, then the file's order."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from hllm.data.log import MISSING, InteractionLog


@dataclass(frozen=True)
class Events:
    """Interactions in order: by user, then time, then the file's order."""

    row: Int[np.ndarray, " interaction"]
    user: Int[np.ndarray, " interaction"]
    item: Int[np.ndarray, " interaction"]
    timestamps: Int[np.ndarray, " interaction"]
    actions: Int[np.ndarray, " interaction"]

    def __getitem__(self, kept: np.ndarray) -> "Events":
        return self if kept.dtype == bool and kept.all() else Events(*(column[kept] for column in vars(self).values()))


def in_order(log: InteractionLog, item: Int[np.ndarray, " name"]) -> Events:
    """Sort the interactions that have a user, a time and an item in the catalogue."""
    of_row = np.append(item, np.int32(MISSING))[log.item]
    whole = (log.user != MISSING) & (of_row >= 0) & ~log.no_time
    everything = bool(whole.all())
    row = np.arange(len(log)) if everything else np.flatnonzero(whole)
    user, times = (log.user, log.timestamps) if everything else (log.user[row], log.timestamps[row])
    order = _stable_order(user, times)
    row = row[order]
    return Events(row, user[order], of_row[row], times[order], log.actions[row])


def _stable_order(
    user: Int[np.ndarray, " interaction"], times: Int[np.ndarray, " interaction"]
) -> Int[np.ndarray, " interaction"]:
    """Return the order by user, then time, then position."""
    if not len(user):
        return np.arange(0)
    first, last = int(times.min()), int(times.max())
    span = last - first + 1
    if (int(user.max()) + 1) * span >= 2**63:
        return np.lexsort((times, user))
    key = user * np.int64(span)  # one key sorts four times as fast as two
    key += times
    key -= first
    return np.argsort(key, kind="stable")


def repeated(events: Events) -> Bool[np.ndarray, " interaction"]:
    """Return which interactions have the user, time, item and action of one before them."""
    if not len(events.row):
        return np.zeros(0, dtype=bool)
    tied = np.zeros(len(events.row) + 1, dtype=bool)
    tied[1:-1] = (events.user[1:] == events.user[:-1]) & (events.timestamps[1:] == events.timestamps[:-1])
    rows = np.flatnonzero(tied[:-1] | tied[1:])  # interactions that share their moment with another of the user's
    columns = (events.actions, events.item, events.timestamps, events.user)
    rows = rows[np.lexsort([column[rows] for column in columns])]
    same = np.all([column[rows][1:] == column[rows][:-1] for column in columns], axis=0)
    again = np.zeros(len(events.row), dtype=bool)
    again[rows[1:][same]] = True
    return again


def numbered_users(events: Events, names: pl.Series) -> tuple[Events, pl.Series, Int[np.ndarray, " users_plus_one"]]:
    """Put the users in the order of their first interactions; return the events, ids and offsets in that order."""
    starts = np.flatnonzero(np.diff(events.user, prepend=-1))
    lengths = np.diff(starts, append=len(events.user))
    order = np.lexsort((events.row[starts], events.timestamps[starts]))
    users = names.gather(events.user[starts[order]])
    offsets = np.concatenate([[0], np.cumsum(lengths[order])])
    moved = np.repeat(starts[order] - offsets[:-1], lengths[order]) + np.arange(offsets[-1])
    return events[moved], users, offsets
