"""Evaluate any Retriever on one part of a split: the full catalogue ranked, for all targets and for groups of them."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from hllm.config import Config
from hllm.data.dataset import Dataset
from hllm.data.leak import doubts, leak_share
from hllm.data.split import Split
from hllm.distributed import Group
from hllm.errors import ConfigError, HllmWarning, nearest
from hllm.evaluation.facts import Provenance, RunFacts
from hllm.evaluation.lists import categories_of, list_metrics
from hllm.evaluation.protocol import EvaluationConfig, Protocol, rules_of
from hllm.evaluation.sampled import sampled_ranks, warn_of_sampling
from hllm.evaluation.statistics import Estimate, bootstrap_means
from hllm.evaluation.targets import Asked, Targets, groups_of, is_cold
from hllm.metrics import TargetRanks, ranking_metrics
from hllm.metrics.several_targets import several_target_metrics
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
    """Items of each user before the target, all of them, or before the first target where a query is a user's."""
    excluded: Histories
    """Items that are not ranked."""
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


def queries(dataset: Dataset, split: Split, part: Part, config: EvaluationConfig | None = None) -> Queries:
    """Return every target, whose it is, what is known of that user, and what is not ranked.

    A user's rows stand together. Where a query is a user's, an item that is a target of the user twice counts once.
    """
    config, positions = config or EvaluationConfig(), split.targets(part)
    users = np.searchsorted(dataset.offsets, positions, side="right") - 1
    ends = positions
    if config.query_per == "user":
        pairs = np.stack([users, dataset.item_index[positions]])
        once = np.sort(np.unique(pairs, axis=1, return_index=True)[1])
        users, positions = users[once], positions[once]
        ends = positions[np.searchsorted(users, users)]
    histories = histories_of(dataset, users, ends)
    excluded = histories if config.seen == "removed" else histories.latest(0)
    return Queries(users, histories, excluded, dataset.item_index[positions], positions)


Metrics = dict[str, Float[np.ndarray, " row"]]


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
    """Return each target's value, by itself, of every metric that the config asks for."""
    return {name: values for family in FAMILIES.values() for name, values in family(targets, ranks, config).items()}


def measured(
    targets: Targets, ranks: TargetRanks, config: EvaluationConfig, groups: Iterable[Bool[np.ndarray, " target"]]
) -> Iterator[tuple[Targets, Metrics]]:
    """Yield, for each group of targets, the rows behind its means and their metrics: targets, or users with theirs.

    Where a query is a user's, only the targets of the group count as targets.
    """
    per_target = metrics_of(targets, ranks, config) if config.query_per == "target" else {}
    for members in groups:
        some = targets.only(members)
        if config.query_per == "target":
            yield some, {name: values[members] for name, values in per_target.items()}
        else:
            of_members = TargetRanks(ranks.better[members], ranks.tied[members])
            yield some.first_of_users(), several_target_metrics(of_members, some.users, config.cutoffs)


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
    for sentence in doubts(dataset, split, part, seen_removed=config.seen == "removed"):
        warnings.warn(sentence, HllmWarning, stacklevel=2)
    questions, start = queries(dataset, split, part, config), time.monotonic()
    categories = categories_of(dataset, config)  # first: the column may be unknown, and the work is long
    ranks = retriever.rank(questions.histories, questions.targets, exclude=questions.excluded)
    seconds = time.monotonic() - start
    lengths = np.array([len(history) for history in questions.histories], dtype=np.int64)
    targets = Targets(
        user_ids=dataset.users[questions.users],
        item_ids=dataset.item_ids[questions.targets],
        history_length=lengths,
        num_ranked=dataset.num_items - np.array([len(np.unique(o)) for o in questions.excluded], dtype=np.int64),
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
            bool((items == target).any()) for target, items in zip(questions.targets, questions.histories, strict=True)
        ),
        num_cold_targets=int(is_cold(dataset, split, questions.targets, config).sum()),
        num_withheld_items=int(split.withheld(dataset).sum()),
        leak_share=leak_share(dataset, split),
        categories=None if categories is None else categories.fingerprint,
        evaluation=config,
        **rules_of(config),
    )
    facts = provenance.facts.model_copy(update={"evaluation_s": seconds})
    lists: dict[str, float] = {}
    if config.beyond_accuracy:
        first = np.flatnonzero(np.diff(questions.users, prepend=-1)) if config.query_per == "user" else slice(None)
        lists = list_metrics(
            retriever, questions.histories[first], questions.excluded[first], _target_table(questions, config),
            dataset, split, config, categories=categories,
        )  # fmt: skip
    return Evaluated(_summary(name, targets, ranks, protocol, facts, lists), targets, ranks)


def _target_table(questions: Queries, config: EvaluationConfig) -> Int[np.ndarray, "query target"]:
    """Return the targets of each query, -1 where a row ends early."""
    if config.query_per == "target":
        return questions.targets[:, None]
    _, rows, counts = np.unique(questions.users, return_inverse=True, return_counts=True)
    table = np.full((len(counts), counts.max()), -1, dtype=np.int64)
    table[rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)] = questions.targets
    return table


def _summary(
    name: str, targets: Targets, ranks: TargetRanks, protocol: Protocol, facts: RunFacts, lists: dict[str, float]
) -> Result:
    """Return means with intervals, over all targets and over each group."""
    config = protocol.evaluation
    groups = measured(targets, ranks, config, [targets.group(None), *targets.groups.values()])
    all_items, *of_groups = (
        bootstrap_means(metrics, users=rows.users, samples=config.bootstrap_samples, seed=config.seed)
        for rows, metrics in groups
    )
    return Result(
        name=name,
        protocol=protocol,
        facts=facts,
        all_items=all_items,
        slices=dict(zip(targets.groups, of_groups, strict=True)),
        slice_targets={group: int(members.sum()) for group, members in targets.groups.items()},
        beyond_accuracy=lists,
    )


def mean_metrics(
    retriever: Retriever, dataset: Dataset, split: Split, part: Part,
    *, also: int = 10, group: Group | None = None, config: EvaluationConfig | None = None,
) -> dict[str, float]:  # fmt: skip
    """Return plain means at 10, 50 and `also`, without intervals: for watching training.

    Each process of `group` ranks its share of the targets, and all get the means over all. `config` says how queries
    are made and what is ranked.
    """
    config = config or EvaluationConfig()
    group, questions = group or Group(), queries(dataset, split, part, config)
    share = group.slice_of(len(questions.targets))
    places = torch.zeros(2, len(questions.targets), dtype=torch.int64)
    if share.start < share.stop:
        share_ranks = retriever.rank(
            questions.histories[share], questions.targets[share], exclude=questions.excluded[share]
        )
        places[0, share], places[1, share] = torch.from_numpy(share_ranks.better), torch.from_numpy(share_ranks.tied)
    group.add_up([places])
    ranks = TargetRanks(*places.numpy())
    cutoffs = sorted({*WATCHED_CUTOFFS, also})
    if config.query_per == "user":
        values = several_target_metrics(ranks, questions.users, cutoffs)
    else:
        values = ranking_metrics(ranks, cutoffs)
    return {key: float(value.mean()) for key, value in values.items()}
