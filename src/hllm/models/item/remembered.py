"""An Item LLM with a memory: items that come without their text are read as it last gave them."""

# Proved by tests/training/test_reuse.py.

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from hllm.batches.batch import ItemBatch
from hllm.models.tiers import ItemEncoder, ReadingItemEncoder


class RememberingItemEncoder(ItemEncoder):
    """Gives what `encoder` gives; of items whose text is not in the batch, what it gave when their text last was.

    Remembered are raw vectors, before the projector, so the projector learns from every item. Nothing that is
    remembered carries a gradient to the language model.

    Source of the idea: Wang et al., "Cross-Batch Memory for Embedding Learning", arXiv:1912.06798. Differs from it:
    each item has one place in the memory, filled before the first step, instead of a queue of recent ones.
    """

    memory: Tensor

    def __init__(self, encoder: ReadingItemEncoder, memory: Float[Tensor, "num_items width"]) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("memory", memory, persistent=False)

    @property
    @override
    def reader(self) -> ReadingItemEncoder:
        return self.encoder

    @property
    @override
    def remembered(self) -> Float[Tensor, "num_items width"]:
        return self.memory

    @override
    def forward(self, items: ItemBatch) -> Float[Tensor, "item dim"]:
        read = (items.lengths > 0).nonzero().squeeze(-1)
        pooled = self.memory[items.index]
        if len(read):
            rows = read.to(pooled.device, non_blocking=True)
            fresh = self.encoder.pool(items.take(read.numpy())).to(pooled.dtype)
            self.memory[items.index[rows]] = fresh.detach()
            pooled = torch.index_put(pooled, (rows,), fresh)
        return self.encoder.project(pooled)
