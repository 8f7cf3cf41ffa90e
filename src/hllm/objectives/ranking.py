"""The ranking objective: the labels of candidates by cross-entropy, beside the next-item loss over the history."""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hllm.batches.batch import SequenceBatch
from hllm.data.labels import UNKNOWN
from hllm.models.recommender import SequentialRecommender
from hllm.objectives.next_item import NextItem
from hllm.objectives.objective import Outcome


@final
@dataclass(frozen=True)
class Ranking:
    """λ · L_gen + L_cls: the next-item loss, and binary cross-entropy over all labelled (candidate, target) pairs.

    Both come from one pass over the histories. Each is a mean over the whole optimizer step: L_gen over positions,
    L_cls over labels. Raises ConfigError for a model without heads.

    Source: arXiv:2409.12740, section 3.3, equation 3.
    """

    next_item: NextItem
    generative_weight: float
    """λ; 0 computes no next-item loss."""

    def __call__(
        self, model: SequentialRecommender, items: Float[Tensor, "item dim"], batch: SequenceBatch, count: int
    ) -> Outcome:
        """See Objective."""
        points = batch.points
        assert points is not None, "the loader of a ranking stage draws points"
        history = model.histories(items, batch)
        users, logits = model.rank(
            history, F.embedding(points.candidates, items), batch.items.index[points.candidates], points.anchors
        )
        known = points.labels != UNKNOWN
        with torch.autocast(logits.device.type, enabled=False):
            losses = F.binary_cross_entropy_with_logits(
                logits.float(), points.labels.clamp(min=0).float(), reduction="none"
            )
            classification = (losses * known).sum() / max(1, points.num_labels)
        num_queries = batch.num_targets
        # Numbers are averaged by queries; this one is a mean over labels.
        numbers = {"classification": classification.detach() * count / max(1, num_queries)}
        if not self.generative_weight:
            return Outcome(classification, num_queries, numbers | {"masked_negatives": torch.zeros(())})
        generative = self.next_item.of_users(model, items, batch, users, count)
        numbers |= generative.numbers | {"next_item": generative.loss.detach() * count / max(1, num_queries)}
        return Outcome(self.generative_weight * generative.loss + classification, num_queries, numbers)
