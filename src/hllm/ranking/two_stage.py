"""Retrieve, then rank: a Retriever that takes the first n of another and puts them in the order of a Ranker."""

from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from hllm.errors import ConfigError, nearest
from hllm.metrics import UNREACHABLE, TargetRanks
from hllm.ranking.ranker import Ranker, finite_logits
from hllm.retrieval.histories import Histories, ItemLists
from hllm.retrieval.retriever import Recommendations, Retriever


@final
class TwoStageRetriever:
    """The `num_retrieved` best items of `retriever`, re-ordered by the logit of one target of `ranker`.

    Both must be over the same catalogue. Raises ConfigError for a target that the ranker does not have.
    """

    def __init__(
        self, retriever: Retriever, ranker: Ranker, *, num_retrieved: int = 200, target: str | None = None
    ) -> None:
        """`target` None: the ranker's first."""
        if num_retrieved < 1:
            raise ConfigError(f"num_retrieved is {num_retrieved}; it must be at least 1")
        self.retriever = retriever
        self.ranker = ranker
        self.num_retrieved = num_retrieved
        self.column = target_column(ranker, target)

    def recommend(
        self,
        histories: Histories,
        k: int,
        *,
        exclude: ItemLists | None = None,
        candidates: Bool[np.ndarray, " item"] | None = None,
    ) -> Recommendations:
        """Return the k best of the retrieved items, at most `num_retrieved`, with their logits; see Retriever."""
        best = self.retriever.recommend(histories, self.num_retrieved, exclude=exclude, candidates=candidates)
        items = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        retrieved = self._in_catalogue_order(best)
        for row, (own, logits) in enumerate(zip(retrieved, self._logits(histories, retrieved), strict=True)):
            order = np.argsort(-logits, kind="stable")[:k]
            items[row, : len(order)], scores[row, : len(order)] = own[order], logits[order]
        return Recommendations(items, scores)

    def rank(self, histories: Histories, targets: Int[np.ndarray, " user"], exclude: ItemLists) -> TargetRanks:
        """Return where each target stands: by the ranker if it is retrieved, else behind all that are.

        Items that are not retrieved keep the retriever's order among themselves. So a target that an approximate index
        misses stands behind all that was retrieved, however high it scores.
        """
        best = self.retriever.recommend(histories, self.num_retrieved, exclude=exclude)
        retrieved = self._in_catalogue_order(best)
        taken = [np.append(own, seen) for own, seen in zip(retrieved, exclude, strict=True)]
        rest = self.retriever.rank(histories, targets, taken)
        better, tied = rest.better.copy(), rest.tied.copy()
        for row, (own, logits) in enumerate(zip(retrieved, self._logits(histories, retrieved), strict=True)):
            place = np.flatnonzero(own == targets[row])
            if len(place):
                of_target = logits[place[0]]
                better[row], tied[row] = (logits > of_target).sum(), (logits == of_target).sum() - 1
            elif better[row] != UNREACHABLE:
                better[row] += len(own)
        return TargetRanks(better, tied)

    def _logits(self, histories: Histories, candidates: list[Int[np.ndarray, " _"]]) -> list[Float[np.ndarray, " _"]]:
        return [logits[:, self.column] for logits in finite_logits(self.ranker, histories, candidates)]

    def _in_catalogue_order(self, best: Recommendations) -> list[Int[np.ndarray, " _"]]:
        """Return each user's items, each once; equal logits then stay in catalogue order."""
        return [np.unique(row[row >= 0]) for row in best.items]


def target_column(ranker: Ranker, target: str | None) -> int:
    """Return the place of a target among the ranker's; None is the first. ConfigError if it is unknown."""
    if target is None:
        return 0
    if target not in ranker.targets:
        raise ConfigError(
            f"unknown target {target!r}{nearest(target, ranker.targets)}; the model predicts "
            f"{', '.join(ranker.targets)}"
        )
    return ranker.targets.index(target)
