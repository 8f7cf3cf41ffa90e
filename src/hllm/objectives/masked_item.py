"""The masked-item objective: tell the items behind [MASK] from the negatives, for tiers that read both ways."""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from hllm.batches.batch import SequenceBatch
from hllm.config import Config
from hllm.errors import ConfigError
from hllm.losses.contrastive import LossConfig, contrast
from hllm.models.recommender import SequentialRecommender
from hllm.models.tiers import by_length
from hllm.models.user.bert4rec import BERT4Rec
from hllm.objectives.objective import Outcome


class MaskedItemConfig(Config):
    """Which items of a training window are masked."""

    masked_share: float = Field(default=0.2, gt=0, lt=1)
    """Chance of each of a window's items but its first; at least one is masked."""
    last_share: float = Field(default=0.1, ge=0, le=1)
    """Share of windows of which only the last item is masked, as it is when scoring."""


@final
@dataclass(frozen=True)
class MaskedItem:
    """The contrastive loss of the user embeddings at masked positions with the items that stood there.

    A window is the history's first item and all targets. The first is never masked: it has no negatives of its own.
    What is masked comes from torch's default generator, seeded as dropout is. Raises ConfigError for a user tier
    without [MASK].

    Source: BERT4Rec, arXiv:1904.06690, section 3.6. Differs from the paper: whole windows are drawn for the last
    item, instead of an epoch's worth of them; and the loss is the project's.
    """

    config: MaskedItemConfig
    loss: LossConfig
    num_items: int
    """Size of the catalogue."""

    def __call__(
        self, model: SequentialRecommender, items: Float[Tensor, "item dim"], batch: SequenceBatch, count: int
    ) -> Outcome:
        """See Objective."""
        encoder = model.user_encoder
        if not isinstance(encoder, BERT4Rec):
            raise ConfigError(
                f"{type(encoder).__name__} has no [MASK] to fill in: the masked-item objective needs "
                'model.user.kind = "bert4rec"'
            )
        chosen = choose_masked(batch.mask, self.config)
        rows = torch.cat([batch.history[:, :1], batch.targets], dim=1)
        mask = torch.cat([batch.mask[:, :1], batch.mask], dim=1)
        # Of a window's last item the batch tells neither time nor action; a recipe that reads them is refused.
        times, actions = (torch.cat([log, log[:, -1:]], dim=1) for log in (batch.times, batch.actions))
        history = model.history(
            F.embedding(rows, items), mask, items=batch.items.index[rows], times=times, actions=actions
        )
        hidden = torch.cat([torch.zeros_like(chosen[:, :1]), chosen], dim=1)
        users = by_length(encoder, encoder.masked(history, hidden), batch.lengths + 1)
        targets = batch.targets[chosen]  # (query,), rows of batch.items
        own = batch.own_negatives
        result = contrast(
            self.loss,
            users[hidden],
            F.embedding(targets, items),
            items,
            batch.negatives if own is None else own[chosen[batch.mask]],
            positive_ids=targets,
            scale=model.scale,
            similarity=model.similarity,
            log_q=batch.expected_counts.log() if self.loss.log_q else None,
            num_items=self.num_items,
            count=count,
        )
        return Outcome(result.loss, len(targets), {"top1": result.top1, "masked_negatives": result.masked})


def choose_masked(targets: Bool[Tensor, "batch position"], config: MaskedItemConfig) -> Bool[Tensor, "batch position"]:
    """Return which of the real `targets` are masked, at least one in each row.

    Each is chosen with probability `masked_share`; a row that gets none masks one of them, all equally likely. In a
    share `last_share` of the rows it is the last one and no other.
    """
    draws = torch.rand(targets.shape, device=targets.device).masked_fill(~targets, 2.0)
    lowest = draws == draws.amin(-1, keepdim=True)
    chosen = (draws < config.masked_share) | lowest
    position = torch.arange(targets.shape[1], device=targets.device)
    last = position == targets.sum(-1, keepdim=True) - 1
    only_last = torch.rand(len(targets), 1, device=targets.device) < config.last_share
    return torch.where(only_last, last, chosen) & targets
