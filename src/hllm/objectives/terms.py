"""Terms beside an objective: further losses of the same user embeddings, each with its weight."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, final, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from hllm.batches.batch import SequenceBatch
from hllm.models.recommender import SequentialRecommender
from hllm.objectives.objective import Objective, ObjectiveConfig, Outcome, TermConfig
from hllm.parts import spec


@runtime_checkable
class Term(Protocol):
    """A loss of the user embeddings that an objective has made."""

    def of_users(
        self,
        model: SequentialRecommender,
        items: Float[Tensor, "item dim"],
        batch: SequenceBatch,
        users: Float[Tensor, "batch position dim"],
        count: int | float,
    ) -> Outcome:
        """Return the loss of `users`, those at each position of `batch`, divided as an objective's."""


@final
@dataclass(frozen=True)
class WithTerms:
    """The loss of an objective plus that of each term times its weight, from one pass over the histories."""

    objective: Objective
    terms: tuple[tuple[str, float, Term], ...]
    """A name for the term's loss among the numbers, its weight, and the term."""

    def __call__(
        self, model: SequentialRecommender, items: Float[Tensor, "item dim"], batch: SequenceBatch, count: int | float
    ) -> Outcome:
        """See Objective."""
        outcome = self.objective(model, items, batch, count)
        assert outcome.users is not None, "a recipe whose objective makes no user embeddings has no terms"
        for name, weight, term in self.terms:
            added = term.of_users(model, items, batch, outcome.users, count)
            mean = added.loss.detach() * count / max(1, outcome.num_queries)
            numbers = outcome.numbers | added.numbers | {name: mean}
            outcome = replace(outcome, loss=weight * added.loss + outcome.loss, numbers=numbers)
        return outcome


def build_objective(config: ObjectiveConfig, terms: Sequence[TermConfig], *, num_items: int, dim: int) -> Objective:
    """Build an objective and the terms beside it, for embeddings of `dim` numbers. ConfigError if they do not fit."""
    objective: Objective = spec(config.family, config.kind).build(config, num_items=num_items, dim=dim)
    beside = tuple(
        (
            term.kind.replace("-", "_"),
            term.weight,
            spec(term.family, term.kind).build(term, num_items=num_items, dim=dim),
        )
        for term in terms
    )
    return WithTerms(objective, beside) if beside else objective
