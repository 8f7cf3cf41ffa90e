"""What an objective is: a function from a model, item embeddings and a batch to a loss and named numbers."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from hllm.batches.batch import SequenceBatch
from hllm.models.recommender import SequentialRecommender


@dataclass(frozen=True)
class Outcome:
    """A differentiable loss, and numbers to log."""

    loss: Float[Tensor, ""]
    """Sum over queries divided by the `count` that the objective was given."""
    num_queries: int
    """How many positions were asked for; if they are not `count` in all, the caller corrects the loss."""
    numbers: dict[str, Float[Tensor, ""]]
    """Means over the queries."""


@runtime_checkable
class Objective(Protocol):
    """What training minimises."""

    def __call__(
        self, model: SequentialRecommender, items: Float[Tensor, "item dim"], batch: SequenceBatch, count: int
    ) -> Outcome:
        """Return the loss of `batch`, whose items have the embeddings `items`.

        `count` is what the sum of losses is divided by: the number of targets of the whole optimizer step, so that
        the gradients of its micro-batches add up.
        """
