"""Parallel: how the processes of a group hold one model and train it together. The model knows nothing of it."""

# Proved by tests/training/test_distributed.py.

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from hllm.distributed import Group
from hllm.models.checkpoint import load_weights
from hllm.models.recommender import SequentialRecommender


class Parallel(ABC):
    """A way to spread one model over a group's processes. All of them call the same methods in the same order."""

    group: Group
    device: torch.device
    """The device on which this process computes."""

    @abstractmethod
    def wrap(self, model: SequentialRecommender) -> SequentialRecommender:
        """Return the model, placed where this process trains it."""

    @abstractmethod
    def add_up(self, sums: Tensor, gradients: Sequence[Tensor]) -> None:
        """Make of each process's sums and gradients, in place, those of the whole step."""

    @abstractmethod
    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Float[Tensor, ""]:
        """Scale the gradients down to `max_norm`, the norm over all processes; return the norm that they had."""

    @abstractmethod
    def full_model(self, model: SequentialRecommender) -> SequentialRecommender:
        """Return a wrapped model with whole weights, for the first process to write."""

    @abstractmethod
    def full_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the whole tensors of an optimizer, an average or a memory, on the host, for a checkpoint."""

    @abstractmethod
    def load_weights(self, model: SequentialRecommender, checkpoint: Path) -> None:
        """Fill a wrapped model with the weights of a checkpoint."""


@final
class Replicated(Parallel):
    """Each process holds the whole model; gradients are added up after the backward pass."""

    def __init__(self, group: Group | None = None, device: torch.device | None = None) -> None:
        self.group = group or Group()
        self.device = device or torch.device("cpu")

    @override
    def wrap(self, model: SequentialRecommender) -> SequentialRecommender:
        return model.to(self.device)

    @override
    def add_up(self, sums: Tensor, gradients: Sequence[Tensor]) -> None:
        self.group.add_up([sums, *gradients])

    @override
    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Float[Tensor, ""]:
        return nn.utils.clip_grad_norm_(parameters, max_norm)

    @override
    def full_model(self, model: SequentialRecommender) -> SequentialRecommender:
        return model

    @override
    def full_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.detach().contiguous().cpu() for name, value in state.items()}

    @override
    def load_weights(self, model: SequentialRecommender, checkpoint: Path) -> None:
        load_weights(model, checkpoint)
