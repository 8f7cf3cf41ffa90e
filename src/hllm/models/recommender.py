"""SequentialRecommender: an item tier and a user tier. HLLM is the case where both are language models."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hllm.data.batch import SequenceBatch
from hllm.models.tiers import History, ItemEncoder, UserEncoder

MAX_SCALE = 100.0


@dataclass(frozen=True)
class Encoded:
    """What both tiers make of a batch."""

    items: Float[Tensor, "item dim"]
    """Embedding of each distinct item."""
    users: Float[Tensor, "batch position dim"]
    """Embedding of the user at each position."""


class SequentialRecommender(nn.Module):
    """Two tiers and the learnt scale (1 / temperature) of their cosine."""

    def __init__(self, item_encoder: ItemEncoder, user_encoder: UserEncoder, *, scale: float = 1 / 0.07) -> None:
        super().__init__()
        self.item_encoder = item_encoder
        self.user_encoder = user_encoder
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """Return the factor on cosines. Source: arXiv:2409.12740, `logit_scale`."""
        return torch.exp(self.log_scale)

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Bring the scale back between 1 and 100; called after every optimizer step.

        Differs from the reference, which clamps a bf16 copy and lets the fp32 master drift out of range.
        """
        self.log_scale.clamp_(0.0, math.log(MAX_SCALE))

    def forward(self, batch: SequenceBatch) -> Encoded:
        """Encode each distinct item once, arrange the embeddings into histories, and encode those."""
        items = self.item_encoder(batch.items)
        return Encoded(items, self.user_encoder(History(items[batch.history], batch.mask)))

    def encode_users(
        self,
        table: Float[Tensor, "item dim"],
        history: Int[Tensor, "batch position"],
        mask: Bool[Tensor, "batch position"],
    ) -> Float[Tensor, "batch dim"]:
        """Return each user's embedding after the last real position; histories are rows of `table`."""
        users: Tensor = self.user_encoder(History(table[history], mask))
        last = mask.sum(-1) - 1
        return users[torch.arange(len(users), device=users.device), last]
