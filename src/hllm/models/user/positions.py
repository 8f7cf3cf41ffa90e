"""Tell a model the place of an item in a history: learnt vectors of positions, rotations of queries and keys."""

# Proved by tests/models/test_user_tiers.py.

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

_ROTARY_BASE = 10_000.0


class LearntPositions(nn.Module):
    """A vector for each of `size` positions, drawn from N(0, 0.02²), counted from one end of the history.

    "start": position 0 is the oldest item read. "end": position size - 1 is the latest item, so that the reference's
    padding on the left comes out the same.
    """

    def __init__(self, size: int, dim: int, *, count_from: Literal["start", "end"]) -> None:
        super().__init__()
        self.count_from = count_from
        self.table = nn.Embedding(size, dim)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, mask: Bool[Tensor, "batch position"]) -> Float[Tensor, "#batch position dim"]:
        """Return the vectors of the positions of histories padded on the right, at most `size` long."""
        length, size = mask.shape[1], self.table.num_embeddings
        assert length <= size, f"{length} positions, but only {size} position vectors"
        if self.count_from == "start":
            return self.table.weight[None, :length]
        slots = size - mask.sum(-1, keepdim=True) + torch.arange(length, device=mask.device)
        vectors: Tensor = self.table(slots.clamp(max=size - 1))  # padding runs over the end
        return vectors

    def at(self, positions: Int[Tensor, "batch suffix"]) -> Float[Tensor, "batch suffix dim"]:
        """Return the vectors of positions counted from the oldest item."""
        assert self.count_from == "start", "counted from the end, a position depends on the whole history"
        vectors: Tensor = self.table(positions)
        return vectors


def rotated(
    states: Float[Tensor, "*batch position width"], positions: Int[Tensor, "*batch position"] | None = None
) -> Float[Tensor, "*batch position width"]:
    """Turn each pair (i, i + width / 2) of coordinates at position t by the angle t / 10000^(2 i / width).

    Products of two rotated vectors depend on the positions only by their distance. `width` is even. `positions` are
    0, 1, … unless they are given.

    Source: rotary position embeddings, arXiv:2104.09864, equation 34, with the pairs laid out as in Llama.
    """
    length, width = states.shape[-2:]
    half = torch.arange(width // 2, device=states.device)
    frequencies = _ROTARY_BASE ** (-2 * half / width)
    places = torch.arange(length, device=states.device) if positions is None else positions
    angles = places[..., None] * frequencies
    cos, sin = angles.cos().to(states.dtype), angles.sin().to(states.dtype)
    first, second = states.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
