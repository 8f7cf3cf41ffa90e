"""A table of candidates is scored."""

# Proved by tests/cli/test_rank.py.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hllm.api import Recommender
from hllm.data.reading.tables import read_table, require_columns
from hllm.errors import ConfigError, DataError

HISTORY = "history"
"""The column of histories, and the user id in the answer for a single history."""


@dataclass(frozen=True)
class RankRequest:
    """The users to rank for: at most one of the four is given. Without any, the candidates' table names them."""

    user: str | None = None
    history: Sequence[str] | None = None
    """Item ids, oldest first."""
    users: Path | None = None
    """A table with a column of user ids."""
    histories: Path | None = None
    """A table with a column of user ids and one of histories."""


def rank_table(
    recommender: Recommender, candidates: Path, request: RankRequest, *, target: str | None = None
) -> pl.DataFrame:
    """Score the table `candidates` for all that `request` names; see `Recommender.rank` for the frame.

    With a column of user ids, each user has candidates of its own. Raises ConfigError if nobody is named.
    """
    user_col = recommender.recipe.data.user_col
    shared, own = _read_candidates(candidates, recommender.dataset.item_col, user_col)
    whom: dict[str, Any] = {}
    if request.history is not None:
        whom["histories"] = {HISTORY: request.history}
    elif request.histories is not None:
        whom["histories"] = _read_histories(request.histories, user_col)
    elif request.users is not None:
        whom["users"] = _read_users(request.users, user_col)
    elif request.user is not None or own:
        whom["users"] = [request.user] if request.user is not None else list(own)
    else:
        raise ConfigError(
            f"{candidates} has no column {user_col!r}, so it does not say whom to rank for: give --user, --history, "
            "--users or --histories"
        )
    of_each = own if not own or "histories" in whom else _under_own_ids(recommender, own)
    return recommender.rank(of_each or shared, **whom, target=target)


def _read_candidates(path: Path, item_col: str, user_col: str) -> tuple[list[str], dict[Any, list[str]]]:
    """Return the item ids of a table of candidates or, where it has a column of users, those of each user."""
    table = read_table(path, name="candidates")
    require_columns(table, {"item_col": item_col}, name="candidates")
    items = table[item_col].cast(pl.String)
    if user_col not in table.columns:
        return items.to_list(), {}
    own: dict[Any, list[str]] = {}
    for user, item in zip(table[user_col].cast(pl.String), items, strict=True):
        own.setdefault(user, []).append(item)
    return [], own


def _read_histories(path: Path, user_col: str) -> dict[str, list[str]]:
    """Return the item ids of each user's history; DataError for a user that stands twice."""
    table = read_table(path, name="histories")
    require_columns(table, {"user_col": user_col, HISTORY: HISTORY}, name="histories")
    users = table[user_col].cast(pl.String)
    if users.n_unique() < len(users):
        raise DataError(f"{path} names {len(users) - users.n_unique():,} users twice: a history is one row")
    texts = table[HISTORY].cast(pl.String)
    return {user: _item_ids(text or "") for user, text in zip(users, texts, strict=True)}


def _item_ids(listed: str) -> list[str]:
    return [item.strip() for item in listed.split(",") if item.strip()]


def _read_users(path: Path, user_col: str) -> pl.Series:
    table = read_table(path, name="users")
    require_columns(table, {"user_col": user_col}, name="users")
    return table[user_col].cast(pl.String)


def _under_own_ids(recommender: Recommender, own: Mapping[Any, list[str]]) -> dict[Any, list[str]]:
    """Return each user's candidates under the id of the dataset, in its own type."""
    users = recommender.dataset.users[recommender.dataset.user_rows(list(own))]
    return dict(zip(users, own.values(), strict=True))
