"""The next-item objective: at every position, tell the item that followed from the negatives."""

# Proved by tests/objectives/test_terms.py, tests/test_matryoshka.py.

from dataclasses import dataclass, replace
from typing import Literal, final

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from hllm.batches.batch import SequenceBatch
from hllm.losses.contrastive import LossConfig, check_prefixes, contrast
from hllm.models.recommender import SequentialRecommender
from hllm.objectives.objective import ContrastiveConfig, ObjectiveConfig, ObjectiveFacts, Outcome, TermConfig
from hllm.parts import Spec
from hllm.precision import take_rows


@final
class NextItemConfig(ContrastiveConfig, ObjectiveConfig):
    """At every position, tell the item that followed from the negatives. It teaches the model to retrieve."""

    kind: Literal["next-item"] = "next-item"


@final
class NextItemTermConfig(ContrastiveConfig, TermConfig):
    """The next-item loss as a term: λ · L_gen beside the ranking objective."""

    kind: Literal["next-item"] = "next-item"
    weight: float = Field(default=1.0, gt=0)
    """λ: the next-item loss is multiplied by this and added to the objective's."""

    @property
    @override
    def described(self) -> str:
        return (f"{self.weight:g} × " if self.weight != 1 else "") + super().described


@final
@dataclass(frozen=True)
class NextItem:
    """The contrastive loss of each valid position's user embedding with the next item's.

    It is an objective, and a term beside one that makes user embeddings.

    Source: arXiv:2409.12740, section 3.2.
    """

    loss: LossConfig
    num_items: int
    """Items that training knows: the catalogue without those that the split withholds."""

    def __call__(
        self, model: SequentialRecommender, items: Float[Tensor, "item dim"], batch: SequenceBatch, count: int | float
    ) -> Outcome:
        """See Objective."""
        users = model.users(items, batch)
        return replace(self.of_users(model, items, batch, users, count), users=users)

    def of_users(
        self,
        model: SequentialRecommender,
        items: Float[Tensor, "item dim"],
        batch: SequenceBatch,
        users: Float[Tensor, "batch position dim"],
        count: int | float,
    ) -> Outcome:
        """Return the loss of user embeddings that are there already. See Term."""
        places = batch.places
        targets = batch.targets.flatten()[places]  # (query,), rows of batch.items
        result = contrast(
            self.loss,
            F.embedding(places, users.flatten(0, 1)),  # its gradient takes a third of the time of users[batch.mask]'s
            take_rows(items, targets),
            items,
            batch.negatives if batch.own_negatives is None else batch.own_negatives,
            positive_ids=targets,
            scale=model.scale,
            similarity=model.similarity,
            log_q=batch.odds(places // batch.mask.shape[1]) if self.loss.log_q else None,
            num_items=self.num_items,
            weights=batch.query_weights,
            count=count,
        )
        numbers = {"top1": result.top1, "masked_negatives": result.masked}
        return Outcome(result.loss, len(targets), numbers, batch.target_weight)


def _build(config: NextItemConfig | NextItemTermConfig, *, num_items: int, dim: int) -> NextItem:
    check_prefixes(config.loss, dim)
    return NextItem(config.loss, num_items)


SPEC = Spec(config=NextItemConfig, build=_build, facts=ObjectiveFacts())
TERM = Spec(config=NextItemTermConfig, build=_build, facts=ObjectiveFacts())
