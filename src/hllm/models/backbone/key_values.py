"""Reading behind kept keys and values: texts behind a beginning that they share, candidates behind a history."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

KeysAndValues = tuple[tuple[Tensor, Tensor], ...]
"""Of each layer, (1, heads, position, width of a head)."""

_SUFFIXES_AT_ONCE = 256


class LayerCache(DynamicCache):
    """Keys and values by layer."""

    def update(self, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Add to a layer's, and return all of them; a method of our own, which `models.compiled` leaves out."""
        return super().update(*arguments, **options)


def keep(network: nn.Module, embeddings: Float[Tensor, "1 prefix input"]) -> KeysAndValues:
    """Return the keys and values of a beginning, with their gradient."""
    cache = LayerCache()
    network(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
    layers: list[Any] = cache.layers
    return tuple((layer.keys, layer.values) for layer in layers)


def behind(prefix: KeysAndValues, embeddings: Float[Tensor, "batch position input"]) -> dict[str, Any]:
    """Return what a network is told besides `embeddings`, for it to read each row behind the prefix."""
    rows, length = embeddings.shape[:2]
    start = prefix[0][0].shape[-2]
    copies = tuple((keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)) for keys, values in prefix)
    position = torch.arange(start, start + length, device=embeddings.device)[None]
    return {"past_key_values": LayerCache(copies), "position_ids": position, "use_cache": True}


@torch.no_grad()
def can_read_behind(network: nn.Module, width: int) -> bool:
    """Return whether `behind` gives what the network gives for whole sequences, as an example shows.

    A network may count its positions by itself, or keep a state.
    """
    if next(network.parameters()).is_meta:
        return False
    beginning, text = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0))
    texts = torch.stack([text, text.flip(0)])
    try:
        states = network(inputs_embeds=texts, **behind(keep(network, beginning[None]), texts)).last_hidden_state
        whole = torch.cat([beginning.expand(2, -1, -1), texts], dim=1)
        expected = network(inputs_embeds=whole).last_hidden_state[:, len(beginning) :]
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return False
    return torch.allclose(states, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def read_suffixes(
    network: nn.Module,
    embeddings: Float[Tensor, "batch position input"],
    suffixes: Float[Tensor, "batch suffix input"],
    anchors: Int[Tensor, "batch suffix"],
) -> tuple[Float[Tensor, "batch position width"], Float[Tensor, "batch suffix width"]]:
    """Return the states at all positions, and at suffixes that see a row up to their anchor, and themselves."""
    cache = LayerCache()  # without the config: layers with a sliding window keep all keys too
    hidden: Tensor = network(inputs_embeds=embeddings, past_key_values=cache, use_cache=True).last_hidden_state
    position = torch.arange(embeddings.shape[1], device=embeddings.device)
    states = []
    for part, ends in zip(suffixes.split(_SUFFIXES_AT_ONCE, 1), anchors.split(_SUFFIXES_AT_ONCE, 1), strict=True):
        size = part.shape[1]
        itself = torch.eye(size, dtype=torch.bool, device=part.device).expand(len(part), size, size)
        visible = torch.cat([position <= ends[..., None], itself], dim=-1)[:, None]
        # Added to the logits by every kind of attention; a mask of four axes is taken as it is.
        hidden_from = torch.zeros(visible.shape, dtype=part.dtype, device=part.device)
        hidden_from.masked_fill_(~visible, torch.finfo(part.dtype).min)
        output = network(
            inputs_embeds=part,
            attention_mask=hidden_from,
            position_ids=ends + 1,
            past_key_values=cache,
            use_cache=True,
        )
        states.append(output.last_hidden_state)
        cache.crop(-size)
    return hidden, torch.cat(states, dim=1)
