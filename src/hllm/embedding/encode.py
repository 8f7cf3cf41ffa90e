"""Run items through a trained item tier, in batches, with progress."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hllm.data.batch import ItemBatch, item_batch
from hllm.data.tokens import TokenCache, token_cache
from hllm.models.backbone import load_tokenizer
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
) -> Float[Tensor, "item dim"]:
    """Return `encode` of every item in fp32, in catalogue order; items are taken in order of text length.

    `encode` is an item tier, or its `pool`. The caller has put the module into evaluation mode.
    """
    with progress(label, num_items) as advance:
        return encode_in_batches(encode, num_items, tokens, device=device, precision=precision, advance=advance)


@torch.no_grad()
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
    order = np.argsort(tokens.lengths, kind="stable") if tokens is not None else np.arange(num_items)
    parts = []
    with autocast(resolve_precision(precision, device), device):
        for start in range(0, num_items, ITEMS_PER_BATCH):
            chosen = order[start : start + ITEMS_PER_BATCH]
            parts.append(encode(item_batch(chosen, tokens).to(device)).float())
            advance(len(chosen))
    table = torch.cat(parts)
    return table[torch.from_numpy(np.argsort(order)).to(table.device)]


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
    tokenizer: Path,
    max_tokens: int,
    *,
    device: torch.device,
    precision: Precision,
) -> Float[Tensor, "text dim"]:
    """Return the embeddings of many texts, as they are rendered, in fp32; their tokens pass through a file."""
    tokenize, fingerprint = load_tokenizer(tokenizer, max_tokens)
    with tempfile.TemporaryDirectory(prefix="hllm-") as folder:
        tokens = token_cache(Path(folder) / "tokens", texts, tokenize, tokenizer=fingerprint)
        return encode_catalogue(
            model.item_encoder, len(texts), tokens, device=device, precision=precision, label="encode texts"
        )
