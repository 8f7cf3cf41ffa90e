"""Exact retrieval: score the whole catalogue for a tile of users, a tile of items at a time, and keep the best."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm.metrics import UNREACHABLE, TargetRanks
from hllm.retrieval.histories import Histories, ItemLists
from hllm.retrieval.retriever import Recommendations, Scorer, VectorScorer
from hllm.retrieval.tiles import GivenScores, Products, ScoreTiles, masked, pairs
from hllm.retrieval.top_k import TopK

USERS_PER_TILE = 256
SCORES_AT_ONCE = 1 << 25  # by a Scorer that gives users' scores for the whole catalogue: 128 MB


@final
class ExactRetriever:
    """A Retriever over any Scorer.

    Memory is one tile of users times one tile of items for a VectorScorer, else times the catalogue; of a large one the
    tile has fewer users.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def recommend(
        self,
        histories: Histories,
        k: int,
        *,
        exclude: ItemLists | None = None,
        candidates: Bool[np.ndarray, " item"] | None = None,
    ) -> Recommendations:
        """Return the k best items of each user; see Retriever."""
        items = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for tile in self._tiles(len(histories)):
            some, excluded = histories[tile], exclude[tile] if exclude is not None else []
            nearest = best(masked(self._scores(some), excluded, candidates), len(some), k)
            items[tile], scores[tile] = nearest.items, nearest.scores
        return Recommendations(items, scores)

    def rank(self, histories: Histories, targets: Int[np.ndarray, " user"], exclude: ItemLists) -> TargetRanks:
        """Count the items above and level with each target; see Retriever."""
        better = np.zeros(len(histories), dtype=np.int64)
        tied = np.zeros(len(histories), dtype=np.int64)
        for tile in self._tiles(len(histories)):
            of_users, excluded = targets[tile], exclude[tile]
            scores = self._scores(histories[tile])
            of_target = scores.of(of_users)
            # A target is no rival of its own.
            no_rivals = [np.append(own, target) for own, target in zip(excluded, of_users, strict=True)]
            for _, values in masked(scores, no_rivals, None):
                above, level = _counts(values, of_target)
                better[tile] += above
                tied[tile] += level
            users, items = pairs(excluded)
            impossible = tile.start + users[items == of_users[users]]
            better[impossible], tied[impossible] = UNREACHABLE, 0
        return TargetRanks(better, tied)

    def _tiles(self, num_users: int) -> Iterator[slice]:
        """Yield the users that are scored together."""
        step = USERS_PER_TILE
        if not isinstance(self.scorer, VectorScorer):
            step = max(1, min(step, SCORES_AT_ONCE // max(1, self.scorer.num_items)))
        return (slice(start, start + step) for start in range(0, num_users, step))

    def _scores(self, histories: Histories) -> ScoreTiles:
        if isinstance(self.scorer, VectorScorer):
            queries = self.scorer.queries(histories)
            # No product can overflow if this one does not: |q·k| <= |q||k|.
            self._require_finite(bool(torch.isfinite(_longest(queries) * self._longest_key)))
            return Products(queries, self.scorer.keys)
        scores = self.scorer.score(histories)
        self._require_finite(bool(np.isfinite(scores).all()))
        return GivenScores(scores)

    @cached_property
    def _longest_key(self) -> Float[Tensor, ""]:
        assert isinstance(self.scorer, VectorScorer)
        return _longest(self.scorer.keys)

    def _require_finite(self, finite: bool) -> None:
        if not finite:
            raise FloatingPointError(f"{type(self.scorer).__name__} gave scores that are not finite")


def best(tiles: Iterable[tuple[int, Float[Tensor, "user item"]]], num_users: int, k: int) -> Recommendations:
    """Return the k best items of each user, equal scores in catalogue order, from tiles in catalogue order.

    A tile is its first item and its scores; an item whose score is -inf is left out.
    """
    items = np.full((num_users, k), -1, dtype=np.int64)
    scores = np.full((num_users, k), -np.inf, dtype=np.float32)
    on_device: TopK | None = None
    for first, values in tiles:
        if values.device.type == "cpu":
            _keep_best(items, scores, first, values.numpy())
        else:
            on_device = on_device or TopK(num_users, k, values.device)
            on_device.add(first, values)
    return Recommendations(items, scores) if on_device is None else Recommendations(*on_device.best())


def _longest(vectors: Float[Tensor, "row dim"]) -> Float[Tensor, ""]:
    longest: Float[Tensor, ""] = torch.linalg.vector_norm(vectors, dim=-1).amax()
    return longest


def _counts(
    scores: Float[Tensor, "user item"], of_target: Float[Tensor, " user"]
) -> tuple[Int[np.ndarray, " user"], Int[np.ndarray, " user"]]:
    """Return how many scores are above and level with each user's target."""
    limit = of_target[:, None]
    if scores.device.type != "cpu":
        return (scores > limit).sum(1).cpu().numpy(), (scores == limit).sum(1).cpu().numpy()
    # On a CPU numpy compares and counts four times as fast as torch.
    values, bound = scores.numpy(), limit.numpy()
    equal = values == bound
    return _row_counts(values > bound), _row_counts(equal) if equal.any() else np.zeros(len(values), dtype=np.int64)


def _row_counts(mask: Bool[np.ndarray, "user item"]) -> Int[np.ndarray, " user"]:
    packed = np.packbits(mask, axis=1)  # bits are counted faster than bytes, row by row
    counts: Int[np.ndarray, " user"] = np.bitwise_count(packed).sum(1, dtype=np.int64)
    return counts


def _keep_best(
    items: Int[np.ndarray, "user k"],
    scores: Float[np.ndarray, "user k"],
    first: int,
    values: Float[np.ndarray, "user item"],
) -> None:
    """Merge a tile, whose first item is `first`, into the best so far: `items` and `scores`."""
    k = items.shape[1]
    # Tiles come in catalogue order: an item level with the k-th so far comes after it, and is not among the best.
    good = values > scores[:, -1:]
    number = _row_counts(good)
    for user in np.flatnonzero(number > 4 * k):
        # Partial selection first. Its boundary may cut through equal scores, so take every item as good as the
        # k-th, then order by score and, within equal scores, by catalogue order.
        own = np.flatnonzero(good[user])
        own = own[values[user, own] >= np.partition(values[user, own], -k)[-k]]
        own = own[np.argsort(-values[user, own], kind="stable")][:k]
        good[user] = False
        good[user, own] = True
        number[user] = k
    users, columns = np.nonzero(good)
    if not len(users):
        return
    place = k + np.arange(len(users)) - np.repeat(np.cumsum(number) - number, number)
    width = k + number.max()
    all_items, all_scores = np.full((len(items), width), -1), np.full((len(items), width), -np.inf, dtype=np.float32)
    all_items[:, :k], all_scores[:, :k] = items, scores
    all_items[users, place], all_scores[users, place] = first + columns, values[users, columns]
    order = np.argsort(-all_scores, axis=1, kind="stable")[:, :k]
    items[:], scores[:] = np.take_along_axis(all_items, order, 1), np.take_along_axis(all_scores, order, 1)
