"""The two tiers of a sequential recommender, as interfaces: items to vectors, histories to user vectors."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn

from hllm.data.batch import ItemBatch


@dataclass(frozen=True)
class History:
    """Sequences of item embeddings, oldest first, padded on the right."""

    embeddings: Float[Tensor, "batch position dim"]
    mask: Bool[Tensor, "batch position"]


class ItemEncoder(nn.Module, ABC):
    """The item tier: one embedding for each item of a batch."""

    @abstractmethod
    def forward(self, items: ItemBatch) -> Float[Tensor, "item dim"]:
        """Return the items' embeddings, in the order given, not normalised."""


class UserEncoder(nn.Module, ABC):
    """The user tier: at each position, an embedding of the user after that item."""

    @abstractmethod
    def forward(self, history: History) -> Float[Tensor, "batch position dim"]:
        """Return what the user may want next at each position, from that position and those before it only.

        Values where the mask is False mean nothing.
        """
