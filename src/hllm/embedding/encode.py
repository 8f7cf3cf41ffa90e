"""Run items through a trained item tier, in batches, with progress."""

# Proved by tests/runs/test_tables.py.

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hllm.batches.batch import ItemBatch, item_batch
from hllm.batches.item_plan import ItemPlan, plan_items
from hllm.data.tokens import TokenCache, Tokenize, token_cache
from hllm.distributed import Group
from hllm.models.recommender import SequentialRecommender
from hllm.precision import Precision, autocast, resolve_precision
from hllm.progress import Progress, progress

ITEMS_PER_BATCH = 512


def encode_catalogue(
    encode: Callable[[ItemBatch], Float[Tensor, "item dim"]],
    num_items: int,
    tokens: TokenCache | None,
    *,
    device: torch.device,
    precision: Precision,
    label: str = "encode items",
    group: Group | None = None,
) -> Float[Tensor, "item dim"]:
    """Return `encode` of every item in fp32, in catalogue order; items are taken in order of text length.

    `encode` is an item tier, or its `pool`. The caller has put the module into evaluation mode. Each process of `group`
    encodes its shard, and all get all.
    """
    group = group or Group()
    plan = _plan(num_items, tokens, group.size)
    own = plan.shard(group.rank)
    with progress(label, len(own)) as advance:
        some = own if len(own) else plan.order[:1]  # to know the width
        vectors = _encode_rows(encode, some, tokens, device, precision, advance)
    every = group.gather(vectors[: len(own)], plan.shard_sizes)
    return every[torch.from_numpy(plan.inverse).to(every.device)]


def encode_in_batches(
    encode: Callable[[ItemBatch], Float[Tensor, "item dim"]],
    num_items: int,
    tokens: TokenCache | None,
    *,
    device: torch.device,
    precision: Precision,
    advance: Progress,
) -> Float[Tensor, "item dim"]:
    """Return what `encode_catalogue` does, inside the caller's progress bar."""
    plan = _plan(num_items, tokens, 1)
    vectors = _encode_rows(encode, plan.order, tokens, device, precision, advance)
    return vectors[torch.from_numpy(plan.inverse).to(vectors.device)]


def _plan(num_items: int, tokens: TokenCache | None, num_shards: int) -> ItemPlan:
    lengths = np.zeros(num_items, dtype=np.int64) if tokens is None else tokens.lengths
    return plan_items(lengths, num_shards=num_shards)


@torch.no_grad()
def _encode_rows(
    encode: Callable[[ItemBatch], Float[Tensor, "item dim"]],
    rows: Int[np.ndarray, " item"],
    tokens: TokenCache | None,
    device: torch.device,
    precision: Precision,
    advance: Progress,
) -> Float[Tensor, "item dim"]:
    """Return the vectors of some items in the order given, which had better be that of their lengths."""
    parts = []
    with autocast(resolve_precision(precision, device), device):
        for start in range(0, len(rows), ITEMS_PER_BATCH):
            chosen = rows[start : start + ITEMS_PER_BATCH]
            parts.append(encode(item_batch(chosen, tokens).to(device)).float())
            advance(len(chosen))
    return torch.cat(parts)


@torch.no_grad()
def encode_items(
    model: SequentialRecommender, items: ItemBatch, *, device: torch.device, precision: Precision
) -> Float[Tensor, "item dim"]:
    """Return the embeddings of a few items, such as new ones known only by their text, in fp32."""
    with autocast(resolve_precision(precision, device), device):
        vectors: Tensor = model.item_encoder(items.to(device)).float()
    return vectors


def encode_texts(
    model: SequentialRecommender,
    texts: Sequence[str],
    tokenize: Tokenize,
    *,
    device: torch.device,
    precision: Precision,
) -> Float[Tensor, "text dim"]:
    """Return the embeddings of many texts, as they are rendered, in fp32; their tokens pass through a file."""
    with tempfile.TemporaryDirectory(prefix="hllm-") as folder:
        tokens = token_cache(Path(folder) / "tokens", texts, tokenize, tokenizer="")
        return encode_catalogue(
            model.item_encoder, len(texts), tokens, device=device, precision=precision, label="encode texts"
        )
