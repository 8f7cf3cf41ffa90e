"""An objective: a function from a model, item embeddings and a batch to a loss and named numbers.

Its settings are a part (`hllm.parts`): a recipe chooses it by `kind`. Others ask its facts, never its kind.
"""

# Proved by tests/objectives/test_terms.py.

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor
from typing_extensions import override

from hllm.batches.batch import SequenceBatch
from hllm.batches.negatives import NegativesConfig
from hllm.batches.points import PointsConfig
from hllm.losses.contrastive import LossConfig
from hllm.models.build import ModelConfig
from hllm.models.recommender import SequentialRecommender
from hllm.parts import PartConfig, spec


@dataclass(frozen=True)
class Outcome:
    """A differentiable loss, and numbers to log."""

    loss: Float[Tensor, ""]
    """Sum over queries divided by the `count` that the objective was given."""
    num_queries: int
    """How many positions were asked for."""
    numbers: dict[str, Float[Tensor, ""]]
    """Means over the queries."""
    weight: int | float
    """Sum of the queries' weights, which is their number if they have none. If the sum over all calls is not `count`,
    the caller corrects the loss."""
    users: Float[Tensor, "batch position dim"] | None = None
    """The user embeddings at every position, for the terms beside the objective; None if it makes none."""


@runtime_checkable
class Objective(Protocol):
    """A function that training minimises."""

    def __call__(
        self, model: SequentialRecommender, items: Float[Tensor, "item dim"], batch: SequenceBatch, count: int | float
    ) -> Outcome:
        """Return the loss of `batch`, whose items have the embeddings `items`.

        `count` is the divisor of the sum of losses: the weight of the targets of the whole optimizer step. So the
        gradients of its micro-batches add up.
        """


@dataclass(frozen=True)
class ObjectiveFacts:
    """The facts of an objective, or of a term beside it, that hold whatever its settings are."""

    retrieves: bool = True
    """It teaches the model to find the next items in the catalogue."""
    ranks: bool = False
    """It teaches the heads of `model.ranking`."""
    reads_both_ways: bool = False
    """It hides items of a window, for a user tier that sees those behind a position too."""
    makes_users: bool = True
    """It makes a user embedding at every position, so terms can stand beside it."""


class GoalConfig(PartConfig):
    """Base of the settings of objectives and of terms beside them: all that the rest of a recipe asks of them."""

    @property
    def facts(self) -> ObjectiveFacts:
        """Return the facts of this kind."""
        facts: ObjectiveFacts = spec(self.family, self.kind).facts
        return facts

    @property
    def drawn_negatives(self) -> NegativesConfig | None:
        """Return the negatives that it needs in a batch, if any."""
        return None

    @property
    def drawn_points(self) -> PointsConfig | None:
        """Return the candidates that it needs in a batch, if any."""
        return None

    @property
    def contrastive_loss(self) -> LossConfig | None:
        """Return the loss by which it tells targets and negatives apart, if it does."""
        return None

    @property
    def described(self) -> str:
        """Return it in a few words, for tables."""
        return self.kind

    def check(self, model: ModelConfig) -> None:
        """Raise ValueError if it cannot train this model; the message begins with a key of the stage."""
        if self.facts.retrieves and not model.user.facts.retrieves:
            raise ValueError(
                f'{self.family}.kind = "{self.kind}" teaches to retrieve, but model.user.kind = "{model.user.kind}" '
                'learns candidates alone: set objective.kind = "ranking", without terms'
            )


class ObjectiveConfig(GoalConfig):
    """Base of the settings of all objectives."""

    family: ClassVar[str] = "objective"

    def num_queries(self, targets: Float[np.ndarray, " window"]) -> Float[np.ndarray, " window"]:
        """Return how many targets of windows with so many are expected to be asked for."""
        return targets

    @override
    def check(self, model: ModelConfig) -> None:
        super().check(model)
        if self.facts.reads_both_ways != model.user.facts.reads_both_ways:
            raise ValueError(
                f'objective.kind is "{self.kind}" and model.user.kind "{model.user.kind}": "masked-item" is for '
                '"bert4rec", which reads both ways, and for it alone'
            )


class TermConfig(GoalConfig):
    """Base of the settings of all terms beside an objective."""

    family: ClassVar[str] = "term"
    weight: float
    """The term's loss is multiplied by this and added to the objective's."""


class ContrastiveConfig(GoalConfig):
    """Base of the settings of objectives and terms that tell targets and negatives apart."""

    negatives: NegativesConfig = NegativesConfig()
    """The items that each position's target is told apart from."""
    loss: LossConfig = LossConfig()
    """The loss by which the target is told apart from the negatives."""

    @model_validator(mode="after")
    def _some_losses_need_a_sample(self) -> "ContrastiveConfig":
        if self.loss.needs_sampled and self.negatives.takes_all:
            raise ValueError(f'loss.kind = "{self.loss.kind}" needs sampled negatives, found "{self.negatives.kind}"')
        if self.loss.log_q and self.negatives.takes_all:
            raise ValueError(
                f'loss.log_q has no effect beside negatives.kind = "{self.negatives.kind}": every item is there; leave '
                "it out"
            )
        return self

    @property
    @override
    def drawn_negatives(self) -> NegativesConfig:
        return self.negatives

    @property
    @override
    def contrastive_loss(self) -> LossConfig:
        return self.loss

    @property
    @override
    def described(self) -> str:
        return f"{self.loss.described} against {self.negatives.described}"
