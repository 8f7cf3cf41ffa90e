"""The two tiers of a sequential recommender, as interfaces: items to vectors, histories to user vectors."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hllm.data.batch import ItemBatch


@dataclass(frozen=True)
class History:
    """Sequences of item embeddings, oldest first, padded on the right."""

    embeddings: Float[Tensor, "batch position dim"]
    mask: Bool[Tensor, "batch position"]
    times: Int[Tensor, "batch position"]
    """When each item was met, in seconds since 1970; for tiers with `reads_times`."""


class ItemEncoder(nn.Module, ABC):
    """The item tier: one embedding for each item of a batch."""

    @abstractmethod
    def forward(self, items: ItemBatch) -> Float[Tensor, "item dim"]:
        """Return the items' embeddings, in the order given, not normalised."""


class UserEncoder(nn.Module, ABC):
    """The user tier: at each position, an embedding of the user."""

    causal: bool
    """Whether a position reads only itself and those before it; else it is trained by the masked-item objective."""
    reads_times: bool
    """Whether `History.times` matters."""

    @abstractmethod
    def forward(self, history: History) -> Float[Tensor, "batch position dim"]:
        """Return what the user may want at each position: next, if causal; in its place, if not.

        Values where the mask is False mean nothing.
        """

    @abstractmethod
    def after(self, history: History) -> Float[Tensor, "batch dim"]:
        """Return what each user may want after the whole history, which has at least one item."""


def at_last(
    states: Float[Tensor, "batch position dim"], mask: Bool[Tensor, "batch position"]
) -> Float[Tensor, "batch dim"]:
    """Return the states at the last real position of each row."""
    return states[torch.arange(len(states), device=states.device), mask.sum(-1) - 1]
