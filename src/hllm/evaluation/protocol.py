"""The protocol: everything that must be equal before two numbers may stand in one table."""

from typing import Annotated, Literal

from pydantic import Field

from hllm.config import Config
from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.metrics import CUTOFFS, DEFINITIONS

COLD_AT_MOST = 5


class EvaluationConfig(Config):
    """How a model is evaluated."""

    cutoffs: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=CUTOFFS, min_length=1)
    """The k of recall@k, ndcg@k and mrr@k."""
    cold_at_most: int = COLD_AT_MOST
    """An item with at most this many training interactions is cold."""
    bootstrap_samples: int = Field(default=1000, ge=1)
    """Resamples of the users behind each interval."""
    seed: int = 0
    """Seed of the resampling."""


class Protocol(Config):
    """How numbers were made; printed and stored with them."""

    dataset: str
    """Fingerprint of ids, texts, order and times."""
    num_users: int
    num_items: int
    num_interactions: int
    split: str
    split_fingerprint: str
    part: Literal["validation", "test"]
    num_targets: int
    """Users with a target in this part: the rows behind each mean."""
    num_targets_seen: int
    """Targets that the user had already seen: with seen items removed they are misses for every model."""
    num_cold_targets: int
    ranked: str = "the full catalogue"
    seen_items: str = "removed (the user's whole history before the target)"
    ties: str = "shared: the expectation over random orders of equal scores"
    history: str = "everything before the target; a trained model reads the latest model.max_history items of it"
    evaluation: EvaluationConfig
    metrics: dict[str, str] = DEFINITIONS
    interval: str = "95 %, percentile bootstrap over users"

    def lines(self) -> list[str]:
        """Return the protocol as short lines for people."""
        cold = f"cold: targets with <= {self.evaluation.cold_at_most} training interactions ({self.num_cold_targets})"
        return [
            f"data {self.dataset[:12]}: {self.num_users:,} users, {self.num_items:,} items, "
            f"{self.num_interactions:,} interactions",
            f"split {self.split} {self.split_fingerprint[:12]}, {self.part} part: {self.num_targets:,} targets, "
            f"one for each user; {self.num_targets_seen} of them seen before; {cold}",
            f"ranked: {self.ranked}; seen items: {self.seen_items}; ties: {self.ties}",
            f"intervals: {self.interval}, {self.evaluation.bootstrap_samples} samples, seed {self.evaluation.seed}",
        ]


def protocol_of(
    dataset: Dataset, split: Split, part: Literal["validation", "test"], config: EvaluationConfig,
    *, num_targets: int, num_targets_seen: int, num_cold_targets: int,
) -> Protocol:  # fmt: skip
    """Describe an evaluation of `part`."""
    return Protocol(
        dataset=dataset.fingerprint,
        num_users=dataset.num_users,
        num_items=dataset.num_items,
        num_interactions=dataset.num_interactions,
        split=split.kind,
        split_fingerprint=split.fingerprint,
        part=part,
        num_targets=num_targets,
        num_targets_seen=num_targets_seen,
        num_cold_targets=num_cold_targets,
        evaluation=config,
    )
