"""A trained model as a Ranker: one pass over each history, a logit of every target for each of its candidates."""

# Proved by tests/training/test_ranking.py.

from collections.abc import Sequence
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int

from hllm.batches.batch import pad
from hllm.precision import autocast
from hllm.progress import Progress
from hllm.retrieval.histories import Histories
from hllm.retrieval.scorer import POSITIONS_PER_BATCH, ModelScorer

Candidates = Sequence[Int[np.ndarray, " _"]]
"""Item indices to score for each history."""


@runtime_checkable
class Ranker(Protocol):
    """Scores given candidates."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the predicted targets, such as "click"."""

    def logits(
        self, histories: Histories, candidates: Candidates, *, advance: Progress | None = None
    ) -> list[Float[np.ndarray, "_ target"]]:
        """Return, for each history, the logits of its candidates; sigmoid makes them probabilities.

        `advance` is told of every history that is done.
        """


def finite_logits(
    ranker: Ranker, histories: Histories, candidates: Candidates, *, advance: Progress | None = None
) -> list[Float[np.ndarray, "_ target"]]:
    """Return the logits of a ranker; FloatingPointError for one that is not finite, which nothing can be ranked by."""
    logits = ranker.logits(histories, candidates, advance=advance)
    if not all(np.isfinite(values).all() for values in logits):
        raise FloatingPointError(f"{type(ranker).__name__} gave logits that are not finite")
    return logits


@final
class ModelRanker:
    """The user tier and the heads over a table of item embeddings; the Item LLM is not needed.

    Raises ConfigError for a model without heads.
    """

    def __init__(self, scorer: ModelScorer) -> None:
        self.scorer = scorer
        self.ranker = scorer.model.require_ranker()

    @property
    def targets(self) -> tuple[str, ...]:
        """Return the names of the heads."""
        return self.ranker.names

    @torch.no_grad()
    def logits(
        self, histories: Histories, candidates: Candidates, *, advance: Progress | None = None
    ) -> list[Float[np.ndarray, "_ target"]]:
        """Return fp32 logits after the latest `max_history` items of each history, which may be empty; see Ranker."""
        scorer = self.scorer
        scorer.require_log(histories)
        scores = [np.zeros((0, len(self.targets)), dtype=np.float32)] * len(histories)
        lengths = np.minimum(histories.lengths, scorer.max_history)
        numbers = np.array([len(c) for c in candidates], dtype=np.int64)
        order = np.lexsort((numbers, lengths))  # neighbours of like size, little padding
        widest = scorer.max_history + int(numbers.max(initial=1))
        per_batch = max(1, POSITIONS_PER_BATCH[scorer.device.type] // widest)
        for start in range(0, len(order), per_batch):
            chosen = order[start : start + per_batch]
            padded = torch.from_numpy(pad([candidates[int(n)] for n in chosen])[0]).to(scorer.device)[:, None]
            anchors = torch.from_numpy(lengths[chosen, None] - 1).to(scorer.device)
            with autocast(scorer.precision, scorer.device):
                history = scorer.read(histories, chosen)
                _, logits = scorer.model.rank(history, scorer.table[padded], padded, anchors)
            for number, values in zip(chosen, logits[:, 0].float().cpu().numpy(), strict=True):
                scores[number] = values[: numbers[number]]
            if advance is not None:
                advance(len(chosen))
        return scores
