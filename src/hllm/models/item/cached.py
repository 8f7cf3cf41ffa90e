"""A frozen Item LLM: its raw vectors are read from memory, and only its projector still learns."""

# Proved by tests/training/test_training.py.

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from hllm.batches.batch import ItemBatch
from hllm.models.tiers import ItemEncoder, ReadingItemEncoder


class CachedItemEncoder(ItemEncoder):
    """The tier gives what `encoder` would give with its language model frozen, at the price of a look-up."""

    cache: Tensor

    def __init__(self, encoder: ReadingItemEncoder, pooled: Float[Tensor, "item width"]) -> None:
        super().__init__()
        self.projector = encoder.projector
        self.register_buffer("cache", pooled, persistent=False)

    @property
    @override
    def projection(self) -> nn.Module | None:
        return self.projector

    @override
    def forward(self, items: ItemBatch) -> Float[Tensor, "item dim"]:
        vectors = self.cache[items.index]
        projected: Tensor = vectors if self.projector is None else self.projector(vectors)
        return projected
