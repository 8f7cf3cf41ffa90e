"""The next-item objective: at every position, tell the item that followed from the negatives."""

from dataclasses import dataclass
from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hllm.batches.batch import SequenceBatch
from hllm.losses.contrastive import LossConfig, contrast
from hllm.models.recommender import SequentialRecommender
from hllm.objectives.objective import Outcome


@final
@dataclass(frozen=True)
class NextItem:
    """The contrastive loss of each valid position's user embedding with the next item's.

    Source: arXiv:2409.12740, section 3.2.
    """

    loss: LossConfig
    num_items: int
    """Size of the catalogue."""

    def __call__(
        self, model: SequentialRecommender, items: Float[Tensor, "item dim"], batch: SequenceBatch, count: int
    ) -> Outcome:
        """See Objective."""
        return self.of_users(model, items, batch, model.users(items, batch), count)

    def of_users(
        self,
        model: SequentialRecommender,
        items: Float[Tensor, "item dim"],
        batch: SequenceBatch,
        users: Float[Tensor, "batch position dim"],
        count: int,
    ) -> Outcome:
        """Return the loss of user embeddings that are there already."""
        places = batch.places
        targets = batch.targets.flatten()[places]  # (query,), rows of batch.items
        result = contrast(
            self.loss,
            F.embedding(places, users.flatten(0, 1)),  # its gradient takes a third of the time of users[batch.mask]'s
            F.embedding(targets, items),
            items,
            batch.negatives if batch.own_negatives is None else batch.own_negatives,
            positive_ids=targets,
            scale=model.scale,
            similarity=model.similarity,
            log_q=batch.expected_counts.log() if self.loss.log_q else None,
            num_items=self.num_items,
            count=count,
        )
        numbers = {"top1": result.top1, "masked_negatives": result.masked}
        return Outcome(result.loss, len(targets), numbers)
