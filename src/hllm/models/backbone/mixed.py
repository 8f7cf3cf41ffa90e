"""Classes that are made at run time: a way of our own before a stock layer's class, which can be pickled."""

# Proved by tests/test_recommender_in_use.py.

import functools
from typing import Any

from torch import nn


@functools.cache
def put_before(first: type, stock: Any) -> type[nn.Module]:
    """Return one class of both for all layers of a kind, for which torch.compile makes the same."""

    def reduce(layer: Any, _: Any) -> tuple[Any, ...]:
        return _empty, (first, stock), layer.__getstate__()

    name = f"{first.__name__.strip('_')}{stock.__name__}"
    return type(name, (first, stock), {"__reduce_ex__": reduce})


def _empty(first: type, stock: Any) -> nn.Module:
    """Return a layer whose state is still to be set."""
    kind = put_before(first, stock)
    layer: nn.Module = kind.__new__(kind)
    return layer
