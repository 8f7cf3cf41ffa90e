"""The Item LLM: a language model reads an item's text, ended by a learnt [ITEM] vector, and makes one vector of it."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from hllm.config import Config
from hllm.data.batch import ItemBatch
from hllm.data.prompt import PromptConfig
from hllm.models.backbone import Backbone
from hllm.models.item.projector import Projector
from hllm.models.tiers import ItemEncoder

# Tokens in a chunk, padding included. On a CPU small chunks keep the padding small and cost nothing.
CHUNK_TOKENS = {"cpu": 1024, "cuda": 16_384}


class TextItemConfig(Config):
    """An item tier that reads text."""

    kind: Literal["llm"] = "llm"
    backbone: str
    """A model fetched by `hllm model fetch`, such as "smollm2-135m", or a Hugging Face model directory."""
    num_layers: int | None = Field(default=None, ge=1)
    """Keep only the first layers of the model. None keeps all."""
    pretrained: bool = True
    """False takes only the model's shape and starts from fresh weights."""
    pooling: Literal["item", "mean"] = "item"
    """"item": the state at a learnt [ITEM] vector put after the text. "mean": the mean over the text's tokens."""
    whiten: bool = False
    """Centre and decorrelate the model's raw outputs once, before training; always adds a projector."""
    train_word_embeddings: bool = False
    """Train the word embeddings too. They are most of a small model's weights, and few of them occur.
    Fresh ones (pretrained = false) are always trained."""
    prompt: PromptConfig = PromptConfig()
    """How the fields become one text."""


class TextItemEncoder(ItemEncoder):
    """Item LLM, pooling and, where widths differ or whitening is asked for, a projector.

    Source: arXiv:2409.12740, section 3.1; mean pooling as in its Table 10, the projector as in its Table 5.
    """

    def __init__(
        self,
        backbone: Backbone,
        dim: int,
        *,
        pooling: Literal["item", "mean"],
        whiten: bool,
        train_word_embeddings: bool,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.item_token = nn.Parameter(torch.randn(backbone.width) * 0.02) if pooling == "item" else None
        needs_projector = whiten or backbone.width != dim
        self.projector = Projector(backbone.width, dim, whiten=whiten) if needs_projector else None
        self.tokens_needed = 0
        self.tokens_computed = 0
        if not train_word_embeddings:
            backbone.network.get_input_embeddings().weight.requires_grad_(False)

    @override
    def forward(self, items: ItemBatch) -> Float[Tensor, "item dim"]:
        return self.project(self.pool(items))

    def pool(self, items: ItemBatch) -> Float[Tensor, "item width"]:
        """Return the language model's own vector of each item, before the projector.

        Items are sorted by length and run in chunks of like length, so little is padding. The number of items
        in a chunk depends on its longest item alone: the shapes recur from batch to batch, and the kernels that
        are built for each shape are found ready (on two CPU cores a step of the demo went from 2.96 s to 2.51 s).
        """
        starts = items.lengths.cumsum(0) - items.lengths
        order = items.lengths.argsort(descending=True, stable=True)
        parts: list[Tensor] = []
        done = 0
        while done < len(order):
            longest = int(items.lengths[order[done]]) + 1
            chunk = order[done : done + max(1, CHUNK_TOKENS[items.tokens.device.type] // longest)]
            parts.append(self._pool_chunk(items, starts, chunk))
            done += len(chunk)
        pooled = torch.cat(parts)
        return pooled[order.argsort().to(pooled.device)]

    def project(self, pooled: Float[Tensor, "item width"]) -> Float[Tensor, "item dim"]:
        """Map the language model's vectors to the embedding space."""
        projected: Tensor = pooled if self.projector is None else self.projector(pooled)
        return projected

    def _pool_chunk(
        self, items: ItemBatch, starts: Int[Tensor, " item"], chunk: Int[Tensor, " chunk"]
    ) -> Float[Tensor, "chunk width"]:
        device = items.tokens.device
        lengths = items.lengths[chunk]
        inside = torch.arange(int(lengths.max())) < lengths[:, None]  # (chunk, position)
        position = (starts[chunk, None] + torch.arange(inside.shape[1])).masked_fill(~inside, 0)
        states = self.backbone.embed(items.tokens[position.to(device)])
        if self.item_token is not None:
            # One more position for every item; each item's [ITEM] goes right behind its own last token.
            states = torch.cat([states, torch.zeros_like(states[:, :1])], dim=1)
            at_end = (torch.arange(states.shape[1]) == lengths[:, None]).to(device)
            states = torch.where(at_end[..., None], self.item_token.to(states.dtype), states)
            lengths = lengths + 1
        mask = (torch.arange(states.shape[1]) < lengths[:, None]).to(device)
        hidden: Tensor = self.backbone(states, mask)
        self.tokens_needed += int(lengths.sum())
        self.tokens_computed += mask.numel()
        if self.item_token is not None:
            return hidden[torch.arange(len(chunk), device=device), (lengths - 1).to(device)].float()
        weights = mask[..., None] / lengths[:, None, None].to(device)
        return (hidden.float() * weights).sum(1)
