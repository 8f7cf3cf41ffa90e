"""The whole catalogue through the item tier, where training needs that: whitening, and vectors that are kept."""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from hllm.batches.batch import ItemBatch
from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.data.tokens import TokenCache
from hllm.distributed import Group
from hllm.embedding.encode import encode_catalogue
from hllm.models.item.cached import CachedItemEncoder
from hllm.models.item.remembered import RememberingItemEncoder
from hllm.models.item.text import TextItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.tiers import ItemEncoder
from hllm.precision import Precision


@final
class Catalogue:
    """The items of a run, as their texts' tokens, on the device that trains."""

    def __init__(
        self, dataset: Dataset, tokens: TokenCache | None, *, device: torch.device, precision: Precision, group: Group
    ) -> None:
        self.dataset = dataset
        self.tokens = tokens
        self.device = device
        self.precision: Precision = precision
        self.group = group
        self._pooled: Tensor | None = None

    def embeddings(self, encoder: ItemEncoder) -> Float[Tensor, "num_items dim"]:
        """Return every item's embedding, for a validation; the encoder is in evaluation mode."""
        if isinstance(encoder, TextItemEncoder | RememberingItemEncoder):
            reader = encoder if isinstance(encoder, TextItemEncoder) else encoder.encoder
            pooled = self.pooled(reader)
            if isinstance(encoder, RememberingItemEncoder):
                encoder.memory.copy_(pooled)
            if reader.projector is None:
                return pooled
            encoder = CachedItemEncoder(reader, pooled)
        return self._encoded(encoder, "validate")

    def pooled(self, encoder: TextItemEncoder) -> Float[Tensor, "num_items width"]:
        """Return the language model's own vector of every item, before the projector; made once, until `forget`."""
        if self._pooled is None:
            encoder.eval()
            self._pooled = self._encoded(encoder.pool, "encode items")
        return self._pooled

    def forget(self) -> None:
        """Drop the vectors that were made once: the language model is about to change, or has changed."""
        self._pooled = None

    def _encoded(self, encode: Callable[[ItemBatch], Tensor], label: str) -> Tensor:
        return encode_catalogue(
            encode, self.dataset.num_items, self.tokens,
            device=self.device, precision=self.precision, label=label, group=self.group,
        )  # fmt: skip

    def fit_whitening(self, model: SequentialRecommender, split: Split) -> None:
        """Fit the whitening of a projector that asks for it, to the items that are known in training."""
        encoder = model.item_encoder
        if isinstance(encoder, TextItemEncoder) and encoder.projector is not None and encoder.projector.whiten:
            known = torch.from_numpy(~split.withheld(self.dataset)).to(self.device)
            encoder.projector.fit_whitening(self.pooled(encoder)[known])

    def frozen(self, model: SequentialRecommender) -> SequentialRecommender:
        """Return the same model with its language model replaced by the vectors it gives now."""
        encoder = model.item_encoder
        if not isinstance(encoder, TextItemEncoder):
            return model
        return model.with_items(CachedItemEncoder(encoder, self.pooled(encoder))).to(self.device)

    def remembering(
        self, model: SequentialRecommender, memory: Float[Tensor, "num_items width"] | None
    ) -> SequentialRecommender:
        """Return the same model with a memory of the item vectors: the one given, or else the vectors of now."""
        encoder = model.item_encoder
        assert isinstance(encoder, TextItemEncoder), "the recipe has seen to it"
        return model.with_items(RememberingItemEncoder(encoder, self.pooled(encoder) if memory is None else memory)).to(
            self.device
        )
