"""Scores of candidates for users, as a frame with the caller's own ids."""

# Proved by tests/cli/test_rank.py.

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int

from hllm.data.arguments import as_ids
from hllm.data.dataset import Dataset, rows_of
from hllm.errors import DataError, first_few
from hllm.progress import progress
from hllm.ranking.ranker import Ranker, finite_logits
from hllm.ranking.two_stage import target_column
from hllm.retrieval.histories import Histories

CandidateIds = Iterable[Any] | Mapping[Any, Iterable[Any]]
"""Item ids to score: for all users, or for each user id its own."""


def rank_frame(
    ranker: Ranker,
    dataset: Dataset,
    user_ids: pl.Series,
    histories: Histories,
    candidates: CandidateIds,
    *,
    target: str | None = None,
) -> pl.DataFrame:
    """Return user_id, item_id, score, rank (from 1, best first) for every candidate of every user.

    `candidates` are item ids for all users, or for each user_id its own. The score is the probability of `target`
    (None: the first); with several targets there is a column score_NAME for each besides. Equal scores stay in the
    order of the candidates. Raises DataError for unknown items, items that stand twice, and users without candidates.
    """
    column = target_column(ranker, target)
    chosen = _candidates(dataset, user_ids, candidates)
    with progress("rank", len(chosen)) as advance:
        logits = finite_logits(ranker, histories, chosen, advance=advance)
    frames = []
    for user, (items, values) in enumerate(zip(chosen, logits, strict=True)):
        order = np.argsort(-values[:, column], kind="stable")
        probabilities = np.exp(-np.logaddexp(0.0, -values[order].astype(np.float64)))
        named = {f"score_{name}": probabilities[:, n] for n, name in enumerate(ranker.targets)}
        frames.append(
            pl.DataFrame(
                {
                    "user_id": pl.repeat(user, len(order), eager=True, dtype=pl.Int64),
                    "item_id": dataset.item_ids[items[order]],
                    "score": probabilities[:, column],
                    **(named if len(named) > 1 else {}),
                    "rank": np.arange(1, len(order) + 1),
                }
            )
        )
    whole = pl.concat(frames)
    return whole.with_columns(user_ids[whole["user_id"]].alias("user_id"))


def _candidates(dataset: Dataset, user_ids: pl.Series, candidates: CandidateIds) -> list[Int[np.ndarray, " _"]]:
    if not isinstance(candidates, Mapping):
        return [_rows(dataset, candidates, "the list of candidates")] * len(user_ids)
    rows = rows_of(user_ids.unique(maintain_order=True), as_ids(list(candidates), name="the users of candidates"))
    named = dict(zip(rows.to_list(), candidates.values(), strict=True))  # as the caller writes an id: "1" is 1
    own = {
        user: as_ids(named.get(row, ()), name=f"the candidates of user {user!r}")
        for row, user in enumerate(user_ids.unique(maintain_order=True))
    }
    without = [user for user, ids in own.items() if ids.is_empty()]
    if without:
        raise DataError(
            f"{len(without):,} of {len(user_ids):,} users have no candidates; first: {first_few(without)}. Give each "
            "user some, or leave these users out"
        )
    return [_rows(dataset, own[user], f"the candidates of user {user!r}") for user in user_ids]


def _rows(dataset: Dataset, item_ids: Iterable[Any], where: str) -> Int[np.ndarray, " candidate"]:
    if not len(item_ids := as_ids(item_ids, name=where)):
        raise DataError(f"{where} is empty: give at least one item")
    rows = dataset.item_rows(item_ids)
    if len(np.unique(rows)) < len(rows):
        values, counts = np.unique(rows, return_counts=True)
        raise DataError(
            f"{where} name {int((counts > 1).sum()):,} items twice; first: "
            f"{first_few(dataset.item_ids[values[counts > 1]])}. Name each once"
        )
    return rows
