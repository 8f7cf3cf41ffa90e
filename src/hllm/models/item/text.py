"""The Item LLM: a language model reads an item's text, ended by learnt [ITEM] vectors, and makes one vector of it."""

# Proved by tests/models/test_text.py.

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from hllm.batches.batch import ItemBatch
from hllm.batches.item_plan import chunks, plan_items, unpadded_chunks
from hllm.data.prompt import PromptConfig
from hllm.errors import ConfigError
from hllm.models.backbone.backbone import Backbone, save_backbone_config
from hllm.models.backbone.key_values import KeysAndValues
from hllm.models.backbone.lora import LoraConfig
from hllm.models.backbone.rows import PackedRow
from hllm.models.backbone.tokenizer import copy_tokenizer
from hllm.models.item.projector import Projector
from hllm.models.kinds import ItemContext, ItemFacts, ItemTierConfig
from hllm.models.language_model import LanguageModel
from hllm.models.tiers import ReadingItemEncoder
from hllm.parts import Spec

# Tokens in a chunk, padding included. On a CPU small chunks keep the padding small, but with half of this two cores
# take 1.08 times as long for the items of a decoder; for MiniLM it is the same.
CHUNK_TOKENS = {"cpu": 2048, "cuda": 16_384}

Pooling = Literal["item", "mean", "last"]


class TextItemConfig(ItemTierConfig):
    """An item tier that reads text."""

    kind: Literal["llm"] = "llm"
    backbone: str
    """A model fetched by `hllm model fetch`, such as "smollm2-135m", or a Hugging Face model directory."""
    num_layers: int | None = Field(default=None, ge=1)
    """Keep only the first layers of the model. None keeps all."""
    pretrained: bool = True
    """False takes only the model's shape and starts from fresh weights."""
    pooling: Pooling = "item"
    """"item": the state at a learnt [ITEM] vector put after the text. "mean": the mean over the text's tokens.
    "last": the state at the text's last token."""
    num_item_tokens: int = Field(default=1, ge=1)
    """For pooling "item": how many [ITEM] vectors follow the text; the item's vector is the mean of their states."""
    positions: Literal["start", "end"] = "start"
    """"start": a text's first token stands at position 0. "end": its last one at position max_tokens - 1 and [ITEM]
    behind it, whatever its length, as in the HLLM paper's code. Only a model with a table of positions, such as BERT,
    tells them apart."""
    whiten: bool = False
    """Centre and decorrelate the model's raw outputs once, before training; always adds a projector."""
    train_word_embeddings: bool = False
    """Train the word embeddings too. They are most of a small model's weights, and few of them occur.
    Fresh ones (pretrained = false) are always trained."""
    lora: LoraConfig | None = None
    """Leave the model's weights as they are and train low-rank additions to them. None trains the weights."""
    prompt: PromptConfig = PromptConfig()
    """The way in which the fields become one text."""

    effective_with = {"num_item_tokens": ("pooling", ("item",))}  # noqa: RUF012

    @model_validator(mode="after")
    def _consistent(self) -> "TextItemConfig":
        if self.lora is not None and not self.pretrained:
            raise ValueError("lora needs pretrained = true: fresh weights that stay as they are know nothing")
        return self

    @property
    def max_positions(self) -> int:
        """Return the length of the longest sequence that an item can become."""
        return self.prompt.max_tokens + (self.num_item_tokens if self.pooling == "item" else 0)

    @property
    @override
    def language_model(self) -> LanguageModel:
        return LanguageModel(self.backbone, self.num_layers, self.pretrained, self.lora, needs_files=True)

    @property
    @override
    def text_prompt(self) -> PromptConfig:
        return self.prompt


class TextItemEncoder(ReadingItemEncoder):
    """Item LLM, pooling and, where widths differ or whitening is asked for, a projector.

    Source: arXiv:2409.12740, section 3.1; mean pooling as in its Table 10, the projector as in its Table 5.
    Differs from the reference, which allows one [ITEM] vector: the states at several are averaged, which keeps the
    width of the item's vector.
    """

    def __init__(
        self,
        backbone: Backbone,
        dim: int,
        *,
        pooling: Pooling,
        whiten: bool,
        train_word_embeddings: bool,
        num_item_tokens: int = 1,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.num_item_tokens = num_item_tokens
        self.item_token = None
        if pooling == "item":
            # In the scale of words, which Gemma enlarges before they enter.
            drawn = torch.randn(num_item_tokens, backbone.input_width) * 0.02 * backbone.word_scale
            self.item_token = nn.Parameter(drawn)
        needs_projector = whiten or backbone.width != dim
        self.projector: Projector | None = Projector(backbone.width, dim, whiten=whiten) if needs_projector else None
        self.items_encoded = 0
        self.tokens_needed = 0
        self.tokens_computed = 0
        backbone.network.get_input_embeddings().weight.requires_grad_(train_word_embeddings)

    @override
    def forward(self, items: ItemBatch) -> Float[Tensor, "item dim"]:
        return self.project(self.pool(items))

    @property
    @override
    def reader(self) -> ReadingItemEncoder:
        return self

    @property
    @override
    def projection(self) -> nn.Module | None:
        return self.projector

    @override
    def keep_files(self, folder: Path, tokenizer: Path | None) -> None:
        save_backbone_config(self.backbone, folder)
        if tokenizer is not None:
            copy_tokenizer(tokenizer, folder)

    @property
    @override
    def whitens(self) -> bool:
        return self.projector is not None and self.projector.whiten

    @override
    def fit_whitening(self, pooled: Float[Tensor, "item width"]) -> None:
        assert self.projector is not None, "what whitens has a projector"
        self.projector.fit_whitening(pooled)

    @override
    def pool(self, items: ItemBatch) -> Float[Tensor, "item width"]:
        """Return the language model's own vector of each item, before the projector.

        Items are run in chunks of like length, so little is padding. The shapes of chunks recur from batch to batch,
        so the kernels that were built for a shape are used again. On two CPU cores a step of the demo went from 2.96 s
        to 2.51 s. The beginning that all texts share is read once, and each chunk is read behind its keys and values:
        in causal layers these are the same for every text.
        """
        starts = items.lengths.cumsum(0) - items.lengths
        prefix = self._keep_prefix(items)
        if prefix is not None:
            starts, items = starts + items.prefix, replace(items, lengths=items.lengths - items.prefix)
        plan = plan_items(items.lengths.numpy())
        in_rows = self.pooling != "mean" and self.backbone.reads_rows(items.tokens.device)
        cut, read = (unpadded_chunks, self._pool_row) if in_rows else (chunks, self._pool_chunk)
        runs = cut(plan.lengths + self.num_item_tokens, max_tokens=CHUNK_TOKENS[items.tokens.device.type])
        chosen = [torch.from_numpy(plan.order[run]) for run in runs]
        pooled = torch.cat([read(items, starts, chunk, prefix) for chunk in chosen])
        return pooled[torch.from_numpy(plan.inverse).to(pooled.device, non_blocking=True)]

    @override
    def project(self, pooled: Float[Tensor, "item width"]) -> Float[Tensor, "item dim"]:
        """Map the language model's vectors to the embedding space."""
        projected: Tensor = pooled if self.projector is None else self.projector(pooled)
        return projected

    def _keep_prefix(self, items: ItemBatch) -> KeysAndValues | None:
        """Read the tokens that all items begin with; None if there are none, or each item's own states are needed."""
        if self.pooling == "mean" or not self.backbone.reads_behind or not items.prefix:
            return None
        self.tokens_needed += items.prefix
        self.tokens_computed += items.prefix
        return self.backbone.keep(self.backbone.embed(items.tokens[None, : items.prefix]))

    def _pool_chunk(
        self,
        items: ItemBatch,
        starts: Int[Tensor, " item"],
        chunk: Int[Tensor, " chunk"],
        prefix: KeysAndValues | None,
    ) -> Float[Tensor, "chunk width"]:
        device = items.tokens.device
        lengths = items.lengths[chunk]
        inside = torch.arange(int(lengths.max())) < lengths[:, None]  # (chunk, position)
        position = (starts[chunk, None] + torch.arange(inside.shape[1])).masked_fill(~inside, 0)
        states = self.backbone.embed(items.tokens[position.to(device, non_blocking=True)])
        rows = torch.arange(len(chunk), device=device)[:, None]
        if self.item_token is not None:
            # More positions for every item; each item's [ITEM] vectors go right behind its own last token.
            states = nn.functional.pad(states, (0, 0, 0, self.num_item_tokens))
            lengths = lengths + self.num_item_tokens
        at_end = lengths[:, None] - torch.arange(self.num_item_tokens, 0, -1)  # (chunk, item tokens)
        at_end = at_end.to(device, non_blocking=True)
        if self.item_token is not None:
            states[rows, at_end] = self.item_token.to(states.dtype)
        mask = (torch.arange(states.shape[1]) < lengths[:, None]).to(device, non_blocking=True)
        self.items_encoded += len(chunk)
        self.tokens_needed += int(lengths.sum())
        self.tokens_computed += mask.numel()
        if self.pooling != "mean":
            return self.backbone.at(states, mask, at_end, prefix).float().mean(1)
        hidden: Tensor = self.backbone(states, mask)
        weights = mask[..., None] / lengths[:, None, None].to(device, non_blocking=True)
        return (hidden.float() * weights).sum(1)

    def _pool_row(
        self,
        items: ItemBatch,
        starts: Int[Tensor, " item"],
        chunk: Int[Tensor, " chunk"],
        prefix: KeysAndValues | None,
    ) -> Float[Tensor, "chunk width"]:
        """Do what `_pool_chunk` does, for pooling other than "mean", with the texts one behind another."""
        device = items.tokens.device
        texts = items.lengths[chunk]
        lengths = texts + (0 if self.item_token is None else self.num_item_tokens)
        ends = lengths.cumsum(0)
        within = torch.arange(int(ends[-1])) - torch.repeat_interleave(ends - lengths, lengths)
        place = torch.repeat_interleave(starts[chunk], lengths) + within
        place = place.masked_fill(within >= torch.repeat_interleave(texts, lengths), 0)
        states = self.backbone.embed(items.tokens[place.to(device, non_blocking=True)][None])[0]
        at_end = ends[:, None] - torch.arange(self.num_item_tokens, 0, -1)  # (chunk, item tokens)
        at_end = at_end.to(device, non_blocking=True)
        if self.item_token is not None:
            states[at_end] = self.item_token.to(states.dtype)
        self.items_encoded += len(chunk)
        self.tokens_needed += len(place)
        self.tokens_computed += len(place)
        row = PackedRow.of(lengths, items.prefix if prefix is not None else 0, device)
        pooled = self.backbone.in_row(states, row, at_end.flatten(), prefix).float()
        return pooled.view(*at_end.shape, -1).mean(1)


def _build(config: TextItemConfig, context: ItemContext) -> TextItemEncoder:
    if config.whiten and not config.pretrained:
        raise ConfigError(
            "model.item: whiten = true needs pretrained = true: fresh weights have no statistics to remove"
        )
    backbone = context.shared or config.language_model.open(context.base, context.weights, fast=context.fast)
    backbone.require_positions(
        config.max_positions,
        f"model.item.prompt.max_tokens = {config.prompt.max_tokens} with pooling {config.pooling!r}",
    )
    if config.positions == "end" and backbone.max_positions is not None:
        if context.shared is not None:
            raise ConfigError(
                'model.item.positions = "end" is for items alone: set model.share_backbone = false, as histories begin '
                "at position 0"
            )
        backbone.end_at(config.max_positions)
    return TextItemEncoder(
        backbone,
        context.dim,
        pooling=config.pooling,
        num_item_tokens=config.num_item_tokens,
        whiten=config.whiten,
        train_word_embeddings=config.train_word_embeddings or not config.pretrained,
    )


SPEC = Spec(config=TextItemConfig, build=_build, facts=ItemFacts(reads_text=True))
