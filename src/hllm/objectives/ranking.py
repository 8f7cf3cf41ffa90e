"""The ranking objective: the labels of candidates by cross-entropy."""

from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from hllm.batches.batch import SequenceBatch
from hllm.batches.points import PointsConfig
from hllm.data.labels import UNKNOWN
from hllm.models.build import ModelConfig
from hllm.models.recommender import SequentialRecommender
from hllm.objectives.objective import ObjectiveConfig, ObjectiveFacts, Outcome
from hllm.parts import Spec
from hllm.precision import take_rows


@final
class RankingObjectiveConfig(ObjectiveConfig):
    """Learn the labels of candidates, for a model with the table model.ranking.

    It teaches the model to score candidates alone. The term "next-item" beside it teaches it to retrieve too.
    """

    kind: Literal["ranking"] = "ranking"
    points: PointsConfig = PointsConfig()
    """Places in the training windows, and the candidates that are scored there."""

    @property
    @override
    def drawn_points(self) -> PointsConfig:
        return self.points

    @property
    @override
    def described(self) -> str:
        options = self.points.said()
        return "labels of candidates" + (f" ({options})" if options else "")

    @override
    def check(self, model: ModelConfig) -> None:
        super().check(model)
        if model.ranking is None:
            raise ValueError('objective.kind = "ranking" needs the table model.ranking: its heads')
        if model.ranking.targets and self.points.num_negatives != PointsConfig().num_negatives:
            raise ValueError(
                "objective.points.num_negatives has no effect beside model.ranking.targets: the candidates are those "
                "with labels; leave it out"
            )


@final
@dataclass(frozen=True)
class Ranking:
    """L_cls: binary cross-entropy over all labelled (candidate, target) pairs.

    It is a mean over the labels of the whole optimizer step. With the term "next-item" of weight λ the loss is that of
    the paper, λ · L_gen + L_cls. Both come from one pass over the histories.

    Source: arXiv:2409.12740, section 3.3, equation 3.
    """

    def __call__(
        self, model: SequentialRecommender, items: Float[Tensor, "item dim"], batch: SequenceBatch, count: int | float
    ) -> Outcome:
        """See Objective."""
        points = batch.points
        assert points is not None, "the loader of a ranking stage draws points"
        history = model.histories(items, batch)
        users, logits = model.rank(
            history, take_rows(items, points.candidates), batch.items.index[points.candidates], points.anchors
        )
        known = points.labels != UNKNOWN
        with torch.autocast(logits.device.type, enabled=False):
            losses = F.binary_cross_entropy_with_logits(
                logits.float(), points.labels.clamp(min=0).float(), reduction="none"
            )
            classification = (losses * known).sum() / max(1, points.num_labels)
        num_queries = batch.num_targets
        # Numbers are averaged by queries; this one is a mean over labels.
        numbers = {
            "classification": classification.detach() * count / max(1, num_queries),
            "masked_negatives": torch.zeros(()),  # of a term beside it, if there is one
        }
        return Outcome(classification, num_queries, numbers, batch.target_weight, users)


def _build(config: RankingObjectiveConfig, *, num_items: int, dim: int) -> Ranking:
    return Ranking()


SPEC = Spec(config=RankingObjectiveConfig, build=_build, facts=ObjectiveFacts(retrieves=False, ranks=True))
