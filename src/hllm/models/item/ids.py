"""An item tier without text: one learnt vector for each item of the catalogue."""

# Proved by tests/models/test_recommender.py.

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from hllm.batches.batch import ItemBatch
from hllm.errors import DataError
from hllm.models.kinds import ItemContext, ItemFacts, ItemTierConfig
from hllm.models.tiers import ItemEncoder
from hllm.parts import Spec


class IdItemConfig(ItemTierConfig):
    """An item tier that knows items by their number only, as SASRec does."""

    kind: Literal["id"] = "id"
    dim: int | None = Field(default=None, ge=1)
    """Size of the learnt vectors; a linear map brings them to the user tier's. None: that of the user tier."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of the vectors before training."""


class IdItemEncoder(ItemEncoder):
    """An embedding table over item_index, drawn from N(0, init_std²); with `own_dim`, mapped from there to `dim`.

    Source: the map without bias is that of SASRec-1B in bytedance/HLLM, llmidrec.py.
    """

    def __init__(self, num_items: int, dim: int, *, own_dim: int | None = None, init_std: float = 0.02) -> None:
        super().__init__()
        own_dim = own_dim or dim
        self.embedding = nn.Embedding(num_items, own_dim)
        nn.init.normal_(self.embedding.weight, std=init_std)
        self.projector = nn.Linear(own_dim, dim, bias=False) if own_dim != dim else None
        if self.projector is not None:
            nn.init.normal_(self.projector.weight, std=own_dim**-0.5)  # vectors keep their scale

    @property
    @override
    def projection(self) -> nn.Module | None:
        return self.projector

    @override
    def forward(self, items: ItemBatch) -> Float[Tensor, "item dim"]:
        """Raise DataError for an item that is known only by its text."""
        if bool((items.index < 0).any()):
            raise DataError("this model knows items by id only: it cannot embed a text; train one with an Item LLM")
        vectors: Tensor = self.embedding(items.index)
        return vectors if self.projector is None else self.projector(vectors)


def _build(config: IdItemConfig, context: ItemContext) -> IdItemEncoder:
    return IdItemEncoder(context.num_items, context.dim, own_dim=config.dim, init_std=config.init_std)


SPEC = Spec(config=IdItemConfig, build=_build, facts=ItemFacts(reads_text=False))
