"""Evaluate any Retriever on one part of a split: the full catalogue ranked, for all targets and for cold ones."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from hllm.config import Config
from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.evaluation.baselines import cold_items
from hllm.evaluation.protocol import EvaluationConfig, Protocol, protocol_of
from hllm.evaluation.statistics import Estimate, bootstrap_means
from hllm.metrics import ranking_metrics
from hllm.retrieval.retriever import Histories, Retriever, histories_of

Part = Literal["validation", "test"]
WATCHED_CUTOFFS = (10, 50)  # of the validation during training


class Result(Config):
    """The numbers of one recommender under one protocol."""

    name: str
    protocol: Protocol
    all_items: dict[str, Estimate]
    cold_items: dict[str, Estimate]
    """Over users whose target is cold; empty if there are none."""


@dataclass(frozen=True)
class Queries:
    """One row for each target of one part; a user with several has several rows."""

    users: Int[np.ndarray, " target"]
    histories: Histories
    """What the user did before the target, all of it."""
    targets: Int[np.ndarray, " target"]
    """Item indices."""
    interactions: Int[np.ndarray, " target"]
    """Positions of the targets among all interactions."""


def queries(dataset: Dataset, split: Split, part: Part) -> Queries:
    """Return every target, whose it is, and everything that user did before it."""
    positions = split.targets(part)
    users = np.searchsorted(dataset.offsets, positions, side="right") - 1
    return Queries(users, histories_of(dataset, users, positions), dataset.item_index[positions], positions)


def evaluate(
    name: str, retriever: Retriever, dataset: Dataset, split: Split, part: Part, config: EvaluationConfig
) -> Result:
    """Rank the full catalogue for every user with a target; return means with intervals and the protocol."""
    asked = queries(dataset, split, part)
    metrics = ranking_metrics(retriever.rank(asked.histories, asked.targets, exclude=asked.histories), config.cutoffs)
    cold = np.isin(asked.targets, cold_items(dataset, split, config.cold_at_most))
    seen = sum(target in history for target, history in zip(asked.targets, asked.histories, strict=True))
    return Result(
        name=name,
        protocol=protocol_of(
            dataset, split, part, config,
            num_targets=len(asked.users), num_targets_seen=seen, num_cold_targets=int(cold.sum()),
        ),
        all_items=bootstrap_means(metrics, samples=config.bootstrap_samples, seed=config.seed),
        cold_items=bootstrap_means(
            {k: v[cold] for k, v in metrics.items()}, samples=config.bootstrap_samples, seed=config.seed
        ),
    )  # fmt: skip


def mean_metrics(
    retriever: Retriever, dataset: Dataset, split: Split, part: Part, *, also: int = 10
) -> dict[str, float]:
    """Return plain means at 10, 50 and `also`, without intervals: for watching training."""
    asked = queries(dataset, split, part)
    ranks = retriever.rank(asked.histories, asked.targets, exclude=asked.histories)
    values: dict[str, Float[np.ndarray, " user"]] = ranking_metrics(ranks, sorted({*WATCHED_CUTOFFS, also}))
    return {key: float(value.mean()) for key, value in values.items()}
