"""What an objective is: a function from a model, item embeddings and a batch to a loss and named numbers."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hllm.data.batch import SequenceBatch
from hllm.models.recommender import SequentialRecommender


@dataclass(frozen=True)
class Outcome:
    """A differentiable loss, and numbers to log."""

    loss: Float[Tensor, ""]
    numbers: dict[str, Float[Tensor, ""]]


Objective = Callable[[SequentialRecommender, Float[Tensor, "item dim"], SequenceBatch], Outcome]
"""Takes the model, the embeddings of `batch.items`, and the batch."""
