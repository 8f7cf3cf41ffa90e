"""Exact retrieval: score the whole catalogue for a tile of users, keep the best, go on."""

from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from hllm.metrics import UNREACHABLE, TargetRanks
from hllm.retrieval.retriever import Histories, Recommendations, Scorer

USERS_PER_TILE = 256


@final
class ExactRetriever:
    """A Retriever over any Scorer; memory is one tile of users times the catalogue."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def recommend(
        self,
        histories: Histories,
        k: int,
        *,
        exclude: Histories | None = None,
        candidates: Bool[np.ndarray, " item"] | None = None,
    ) -> Recommendations:
        """Return the k best items of each user; see Retriever."""
        width = min(k, self.scorer.num_items)
        items = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for start in range(0, len(histories), USERS_PER_TILE):
            tile = slice(start, start + USERS_PER_TILE)
            allowed = self._scores(histories[tile], exclude[tile] if exclude is not None else None)
            if candidates is not None:
                allowed[:, ~candidates] = -np.inf
            # Partial selection first. Its boundary may cut through equal scores, so take every item as good as
            # the k-th, then order by score and, within equal scores, by catalogue order.
            threshold = np.partition(allowed, -width, axis=1)[:, -width]
            for row, (values, least) in enumerate(zip(allowed, threshold, strict=True)):
                good = np.flatnonzero((values >= least) & np.isfinite(values))
                best = good[np.argsort(-values[good], kind="stable")][:width]
                items[start + row, : len(best)] = best
                scores[start + row, : len(best)] = values[best]
        return Recommendations(items, scores)

    def rank(self, histories: Histories, targets: Int[np.ndarray, " user"], exclude: Histories) -> TargetRanks:
        """Count the items above and level with each target; see Retriever."""
        better = np.zeros(len(histories), dtype=np.int64)
        tied = np.zeros(len(histories), dtype=np.int64)
        for start in range(0, len(histories), USERS_PER_TILE):
            tile = slice(start, start + USERS_PER_TILE)
            scores = self._scores(histories[tile], exclude[tile])
            target = scores[np.arange(len(scores)), targets[tile]][:, None]
            impossible = np.isneginf(target[:, 0])
            better[tile] = np.where(impossible, UNREACHABLE, (scores > target).sum(1))
            tied[tile] = np.where(impossible, 0, (scores == target).sum(1) - 1)
        return TargetRanks(better, tied)

    def _scores(self, histories: Histories, exclude: Histories | None) -> Float[np.ndarray, "user item"]:
        scores = self.scorer.score(histories)
        if not np.isfinite(scores).all():
            raise FloatingPointError(f"{type(self.scorer).__name__} gave scores that are not finite")
        if exclude is not None:
            for row, items in zip(scores, exclude, strict=True):
                row[items] = -np.inf
        return scores
