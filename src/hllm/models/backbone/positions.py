"""Positions of a language model that keeps a table of them: how many there are, and telling it where to begin."""

# Proved by tests/models/test_text.py, tests/models/backbone/test_backbone.py.

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from hllm.errors import ConfigError

# Names of tables of learnt positions: BERT and its kin; GPT-2; OPT.
_TABLES = ("position_embeddings", "wpe", "embed_positions")


def longest_sequence(network: nn.Module) -> int | None:
    """Return the rows of the network's table of positions that it can read; None if it has none, and so no bound."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _TABLES:
            # OPT leaves two rows unused; RoBERTa starts behind its padding index.
            unused = getattr(module, "offset", 0 if module.padding_idx is None else module.padding_idx + 1)
            return module.num_embeddings - int(unused)
    for name, buffer in network.named_buffers():
        if name.rpartition(".")[2] in _TABLES:  # GPT-J's table of sines
            return len(buffer)
    return None


def positions_from_the_end(mask: Bool[Tensor, "batch position"], end: int) -> Int[Tensor, "batch position"]:
    """Return positions such that each right-padded sequence ends at `end` - 1; padding stays below `end` too."""
    after_start = torch.arange(mask.shape[1], device=mask.device)
    return (after_start + (end - mask.sum(1, keepdim=True))).clamp(max=end - 1)


@torch.no_grad()
def name_of_the_first(network: Any, width: int) -> int:
    """Return the number by which the network knows its first position: RoBERTa counts from 2, BERT from 0.

    Seen on an example: told its positions, it must read as it does by itself. Raises ConfigError if it never does.
    """
    vectors = torch.randn(1, 3, width, generator=torch.Generator().manual_seed(0))
    expected = network(inputs_embeds=vectors).last_hidden_state
    unused = [int(m.padding_idx) + 1 for m in network.modules() if getattr(m, "padding_idx", None) is not None]
    for first in sorted({0, *unused}):
        try:
            told = network(inputs_embeds=vectors, position_ids=first + torch.arange(3)[None]).last_hidden_state
        except (TypeError, IndexError):
            continue
        if torch.allclose(told, expected, rtol=0, atol=1e-5 * float(expected.abs().max())):
            return first
    raise ConfigError(
        f'{network.config.model_type!r} counts its positions by itself: leave out model.item.positions = "end", or '
        "choose another model"
    )
