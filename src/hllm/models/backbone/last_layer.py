"""The last layer of a pre-norm decoder, whose feed-forward net reads only the positions that are asked for."""

# Proved by tests/models/backbone/test_backbone.py.

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from hllm.models.backbone.mixed import put_before

# The parts of such a layer, in Llama and most models that came after it.
_PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")


class _Thread(threading.local):
    places: tuple[Tensor, Tensor] | None = None
    """Rows and positions that are asked for, while `only_at` lasts in this thread."""


_thread = _Thread()


@contextmanager
def only_at(positions: Int[Tensor, "batch chosen"]) -> Iterator[None]:
    """Let the last layer of the network that runs inside return its states at these positions of each sequence."""
    _thread.places = torch.arange(len(positions), device=positions.device)[:, None], positions
    try:
        yield
    finally:
        _thread.places = None


class _EndsEarly:
    """Put before a layer's class: skips positions where that is asked for."""

    def forward(self, hidden_states: Tensor, *arguments: Any, **options: Any) -> Any:
        if _thread.places is None:
            return super().forward(hidden_states, *arguments, **options)  # type: ignore[misc]
        layer: Any = self
        attended, *_ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **options)
        states = (hidden_states + attended)[_thread.places]
        return states + layer.mlp(layer.post_attention_layernorm(states))


def ends_early(layer: nn.Module) -> bool:
    """Return whether `let_end_early` has changed a layer."""
    return isinstance(layer, _EndsEarly)


def end_early(network: Any) -> None:
    """Make `only_at` work in a network in which `let_end_early` has been seen to."""
    layer: Any = network.layers[-1]
    if ends_early(layer):
        return
    stock: Any = type(layer)
    layer.__class__ = put_before(_EndsEarly, stock)


@torch.no_grad()
def let_end_early(network: nn.Module, run: Callable[[Tensor], Tensor], width: int) -> bool:
    """Make `only_at` work in the network that `run` runs over vectors of `width`; return False where it cannot.

    It can if the parts of the last layer have the usual names, and an example's states come out the same.
    """
    layers = getattr(network, "layers", None)
    if not isinstance(layers, nn.ModuleList) or next(network.parameters()).is_meta:
        return False
    layer: Any = layers[-1]
    if not all(isinstance(getattr(layer, part, None), nn.Module) for part in _PARTS):
        return False
    vectors = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([[2, 0], [1, 1]])
    whole = run(vectors)[torch.arange(2)[:, None], positions]
    stock: Any = type(layer)
    end_early(network)
    try:
        with only_at(positions):
            same = torch.allclose(run(vectors), whole, rtol=0, atol=1e-5 * float(whole.abs().max()))
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        same = False
    if not same:
        layer.__class__ = stock
    return same
