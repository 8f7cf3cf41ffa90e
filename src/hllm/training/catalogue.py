"""Catalogue: read all items through the item tier, for whitening, frozen stages and validations."""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from hllm.batches.batch import ItemBatch
from hllm.embedding.encode import encode_catalogue
from hllm.models.item.cached import CachedItemEncoder
from hllm.models.item.remembered import RememberingItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.tiers import ItemEncoder, ReadingItemEncoder
from hllm.precision import Precision
from hllm.training.parallel import Parallel
from hllm.training.training_data import TrainingData


@final
class Catalogue:
    """The items of a run, as their texts' tokens, on the device that trains.

    The vectors that the language model made last are kept on the host. Their stamp is the number of changes that each
    of its weights had seen. So they are made again only after the weights have moved.
    """

    def __init__(self, data: TrainingData, precision: Precision, parallel: Parallel) -> None:
        self.data = data
        self.precision: Precision = precision
        self.parallel = parallel
        self._stamp: tuple[int, ...] | None = None
        self._pooled = torch.empty(0, 0)

    def embeddings(self, encoder: ItemEncoder) -> Float[Tensor, "num_items dim"]:
        """Return every item's embedding, for a validation; the encoder is in evaluation mode."""
        reader = encoder.reader
        if reader is not None:
            pooled = self.pooled(reader)
            if encoder.remembered is not None:
                encoder.remembered.copy_(pooled)
            if reader.projector is None:
                return pooled
            encoder = CachedItemEncoder(reader, pooled)
        return self._encoded(encoder, "validate")

    def pooled(self, reader: ReadingItemEncoder) -> Float[Tensor, "num_items width"]:
        """Return the language model's own vector of every item, before the projector."""
        stamp = tuple(parameter._version for parameter in reader.reading_parameters())
        if stamp != self._stamp:
            reader.eval()
            self._pooled = self._encoded(reader.pool, "encode items").cpu()
            self._stamp = stamp
        return self._pooled.to(self.parallel.device)

    def _encoded(self, encode: Callable[[ItemBatch], Tensor], label: str) -> Tensor:
        return encode_catalogue(
            encode,
            self.data.dataset.num_items,
            self.data.tokens,
            device=self.parallel.device,
            precision=self.precision,
            label=label,
            group=self.parallel.group,
        )

    def fit_whitening(self, model: SequentialRecommender) -> None:
        """Fit the whitening of a projector that asks for it, to the items that are known in training."""
        reader = model.item_encoder.reader
        if reader is not None and reader.whitens:
            known = torch.from_numpy(~self.data.split.withheld(self.data.dataset)).to(self.parallel.device)
            reader.fit_whitening(self.pooled(reader)[known])

    def frozen(self, model: SequentialRecommender) -> SequentialRecommender:
        """Return the same model with its language model replaced by the vectors it gives now."""
        reader = model.item_encoder.reader
        if reader is None:
            return model
        return model.with_items(CachedItemEncoder(reader, self.pooled(reader))).to(self.parallel.device)

    def remembering(
        self, model: SequentialRecommender, memory: Float[Tensor, "num_items width"] | None
    ) -> SequentialRecommender:
        """Return the same model with a memory of the item vectors: `memory`, or else the vectors of now."""
        reader = model.item_encoder.reader
        assert reader is not None, "the recipe has seen to it"
        vectors = self.pooled(reader).clone() if memory is None else memory
        return model.with_items(RememberingItemEncoder(reader, vectors)).to(self.parallel.device)
