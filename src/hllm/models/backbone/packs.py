"""Several short sequences in one row, so that a causal network reads little padding.

Where positions begin anew, transformers sees the next sequence of a row, and masks each layer's attention accordingly.
That is for a CPU: on a GPU such a mask keeps attention from being fused, unless flash-attn is there.
"""

from bisect import bisect_left, insort
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

_WORTH = 0.9  # of the rows; gathering and scattering the states costs a few hundredths


class Packs(NamedTuple):
    """The place of each sequence among rows of one width."""

    num_rows: int
    row: Int[np.ndarray, " sequence"]
    start: Int[np.ndarray, " sequence"]
    """The first position in its row."""


def pack(lengths: Int[np.ndarray, " sequence"], width: int) -> Packs:
    """Put sequences into rows: the longest first, each into the fullest row that has room (best fit decreasing)."""
    row, start = np.zeros_like(lengths), np.zeros_like(lengths)
    rooms: list[tuple[int, int]] = []  # what is left in a row, and its number; ascending
    num_rows = 0
    for sequence in np.argsort(-lengths, kind="stable"):
        length = int(lengths[sequence])
        fitting = bisect_left(rooms, (length, -1))
        if fitting < len(rooms):
            room, number = rooms.pop(fitting)
        else:
            room, number = width, num_rows
            num_rows += 1
        row[sequence], start[sequence] = number, width - room
        insort(rooms, (room - length, number))
    return Packs(num_rows, row, start)


def read_packed(
    network: nn.Module, embeddings: Float[Tensor, "batch position input"], mask: Bool[Tensor, "batch position"]
) -> Float[Tensor, "batch position width"] | None:
    """Return the last hidden states, meaningless where the mask is False; None where packing saves next to nothing.

    Each sequence sees itself alone, at positions of its own.
    """
    batch, width = mask.shape
    packs = pack(mask.sum(-1).numpy(), width)
    if packs.num_rows > _WORTH * batch:
        return None
    place = torch.from_numpy(packs.row * width + packs.start)[:, None] + torch.arange(width)  # (batch, position)
    place = place.masked_fill(~mask, 0)
    source, position = torch.zeros(2, packs.num_rows * width, dtype=torch.long)
    source[place[mask]] = mask.flatten().nonzero()[:, 0]
    position[place[mask]] = torch.arange(width).expand_as(mask)[mask]
    packed = nn.functional.embedding(source.view(-1, width), embeddings.flatten(0, 1))
    hidden: Tensor = network(inputs_embeds=packed, position_ids=position.view(-1, width)).last_hidden_state
    return nn.functional.embedding(place, hidden.flatten(0, 1))


@torch.no_grad()
def can_read_packed(network: nn.Module, width: int) -> bool:
    """Return whether `read_packed` gives what the network gives for each sequence by itself, as an example shows.

    A network may count its positions by itself, as OPT does, or keep a state.
    """
    if next(network.parameters()).is_meta:
        return False
    vectors = torch.randn(3, 3, width, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(3) < torch.tensor([[2], [3], [1]])  # in two rows
    try:
        states = read_packed(network, vectors, mask)
        expected = network(inputs_embeds=vectors).last_hidden_state
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return False
    bound = 1e-5 * float(expected[mask].abs().max())
    return states is not None and torch.allclose(states[mask], expected[mask], rtol=0, atol=bound)
