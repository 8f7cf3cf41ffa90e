"""An item tier without text: one learnt vector for each item of the catalogue."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from hllm.config import Config
from hllm.data.batch import ItemBatch
from hllm.errors import DataError
from hllm.models.tiers import ItemEncoder


class IdItemConfig(Config):
    """An item tier that knows items by their number only, as SASRec does."""

    kind: Literal["id"] = "id"


class IdItemEncoder(ItemEncoder):
    """An embedding table over item_index, drawn from N(0, 0.02²)."""

    def __init__(self, num_items: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_items, dim)
        nn.init.normal_(self.embedding.weight, std=0.02)

    @override
    def forward(self, items: ItemBatch) -> Float[Tensor, "item dim"]:
        """Raise DataError for an item that is known only by its text."""
        if bool((items.index < 0).any()):
            raise DataError("this model knows items by id only: it cannot embed a text; train one with an Item LLM")
        vectors: Tensor = self.embedding(items.index)
        return vectors
