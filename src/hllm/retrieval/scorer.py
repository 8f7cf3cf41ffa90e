"""A trained recommender as a Scorer: histories become user vectors, scores are their similarity to the item table."""

from functools import cached_property
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hllm.batches.batch import pad
from hllm.batches.item_plan import chunks
from hllm.data.arguments import as_count
from hllm.errors import ConfigError, DataError
from hllm.models.recommender import SequentialRecommender
from hllm.models.tiers import History
from hllm.precision import Precision, autocast, resolve_precision
from hllm.retrieval.histories import Histories
from hllm.retrieval.tiles import dot_products

# Padding included. On a CPU a quarter of 16,384 takes .7 of the time (two cores, 943 histories, two layers of
# SmolLM2-135M): a layer's states stay in the cache. Less is no faster.
POSITIONS_PER_BATCH = {"cpu": 4096, "cuda": 16_384}


@final
class ModelScorer:
    """The user tier over a table of item embeddings; the Item LLM is not needed."""

    def __init__(
        self,
        model: SequentialRecommender,
        table: Float[Tensor, "item dim"],
        *,
        max_history: int,
        device: torch.device,
        precision: Precision,
        dim: int | None = None,
    ) -> None:
        """Score with the first `dim` numbers of user and item vectors; None: with all. Histories are read in full.

        Raises ConfigError if the vectors have fewer.
        """
        if dim is not None and as_count(dim, name="dim") > table.shape[1]:
            raise ConfigError(f"the vectors have {table.shape[1]} numbers; dim is {dim}, expected 1 to as many")
        self.model = model
        self.dim = dim
        self.table = table.to(device)
        self.max_history = max_history
        self.device = device
        self.precision = resolve_precision(precision, device)

    @cached_property
    def keys(self) -> Float[Tensor, "item cut"]:
        """Return the items' vectors as they are compared."""
        return self.unit if self.model.similarity == "cosine" else self.comparable(self.table.float())

    @cached_property
    def unit(self) -> Float[Tensor, "item cut"]:
        """Return the items' vectors at length 1, whose products are cosines."""
        return F.normalize(self.table.float()[:, : self.dim], dim=-1, eps=1e-6)

    @property
    def num_items(self) -> int:
        """Return the size of the table."""
        return len(self.table)

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return cosines, or dot products, in fp32; a user without history gets 0 for every item."""
        return dot_products(self.queries(histories), self.keys)

    def queries(self, histories: Histories) -> Float[Tensor, "user cut"]:
        """Return the vectors whose products with `keys` are the scores."""
        return self.comparable(self.users(histories))

    @torch.no_grad()
    def users(self, histories: Histories) -> Float[Tensor, "user dim"]:
        """Return the user embedding after the latest `max_history` elements; zero for a user without history.

        A text is an element like any other, but it has no vector of an id.
        """
        self.require_log(histories)
        vectors = torch.zeros(len(histories), self.table.shape[1], device=self.device)
        lengths = np.minimum(histories.lengths, self.max_history)
        order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
        for run in chunks(lengths[order], max_tokens=POSITIONS_PER_BATCH[self.device.type]):
            chosen = order[run]
            history = self.read(histories, chosen)
            with autocast(self.precision, self.device):
                encoded = self.model.user_encoder.after(history)
            vectors[torch.from_numpy(chosen)] = encoded.float()
        return vectors

    def require_log(self, histories: Histories) -> None:
        """Raise DataError if the model reads times or actions and the histories do not say them."""
        fusion = self.model.fusion
        if fusion is not None and fusion.actions is not None and histories.actions is None:
            raise DataError(
                "this model reads what was done with each item, which a bare list of items does not say; ask for known "
                "users"
            )
        if self.model.reads_times and histories.times is None:
            raise DataError(
                "this model reads when things happened, which a bare list of items does not say; ask for known "
                "users, or give the histories' times"
            )

    def read(self, histories: Histories, users: Int[np.ndarray, " user"]) -> History:
        """Put together the latest `max_history` elements of some of the histories, as the user tier reads them."""
        own = histories[users].latest(self.max_history)
        padded, mask = pad(own.items)
        items = torch.from_numpy(padded).to(self.device)
        times, actions = (
            torch.zeros_like(items) if column is None else torch.from_numpy(pad(column)[0]).to(self.device)
            for column in (own.times, own.actions)
        )
        if own.texts is None:
            vectors = self.table[items]
        else:
            vectors, is_text = self.table[items.clamp(min=0)], items < 0
            vectors[is_text] = own.texts.to(vectors)[-1 - items[is_text]]
        return self.model.history(
            vectors, torch.from_numpy(mask).to(self.device), items=items, times=times, actions=actions
        )

    def over(self, table: Float[Tensor, "item dim"], *, dim: int | None) -> "ModelScorer":
        """Return a scorer like this over another table, with the first `dim` numbers; None: with all."""
        return ModelScorer(
            self.model, table, max_history=self.max_history, device=self.device, precision=self.precision, dim=dim
        )

    def first(self, dim: int | None) -> "ModelScorer":
        """Return a scorer over the same table that scores with the first `dim` numbers; None: with as many as this."""
        return self if dim in (None, self.dim) else self.over(self.table, dim=dim)

    def comparable(self, vectors: Float[Tensor, "row dim"]) -> Float[Tensor, "row cut"]:
        """Return vectors whose dot product is the similarity."""
        vectors = vectors[:, : self.dim]
        return F.normalize(vectors, dim=-1, eps=1e-6) if self.model.similarity == "cosine" else vectors.contiguous()
