"""Whom to recommend to, as a caller says it: users or histories, with times, with a sentence each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Int

from hllm.data.dataset import Dataset, rows_of
from hllm.embedding.texts import ItemReader, ItemText
from hllm.errors import ConfigError, DataError
from hllm.models.recommender import SequentialRecommender
from hllm.retrieval.histories import Histories, HistoriesWithTexts, LoggedHistories, histories_of, some_of

Unknown = Literal["error", "skip", "popularity"]
UNKNOWN: tuple[Unknown, ...] = ("error", "skip", "popularity")


_TEXTS_AT_ONCE = 256

Named = Sequence[Sequence[Any]] | Mapping[Any, Sequence[Any]]
"""Histories of item ids, oldest first: by any id, or in a list, whose positions then are the ids."""


@final
@dataclass(frozen=True)
class Question:
    """Users with their histories."""

    ids: pl.Series
    histories: Histories

    def only(self, chosen: Bool[np.ndarray, " user"]) -> "Question":
        """Return some of the users."""
        rows = np.flatnonzero(chosen)
        return Question(self.ids[rows], some_of(self.histories, rows))


def question_of(
    dataset: Dataset,
    model: SequentialRecommender,
    users: Sequence[Any] | pl.Series | None = None,
    *,
    histories: Named | None = None,
    times: Sequence[Sequence[int]] | None = None,
    texts: Sequence[ItemText | None] | None = None,
    unknown: str = "error",
) -> Question:
    """Return who is asked for: `users`, or `histories`, or a user without one for each of `texts`, or all users.

    The texts are counted, and added by `with_texts`.

    An unknown user, and an unknown item of a history, is a DataError unless `unknown` says otherwise: then the user's
    history is empty, and the item is left out. ConfigError for arguments that do not go together.
    """
    if unknown not in UNKNOWN:
        raise ConfigError(f"unknown is {unknown!r}; expected one of {', '.join(map(repr, UNKNOWN))}")
    if users is not None and histories is not None:
        raise ConfigError("give users or histories, not both")
    if times is not None and histories is None:
        raise ConfigError("times belong to histories; the times of known users are in the log")
    if isinstance(texts, str) or (texts is not None and not texts):
        raise ConfigError("texts must be a list with at least one text")
    if histories is None and users is None and texts is not None:
        histories = [()] * len(texts)
    if histories is None:
        question = _of_users(dataset, users, unknown)
    else:
        question = _of_histories(dataset, model, histories, times, unknown)
    if texts is not None and len(texts) != len(question.ids):
        raise ConfigError(
            f"{len(texts):,} texts for {len(question.ids):,} users; give one for each, None for a user without one"
        )
    return question


def with_texts(question: Question, texts: Sequence[ItemText | None], reader: ItemReader) -> Question:
    """Add each user's sentence after the history, as one more item known only by its text; None is no sentence.

    Raises DataError for a sentence without words, and for a model that reads of each item what a sentence does not say.
    """
    require_sentences(reader.model)
    given = np.array([text is not None for text in texts], dtype=bool)
    sentences = [text for text in texts if text is not None]
    if not sentences:
        return question
    parts = range(0, len(sentences), _TEXTS_AT_ONCE)
    read = torch.cat([reader.read(sentences[start : start + _TEXTS_AT_ONCE]) for start in parts])
    vectors = read.new_zeros(len(texts), read.shape[1])
    vectors[torch.from_numpy(np.flatnonzero(given))] = read
    return Question(question.ids, HistoriesWithTexts(list(question.histories), vectors, given))


def require_sentences(model: SequentialRecommender) -> None:
    """Raise DataError for a model that reads of each item what a sentence does not say."""
    if model.reads_log:
        raise DataError(
            "this model reads when things happened or what was done, which a sentence does not say; recommend from a "
            "sentence with a model that reads neither"
        )


def _of_users(dataset: Dataset, users: Sequence[Any] | pl.Series | None, unknown: str) -> Question:
    if users is None:
        rows = np.arange(dataset.num_users)
    elif unknown == "error":
        rows = dataset.user_rows(users)
    else:
        ids = users if isinstance(users, pl.Series) else pl.Series(list(users), strict=False)
        found = rows_of(dataset.users, ids.cast(dataset.users.dtype, strict=False))
        known = found.is_not_null().to_numpy()
        rows = found.fill_null(0).to_numpy()
        # An empty stretch of the log stands for a user who is not in it.
        return Question(ids, histories_of(dataset, rows, dataset.offsets[np.where(known, rows + 1, rows)]))
    return Question(dataset.users[rows], histories_of(dataset, rows, dataset.offsets[rows + 1]))


def _of_histories(
    dataset: Dataset,
    model: SequentialRecommender,
    histories: Named,
    times: Sequence[Sequence[int]] | None,
    unknown: str,
) -> Question:
    named = histories if isinstance(histories, Mapping) else dict(enumerate(histories))
    if not named:
        raise DataError("histories is empty; give at least one")
    if times is not None and [len(history) for history in named.values()] != [len(moments) for moments in times]:
        raise DataError("times must have one number for each item of each history")
    items, moments = [], []
    for number, history in enumerate(named.values()):
        rows, known = _rows(dataset, history, unknown)
        items.append(rows)
        if times is not None:
            moments.append(np.asarray(times[number], dtype=np.int64)[known])
    ids = pl.Series(list(named))
    if times is None:
        return Question(ids, items)
    if model.fusion is not None and model.fusion.actions is not None:
        raise DataError("this model reads what was done, which histories and times do not say; ask for known users")
    if model.fusion is not None:
        model.fusion.require_known_years(np.concatenate(moments))
    return Question(ids, LoggedHistories(items, moments, [np.zeros(len(own), dtype=np.int64) for own in items]))


def _rows(
    dataset: Dataset, history: Sequence[Any], unknown: str
) -> tuple[Int[np.ndarray, " _"], Bool[np.ndarray, " _"]]:
    """Return the item indices of a history's known items, and which are known."""
    if not len(history):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
    if unknown == "error":
        return dataset.item_rows(list(history)), np.ones(len(history), dtype=bool)
    given = pl.Series(list(history), strict=False)
    found = rows_of(dataset.item_ids, given.cast(dataset.item_ids.dtype, strict=False))
    return found.drop_nulls().to_numpy(), found.is_not_null().to_numpy()
