"""Evaluate a Ranker on impressions, candidates with labels: AUC, GAUC, log loss and calibration, with intervals."""

# Proved by tests/training/test_ranking.py.

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from hllm.batches.points import others
from hllm.config import Config
from hllm.data.dataset import Dataset
from hllm.data.labels import UNKNOWN
from hllm.data.split import Split
from hllm.distributed import Group
from hllm.errors import DataError
from hllm.evaluation.evaluate import Part, queries
from hllm.evaluation.facts import Provenance, RunFacts
from hllm.evaluation.protocol import EvaluationConfig
from hllm.evaluation.statistics import Estimate, bootstrap_statistics
from hllm.metrics.definitions import RANKER, RANKER_MEANINGS
from hllm.metrics.ranker import WeightedRankerMetrics
from hllm.models.heads import SAMPLED
from hllm.progress import progress
from hllm.random import stream
from hllm.ranking.ranker import Ranker
from hllm.retrieval.histories import Histories


@dataclass(frozen=True)
class Impressions:
    """Impressions to score: one row for each target of the split, with its candidates."""

    users: Int[np.ndarray, " query"]
    histories: Histories
    """Items of each user before the target."""
    candidates: list[Int[np.ndarray, " _"]]
    labels: list[Int[np.ndarray, "_ target"]]
    """1, 0, or -1 where it is not known."""
    how: str
    """Origin of candidates and labels, for people."""


class RankingProtocol(Config):
    """Facts of how numbers of a ranker were made; stored with them."""

    dataset: str
    """Fingerprint of ids, texts, order, times and labels."""
    data_policy: dict[str, Any]
    split: str
    split_options: dict[str, Any]
    split_fingerprint: str
    part: str
    candidates: str
    """Origin of the impressions and of their labels."""
    history: str = "everything before the target; a trained model reads the latest model.max_history items of it"
    gauc: str = "users with one class only are left out"
    interval: str = "95 %, percentile bootstrap over users"
    bootstrap_samples: int
    seed: int
    """Seed of the resampling, and of the sampled candidates."""
    metrics: dict[str, str] = RANKER_MEANINGS


class TargetResult(Config):
    """The numbers of one target."""

    metrics: dict[str, Estimate]
    """A metric that is not defined is left out: GAUC, if no user has both classes."""
    num_impressions: int
    num_positive: int
    num_users: int
    num_users_of_one_class: int
    """Left out of GAUC."""


class RankingResult(Config):
    """The numbers of one ranker under one protocol."""

    name: str
    protocol: RankingProtocol
    facts: RunFacts
    targets: dict[str, TargetResult]


def impressions(
    dataset: Dataset, split: Split, part: Part, targets: tuple[str, ...], config: EvaluationConfig
) -> Impressions:
    """Return what a ranker of these targets is asked about one part of the split.

    With labels in the data, the interaction itself. For the target "next", the interaction, labelled 1, and
    `config.ranking_negatives` items that the user has in no interaction, labelled 0. Raises DataError for labels that
    the data do not have.
    """
    questions = queries(dataset, split, part)
    if targets == (SAMPLED,):
        candidates = _sampled(dataset, questions.users, questions.targets, config, part)
        labels = [(np.arange(len(items)) == 0).astype(np.int64)[:, None] for items in candidates]
        description = (
            f"each target, label 1, and {config.ranking_negatives} items drawn evenly from those that the user has in "
            "no interaction, label 0"
        )
        return Impressions(questions.users, questions.histories, candidates, labels, description)
    columns = dataset.label_columns(targets)
    assert dataset.labels is not None, "there are columns"
    return Impressions(
        questions.users,
        questions.histories,
        list(questions.targets[:, None]),
        list(dataset.labels[questions.interactions][:, None, columns].astype(np.int64)),
        "each target by itself, with its labels in the data; unknown labels are left out",
    )


def evaluate_ranker(
    name: str, ranker: Ranker, dataset: Dataset, split: Split, part: Part, config: EvaluationConfig,
    *, provenance: Provenance | None = None,
) -> RankingResult:  # fmt: skip
    """Score the impressions of one part; return every target's metrics with intervals, and the protocol.

    Raises DataError if the impressions of a target are all positive or all negative.
    """
    provenance = provenance or Provenance()
    questions, start = impressions(dataset, split, part, ranker.targets, config), time.monotonic()
    require_both_kinds(dataset, split, part, ranker.targets)
    by_target = _scored(ranker, questions, part, Group())
    seconds = time.monotonic() - start
    results = {}
    for target, (logits, labels, users) in by_target.items():
        weighted = WeightedRankerMetrics(logits, labels, users)
        results[target] = TargetResult(
            metrics=bootstrap_statistics(
                weighted, len(weighted.grouped.users), samples=config.bootstrap_samples, seed=config.seed
            ),
            num_impressions=len(labels),
            num_positive=int(labels.sum()),
            num_users=len(weighted.grouped.users),
            num_users_of_one_class=weighted.grouped.num_left_out,
        )
    protocol = RankingProtocol(
        dataset=dataset.fingerprint,
        data_policy=dict(provenance.data_policy),
        split=split.kind,
        split_options=dict(provenance.split_options),
        split_fingerprint=split.fingerprint,
        part=part,
        candidates=questions.how,
        bootstrap_samples=config.bootstrap_samples,
        seed=config.seed,
    )
    facts = provenance.facts.model_copy(update={"evaluation_s": seconds})
    return RankingResult(name=name, protocol=protocol, facts=facts, targets=results)


def mean_ranker_metrics(
    ranker: Ranker, dataset: Dataset, split: Split, part: Part, config: EvaluationConfig, *, group: Group
) -> dict[str, float]:
    """Return the means over the targets of every metric, without intervals: for watching training.

    With several targets there is also "auc/NAME" and so on for each. Targets whose labels are all alike are left out,
    and so are metrics that have no value. Each process of `group` scores its share, and all get the means over all.
    """
    questions = impressions(dataset, split, part, ranker.targets, config)
    each = {}
    for target, (logits, labels, users) in _scored(ranker, questions, part, group).items():
        if labels.all() or not labels.any():
            continue
        weighted = WeightedRankerMetrics(logits, labels, users)
        each[target] = weighted(np.ones(len(weighted.grouped.users)))
    if not each:
        return {}
    means = {name: float(np.mean([numbers[name] for numbers in each.values()])) for name in RANKER}
    if len(each) > 1:
        means |= {f"{name}/{target}": value for target, numbers in each.items() for name, value in numbers.items()}
    return {name: value for name, value in means.items() if np.isfinite(value)}


_Scored = tuple[Float[np.ndarray, " impression"], Bool[np.ndarray, " impression"], Int[np.ndarray, " impression"]]


def require_both_kinds(dataset: Dataset, split: Split, part: Part, targets: tuple[str, ...]) -> None:
    """Raise DataError if the labels of a target in one part are all positive or all negative."""
    if targets == (SAMPLED,):
        return
    assert dataset.labels is not None, "there are columns"
    for target, column in zip(targets, dataset.label_columns(targets), strict=True):
        labels = dataset.labels[split.targets(part), column]
        total, positive = int((labels != UNKNOWN).sum()), int((labels == 1).sum())
        if positive in (0, total):
            raise DataError(
                f"target {target!r}: {positive:,} of {total:,} labelled impressions of the {part} part are positive, "
                "and AUC needs both kinds: choose another split, or another rule in data.targets"
            )


def _scored(ranker: Ranker, questions: Impressions, part: Part, group: Group) -> dict[str, _Scored]:
    """Return logits, labels and users of the labelled impressions of each target."""
    share = group.slice_of(len(questions.users))
    ends = np.concatenate([[0], np.cumsum([len(items) for items in questions.candidates])])
    table = torch.zeros(int(ends[-1]), len(ranker.targets))
    if share.start < share.stop:
        with progress(f"rank {part}", share.stop - share.start) as advance:
            share_logits = ranker.logits(questions.histories[share], questions.candidates[share], advance=advance)
        table[ends[share.start] : ends[share.stop]] = torch.from_numpy(np.concatenate(share_logits))
    group.add_up([table])
    logits = table.numpy()
    labels = np.concatenate(questions.labels)
    users = np.repeat(questions.users, [len(items) for items in questions.candidates])
    by_target = {}
    for column, target in enumerate(ranker.targets):
        mask = labels[:, column] != UNKNOWN
        by_target[target] = (logits[mask, column], labels[mask, column] == 1, users[mask])
    return by_target


def _sampled(
    dataset: Dataset,
    users: Int[np.ndarray, " query"],
    targets: Int[np.ndarray, " query"],
    config: EvaluationConfig,
    part: Part,
) -> list[Int[np.ndarray, " _"]]:
    """Return each target and items that its user never met, distinct; all of them where there are fewer."""
    rng, candidates = stream(config.seed, "impressions", part), []
    for user, target in zip(users, targets, strict=True):
        history = np.unique(dataset.history(user))
        num_others = dataset.num_items - len(history)
        draws = rng.choice(num_others, size=min(num_others, config.ranking_negatives), replace=False)
        candidates.append(np.append(target, others(history, draws)))
    return candidates
