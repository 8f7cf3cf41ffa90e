"""The query: the users to recommend to, as a caller names them, with their histories."""

# Proved by tests/jobs/test_recommend_table.py.

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm.data.arguments import as_ids, as_list, as_texts
from hllm.data.dataset import Dataset, rows_of
from hllm.data.ids import exactly
from hllm.embedding.texts import ItemReader, ItemText
from hllm.errors import ConfigError, DataError
from hllm.models.recommender import SequentialRecommender
from hllm.retrieval.histories import Histories, histories_of

Unknown = Literal["error", "skip", "popularity"]
UNKNOWN: tuple[Unknown, ...] = ("error", "skip", "popularity")

_TEXTS_AT_ONCE = 256

Named = Iterable[Iterable[Any]] | Mapping[Any, Iterable[Any]]
"""Histories of item ids, oldest first: by any id, or in a list, whose positions then are the ids.

In place of an item id may stand a mapping: the fields of an item that is known only by its text.
"""


@final
@dataclass(frozen=True)
class Query:
    """Users with their histories."""

    ids: pl.Series
    histories: Histories

    def only(self, chosen: Bool[np.ndarray, " user"]) -> "Query":
        """Return some of the users."""
        return Query(self.ids.filter(pl.Series(chosen)), self.histories[chosen])


def query_of(
    dataset: Dataset,
    model: SequentialRecommender,
    reader: Callable[[], ItemReader],
    users: Iterable[Any] | None = None,
    *,
    histories: Named | None = None,
    times: Iterable[Iterable[Any]] | None = None,
    texts: Iterable[Any] | None = None,
    unknown: str = "error",
) -> Query:
    """Return a query for `users`, or `histories`, or a user without one for each of `texts`, or all users.

    `reader` is called only where there are texts. Those of `texts` stand after the histories, see `with_texts`.

    An unknown user, and an unknown item of a history, is a DataError unless `unknown` says otherwise: then the user's
    history is empty, and the item is left out. ConfigError for arguments that do not go together.
    """
    if unknown not in UNKNOWN:
        raise ConfigError(f"unknown is {unknown!r}; expected one of {', '.join(map(repr, UNKNOWN))}")
    if users is not None and histories is not None:
        raise ConfigError("give users or histories, not both")
    if times is not None and histories is None:
        raise ConfigError("times belong to histories; the times of known users are in the log")
    if texts is not None:
        texts = as_texts(texts, name="texts", absent=True)
    if histories is None and users is None and texts is not None:
        histories = [()] * len(texts)
    if histories is None:
        query = _of_users(dataset, users, unknown)
    else:
        query = _of_histories(dataset, model, reader, histories, times, unknown)
    if texts is None:
        return query
    if len(texts) != len(query.ids):
        raise ConfigError(
            f"{len(texts):,} texts for {len(query.ids):,} users; give one for each, None for a user without one"
        )
    return with_texts(query, texts, reader())


def with_texts(query: Query, texts: Sequence[ItemText | None], reader: ItemReader) -> Query:
    """Add each user's text after the history, as one more item known only by its text; None adds nothing.

    Such a text has no time and no action. Raises DataError for a text without words, and for a model that reads these.
    """
    require_sentences(reader.model)
    users = [user for user, text in enumerate(texts) if text is not None]
    if not users:
        return query
    vectors = _read([text for text in texts if text is not None], reader)
    earlier = query.histories.texts
    items = list(query.histories.items)
    for row, user in enumerate(users, start=0 if earlier is None else len(earlier)):
        items[user] = np.append(items[user], -1 - row)
    return Query(query.ids, Histories(items, texts=vectors if earlier is None else torch.cat([earlier, vectors])))


def require_sentences(model: SequentialRecommender) -> None:
    """Raise DataError for a model that reads times or actions, which a sentence does not have."""
    if model.reads_log:
        raise DataError(
            "this model reads when things happened or what was done, which a sentence does not say; recommend from a "
            "sentence with a model that reads neither"
        )


def _read(texts: Sequence[ItemText], reader: ItemReader) -> Float[Tensor, "text dim"]:
    parts = range(0, len(texts), _TEXTS_AT_ONCE)
    return torch.cat([reader.read(texts[start : start + _TEXTS_AT_ONCE]) for start in parts])


def _of_users(dataset: Dataset, users: Iterable[Any] | None, unknown: str) -> Query:
    if users is None:
        rows = np.arange(dataset.num_users)
    elif unknown == "error":
        rows = dataset.user_rows(users)
    else:
        ids = as_ids(users, name="users")
        places = rows_of(dataset.users, ids)
        known = places.is_not_null().to_numpy()
        rows = places.fill_null(0).to_numpy()
        # An empty stretch of the log stands for a user who is not in it.
        return Query(ids, histories_of(dataset, rows, dataset.offsets[np.where(known, rows + 1, rows)]))
    return Query(dataset.users[rows], histories_of(dataset, rows, dataset.offsets[rows + 1]))


def _of_histories(
    dataset: Dataset,
    model: SequentialRecommender,
    reader: Callable[[], ItemReader],
    histories: Named,
    times: Iterable[Iterable[Any]] | None,
    unknown: str,
) -> Query:
    given = (
        histories
        if isinstance(histories, Mapping)
        else dict(enumerate(as_list(histories, name="histories", rows=True)))
    )
    if not given:
        raise DataError("histories is empty; give at least one")
    named = {user: as_list(history, name=f"histories[{user!r}]") for user, history in given.items()}
    stamps = None if times is None else [_moments(row) for row in as_list(times, name="times", rows=True)]
    if stamps is not None and [len(history) for history in named.values()] != [len(row) for row in stamps]:
        raise DataError("times must have one number for each item of each history")
    items, moments = [], []
    texts: list[Mapping[str, Any]] = []
    for number, history in enumerate(named.values()):
        elements, known = _elements(dataset, history, unknown, first_text=len(texts))
        texts += [element for element in history if isinstance(element, Mapping)]
        items.append(elements)
        if stamps is not None:
            moments.append(stamps[number][known])
    ids, vectors = as_ids(list(named), name="the ids of histories"), _read(texts, reader()) if texts else None
    if ids.null_count() or ids.is_duplicated().any():
        wrong = "one without a user's id" if ids.null_count() else f"two of {ids.filter(ids.is_duplicated())[0]!r}"
        raise DataError(f"histories has {wrong}; give each user's history once, by the user's id")
    if stamps is None:
        return Query(ids, Histories(items, texts=vectors))
    if model.fusion is not None and model.fusion.actions is not None:
        raise DataError("this model reads what was done, which histories and times do not say; ask for known users")
    if model.fusion is not None:
        model.fusion.require_known_years(np.concatenate(moments))
    return Query(ids, Histories(items, moments, texts=vectors))


def _moments(given: Any) -> Int[np.ndarray, " _"]:
    """Return the times of one history as whole seconds."""
    numbers = as_ids(given, name="times")
    seconds = exactly(numbers, pl.Int64)
    if len(bad := numbers.filter(seconds.is_null())):
        raise DataError(f"times hold {bad[0]!r}; expected whole seconds since 1970")
    return seconds.to_numpy()


def _elements(
    dataset: Dataset, history: list[Any], unknown: str, *, first_text: int
) -> tuple[Int[np.ndarray, " _"], Bool[np.ndarray, " _"]]:
    """Return a history's known items and its texts as `Histories.items` has them, and where they stand in it."""
    is_text = np.array([isinstance(element, Mapping) for element in history], dtype=bool)
    ids = [element for element in history if not isinstance(element, Mapping)]
    rows = np.full(len(history), -1, dtype=np.int64)
    known = np.ones(len(history), dtype=bool)
    rows[is_text] = -1 - first_text - np.arange(is_text.sum())
    if ids and unknown == "error":
        rows[~is_text] = dataset.item_rows(ids)
    elif ids:
        places = rows_of(dataset.item_ids, as_ids(ids, name="a history"))
        rows[~is_text], known[~is_text] = places.fill_null(0).to_numpy(), places.is_not_null().to_numpy()
    return rows[known], known
