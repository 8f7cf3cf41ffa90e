"""A running mean of the weights is validated and kept, instead of the weights of the last step."""

# Proved by tests/training/test_step.py.

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """The exponential moving average of a module's trainable parameters, begun at their present values."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._mean = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self) -> None:
        """Move the mean towards the present weights: decay · mean + (1 - decay) · weights."""
        self._average(list(self._mean.values()), [p.detach() for p in self._parameters.values()], torch.tensor(0))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the mean into the module while inside."""
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        self.load_into_module()
        try:
            yield
        finally:
            _copy(own, self._parameters)

    def load_into_module(self) -> None:
        """Replace the weights by their mean."""
        _copy(self._mean, self._parameters)

    def state(self) -> dict[str, Tensor]:
        """Return the mean, by parameter name."""
        return self._mean

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the mean from `state`."""
        _copy(state, self._mean)


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])
