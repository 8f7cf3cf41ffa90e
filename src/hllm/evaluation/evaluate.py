"""Evaluate any Retriever on one part of a split: the full catalogue ranked, for all targets and for groups of them."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int

from hllm.config import Config
from hllm.data.dataset import Dataset
from hllm.data.leak import doubts, leak_share
from hllm.data.split import Split
from hllm.distributed import Group
from hllm.errors import ConfigError, HllmWarning, nearest
from hllm.evaluation.facts import Provenance, RunFacts
from hllm.evaluation.lists import list_metrics
from hllm.evaluation.protocol import EvaluationConfig, Protocol
from hllm.evaluation.sampled import sampled_ranks, warn_of_sampling
from hllm.evaluation.statistics import Estimate, bootstrap_means
from hllm.evaluation.targets import Asked, Targets, groups_of, is_cold
from hllm.metrics import TargetRanks, ranking_metrics
from hllm.retrieval.histories import Histories, histories_of
from hllm.retrieval.retriever import Retriever

Part = Literal["validation", "test"]
WATCHED_CUTOFFS = (10, 50)  # of the validation during training


class Result(Config):
    """The numbers of one recommender under one protocol."""

    name: str
    protocol: Protocol
    facts: RunFacts
    all_items: dict[str, Estimate]
    slices: dict[str, dict[str, Estimate]]
    """By group of targets, such as "cold items"; a group without targets has no metrics."""
    slice_targets: dict[str, int]
    """Targets of each group."""
    beyond_accuracy: dict[str, float]
    """Metrics of the lists; empty unless asked for."""

    @property
    def cold_items(self) -> dict[str, Estimate]:
        """Return the metrics of targets that are cold; empty if there are none, or the group was not asked for."""
        return self.slices.get("cold items", {})


@dataclass(frozen=True)
class Evaluated:
    """A result, with the ranks that it is the summary of."""

    result: Result
    targets: Targets
    ranks: TargetRanks


@dataclass(frozen=True)
class Queries:
    """One row for each target of one part; a user with several has several rows."""

    users: Int[np.ndarray, " target"]
    histories: Histories
    """Items of each user before the target, all of them."""
    targets: Int[np.ndarray, " target"]
    """Item indices."""
    interactions: Int[np.ndarray, " target"]
    """Positions of the targets among all interactions."""


def require_part(part: str) -> None:
    """Raise ConfigError for a part that no split has."""
    if part not in get_args(Part):
        raise ConfigError(
            f"part is {part!r}{nearest(part, get_args(Part))}; expected one of {', '.join(get_args(Part))}"
        )


def queries(dataset: Dataset, split: Split, part: Part) -> Queries:
    """Return every target, whose it is, and everything that user did before it."""
    positions = split.targets(part)
    users = np.searchsorted(dataset.offsets, positions, side="right") - 1
    return Queries(users, histories_of(dataset, users, positions), dataset.item_index[positions], positions)


Metrics = dict[str, Float[np.ndarray, " target"]]


def _ranking(targets: Targets, ranks: TargetRanks, config: EvaluationConfig) -> Metrics:
    return ranking_metrics(ranks, config.cutoffs)


def _sampled(targets: Targets, ranks: TargetRanks, config: EvaluationConfig) -> Metrics:
    if (candidates := config.sampled_candidates) is None:
        return {}
    few = sampled_ranks(ranks, targets.num_ranked, candidates, seed=config.seed)
    cutoffs = [k for k in config.cutoffs if k <= candidates]
    return {f"sampled_{name}/{candidates}": values for name, values in ranking_metrics(few, cutoffs).items()}


FAMILIES: dict[str, Callable[[Targets, TargetRanks, EvaluationConfig], Metrics]] = {
    "ranking": _ranking,
    "sampled": _sampled,
}
"""Every metric that follows from where a target stands; a stored run is compared by all of them."""


def metrics_of(targets: Targets, ranks: TargetRanks, config: EvaluationConfig) -> Metrics:
    """Return each target's value of every metric that the config asks for."""
    return {name: values for family in FAMILIES.values() for name, values in family(targets, ranks, config).items()}


def evaluate(
    name: str, retriever: Retriever, dataset: Dataset, split: Split, part: Part, config: EvaluationConfig
) -> Result:
    """Rank the full catalogue for every target; return means with intervals and the protocol."""
    return evaluate_with_ranks(name, retriever, dataset, split, part, config).result


def evaluate_with_ranks(
    name: str, retriever: Retriever, dataset: Dataset, split: Split, part: Part, config: EvaluationConfig,
    *, provenance: Provenance | None = None,
) -> Evaluated:  # fmt: skip
    """Evaluate, and return the rank of each target too; the provenance is kept with the result."""
    provenance = provenance or Provenance()
    if config.sampled_candidates is not None:
        warn_of_sampling(config.sampled_candidates)
    for sentence in doubts(dataset, split, part, seen_removed=True):
        warnings.warn(sentence, HllmWarning, stacklevel=2)
    questions, start = queries(dataset, split, part), time.monotonic()
    ranks = retriever.rank(questions.histories, questions.targets, exclude=questions.histories)
    seconds = time.monotonic() - start
    item_sets = [np.unique(history) for history in questions.histories]
    lengths = np.array([len(history) for history in questions.histories], dtype=np.int64)
    targets = Targets(
        user_ids=dataset.users[questions.users],
        item_ids=dataset.item_ids[questions.targets],
        history_length=lengths,
        num_ranked=dataset.num_items - np.array([len(items) for items in item_sets], dtype=np.int64),
        groups=groups_of(Asked(dataset, split, config, questions.targets, questions.interactions, lengths)),
    )
    protocol = Protocol(
        dataset=dataset.log_fingerprint,
        data_policy=dict(provenance.data_policy),
        num_users=dataset.num_users,
        num_items=dataset.num_items,
        num_interactions=dataset.num_interactions,
        split=split.kind,
        split_options=dict(provenance.split_options),
        split_fingerprint=split.fingerprint,
        part=part,
        num_targets=len(targets),
        num_users_with_target=len(np.unique(questions.users)),
        num_targets_seen=sum(
            bool((items == target).any()) for target, items in zip(questions.targets, item_sets, strict=True)
        ),
        num_cold_targets=int(is_cold(dataset, split, questions.targets, config).sum()),
        num_withheld_items=int(split.withheld(dataset).sum()),
        leak_share=leak_share(dataset, split),
        evaluation=config,
    )
    facts = provenance.facts.model_copy(update={"evaluation_s": seconds})
    lists: dict[str, float] = {}
    if config.beyond_accuracy:
        lists = list_metrics(retriever, questions.histories, questions.targets, dataset, split, config)
    return Evaluated(_summary(name, targets, ranks, protocol, facts, lists), targets, ranks)


def _summary(
    name: str, targets: Targets, ranks: TargetRanks, protocol: Protocol, facts: RunFacts, lists: dict[str, float]
) -> Result:
    """Return means with intervals, over all targets and over each group."""
    config = protocol.evaluation
    metrics, users = metrics_of(targets, ranks, config), targets.users

    def means(members: Any) -> dict[str, Estimate]:
        return bootstrap_means(
            {name: values[members] for name, values in metrics.items()},
            users=users[members], samples=config.bootstrap_samples, seed=config.seed,
        )  # fmt: skip

    return Result(
        name=name,
        protocol=protocol,
        facts=facts,
        all_items=means(slice(None)),
        slices={group: means(members) for group, members in targets.groups.items()},
        slice_targets={group: int(members.sum()) for group, members in targets.groups.items()},
        beyond_accuracy=lists,
    )


def mean_metrics(
    retriever: Retriever, dataset: Dataset, split: Split, part: Part, *, also: int = 10, group: Group | None = None
) -> dict[str, float]:
    """Return plain means at 10, 50 and `also`, without intervals: for watching training.

    Each process of `group` ranks its share of the targets, and all get the means over all.
    """
    group, questions = group or Group(), queries(dataset, split, part)
    share = group.slice_of(len(questions.targets))
    places = torch.zeros(2, len(questions.targets), dtype=torch.int64)
    if share.start < share.stop:
        share_ranks = retriever.rank(
            questions.histories[share], questions.targets[share], exclude=questions.histories[share]
        )
        places[0, share], places[1, share] = torch.from_numpy(share_ranks.better), torch.from_numpy(share_ranks.tied)
    group.add_up([places])
    ranks = TargetRanks(*places.numpy())
    values: dict[str, Float[np.ndarray, " user"]] = ranking_metrics(ranks, sorted({*WATCHED_CUTOFFS, also}))
    return {key: float(value.mean()) for key, value in values.items()}
