"""The masked-item objective: tell the items behind [MASK] from the negatives, for tiers that read both ways."""

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from hllm.batches.batch import SequenceBatch
from hllm.errors import ConfigError
from hllm.losses.contrastive import check_prefixes, contrast
from hllm.models.build import ModelConfig
from hllm.models.recommender import SequentialRecommender
from hllm.models.tiers import MaskingEncoder, by_length
from hllm.objectives.objective import ContrastiveConfig, ObjectiveConfig, ObjectiveFacts, Outcome
from hllm.parts import Spec
from hllm.precision import take_rows


@final
class MaskedItemConfig(ContrastiveConfig, ObjectiveConfig):
    """Hide items of a training window and ask for them, for user tiers that read both ways (BERT4Rec)."""

    kind: Literal["masked-item"] = "masked-item"
    masked_share: float = Field(default=0.2, gt=0, lt=1)
    """Chance of each of a window's items but its first to be masked; at least one is masked."""
    last_share: float = Field(default=0.1, ge=0, le=1)
    """Share of windows of which only the last item is masked, as it is when scoring."""

    @property
    @override
    def described(self) -> str:
        shares = f"masked_share = {self.masked_share:g}, last_share = {self.last_share:g}"
        return f"masked items ({shares}): {super().described}"

    @override
    def num_queries(self, targets: Float[np.ndarray, " window"]) -> Float[np.ndarray, " window"]:
        return self.last_share + (1 - self.last_share) * np.maximum(1.0, self.masked_share * targets)

    @override
    def check(self, model: ModelConfig) -> None:
        super().check(model)
        if model.inputs.timestamp or model.inputs.action:
            raise ValueError(
                f'objective.kind = "{self.kind}" hides items, and a hidden item has no time and no action: set '
                "model.inputs.timestamp = 0 and model.inputs.action = false"
            )


@final
@dataclass(frozen=True)
class MaskedItem:
    """The contrastive loss of the user embeddings at masked positions with the items that stood there.

    A window is the history's first item and all targets. The first is never masked: it has no negatives of its own.
    The masked positions come from torch's default generator, seeded as dropout is. Raises ConfigError for a user tier
    without [MASK].

    Source: BERT4Rec, arXiv:1904.06690, section 3.6. Differs from the paper: whole windows are drawn for the last
    item, instead of an epoch's worth of them; and the loss is the project's.
    """

    config: MaskedItemConfig
    num_items: int
    """Items that training knows: the catalogue without those that the split withholds."""

    def __call__(
        self, model: SequentialRecommender, items: Float[Tensor, "item dim"], batch: SequenceBatch, count: int | float
    ) -> Outcome:
        """See Objective."""
        encoder = model.user_encoder
        if not isinstance(encoder, MaskingEncoder):
            raise ConfigError(
                f"{type(encoder).__name__} has no [MASK] to fill in: the masked-item objective needs "
                'model.user.kind = "bert4rec"'
            )
        loss = self.config.loss
        chosen = choose_masked(batch.mask, self.config)
        rows = torch.cat([batch.history[:, :1], batch.targets], dim=1)
        mask = torch.cat([batch.mask[:, :1], batch.mask], dim=1)
        # The batch has neither time nor action of a window's last item; a recipe that reads them is refused.
        times, actions = (torch.cat([log, log[:, -1:]], dim=1) for log in (batch.times, batch.actions))
        history = model.history(
            take_rows(items, rows), mask, items=batch.items.index[rows], times=times, actions=actions
        )
        hidden = torch.cat([torch.zeros_like(chosen[:, :1]), chosen], dim=1)
        users = by_length(encoder, encoder.masked(history, hidden), batch.lengths + 1)
        targets = batch.targets[chosen]  # (query,), rows of batch.items
        own, weights = batch.own_negatives, batch.query_weights
        weights = None if weights is None else weights[chosen[batch.mask]]
        result = contrast(
            loss,
            users[hidden],
            take_rows(items, targets),
            items,
            batch.negatives if own is None else own[chosen[batch.mask]],
            positive_ids=targets,
            scale=model.scale,
            similarity=model.similarity,
            log_q=batch.odds(chosen.nonzero()[:, 0]) if loss.log_q else None,
            num_items=self.num_items,
            weights=weights,
            count=count,
        )
        numbers = {"top1": result.top1, "masked_negatives": result.masked}
        weight = len(targets) if weights is None else float(weights.sum(dtype=torch.float64))
        return Outcome(result.loss, len(targets), numbers, weight)


def choose_masked(targets: Bool[Tensor, "batch position"], config: MaskedItemConfig) -> Bool[Tensor, "batch position"]:
    """Choose among the real `targets` those that are masked, at least one in each row.

    Each is chosen with probability `masked_share`. A row that gets none masks one of them, all equally likely. In a
    share `last_share` of the rows it is the last one and no other.
    """
    draws = torch.rand(targets.shape, device=targets.device).masked_fill(~targets, 2.0)
    lowest = draws == draws.amin(-1, keepdim=True)
    chosen = (draws < config.masked_share) | lowest
    position = torch.arange(targets.shape[1], device=targets.device)
    last = position == targets.sum(-1, keepdim=True) - 1
    only_last = torch.rand(len(targets), 1, device=targets.device) < config.last_share
    return torch.where(only_last, last, chosen) & targets


def _build(config: MaskedItemConfig, *, num_items: int, dim: int) -> MaskedItem:
    check_prefixes(config.loss, dim)
    return MaskedItem(config, num_items)


SPEC = Spec(config=MaskedItemConfig, build=_build, facts=ObjectiveFacts(reads_both_ways=True, makes_users=False))
