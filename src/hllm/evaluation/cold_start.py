"""Quality where little is known: items that nobody has in training, and users with few interactions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from hllm.config import Config
from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.errors import ConfigError, DataError
from hllm.evaluation.baselines import Popularity
from hllm.evaluation.evaluate import Evaluated, Queries, metrics_of
from hllm.evaluation.protocol import Protocol
from hllm.evaluation.statistics import Estimate, bootstrap_means
from hllm.evaluation.targets import Targets
from hllm.metrics import TargetRanks
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.histories import Histories
from hllm.retrieval.retriever import Scorer, VectorScorer
from hllm.retrieval.tiles import dot_products

LENGTHS = (0, 1, 2, 5)

Metrics = dict[str, Estimate]


class ColdItems(Config):
    """Metrics of the cold targets, ranked among everything and among cold items alone."""

    protocol: Protocol
    """The protocol of the ranking among cold items alone; the other one differs only in the items that are ranked."""
    num_items: int
    """Items of the catalogue that are cold."""
    full_catalogue: dict[str, Metrics]
    """By recommender: each target ranked among all items."""
    among_cold: dict[str, Metrics]
    """By recommender: each target ranked among the cold items."""
    by_id: tuple[str, ...]
    """Recommenders that know items by id only; they rank an item without training interactions by chance."""


class ShortHistories(Config):
    """Metrics of the same targets, where only the latest items of each history are read."""

    protocol: Protocol
    lengths: tuple[int | None, ...]
    """Items read, at most; None: all of them, as in any other evaluation."""
    curves: dict[str, tuple[Metrics, ...]]
    """By recommender: the metrics for each of the lengths."""
    num_left_out: int
    """Targets with shorter histories than the longest of the lengths."""


class ColdStart(Config):
    """The report of `hllm cold-start`."""

    cold_items: ColdItems | None
    """None: no target is cold."""
    short_histories: ShortHistories


@final
@dataclass(frozen=True)
class Entrant:
    """An evaluated recommender, with its scorer."""

    scorer: Scorer
    evaluated: Evaluated
    by_id: bool
    """True if it knows items by id only."""

    @property
    def name(self) -> str:
        """Return its name in tables."""
        return self.evaluated.result.name


def cold_items(contenders: Sequence[Entrant], dataset: Dataset, split: Split, questions: Queries) -> ColdItems | None:
    """Return the metrics of the cold targets; `questions` are what the contenders were evaluated with.

    An item is cold with at most `evaluation.cold_at_most` training interactions. What a user has seen is removed from
    both rankings, unless `evaluation.seen` keeps it. None if no target is cold.
    """
    first = contenders[0].evaluated
    config = first.result.protocol.evaluation
    cold = split.train_counts(dataset) <= config.cold_at_most
    rows = np.flatnonzero(cold[questions.targets])
    if not len(rows):
        return None
    histories = questions.histories[rows]
    items = np.flatnonzero(cold)
    full_catalogue, among_cold = {}, {}
    for each in contenders:
        ranks = each.evaluated.ranks
        cold_ranks = TargetRanks(ranks.better[rows], ranks.tied[rows])
        full_catalogue[each.name] = _means(each.evaluated, rows, cold_ranks)
        among_cold[each.name] = _means(
            each.evaluated,
            rows,
            rank_among(each.scorer, items, histories, questions.targets[rows], questions.excluded[rows]),
        )
    protocol = _with(
        first.result.protocol,
        first.targets,
        rows,
        ranked=f"the {len(items):,} items with at most {config.cold_at_most} training interactions",
    )
    by_id = tuple(each.name for each in contenders if each.by_id)
    return ColdItems(
        protocol=protocol, num_items=len(items), full_catalogue=full_catalogue, among_cold=among_cold, by_id=by_id
    )


def rank_among(
    scorer: Scorer, items: Int[np.ndarray, " some"], histories: Histories, targets: Int[np.ndarray, " user"],
    excluded: Histories,
) -> TargetRanks:  # fmt: skip
    """Return where each target stands among `items`, which hold it, less those that are excluded for the user."""
    place = np.full(scorer.num_items, -1, dtype=np.int64)
    place[items] = np.arange(len(items))
    subset = _SomeVectors(scorer, items) if isinstance(scorer, VectorScorer) else _SomeScores(scorer, items)
    seen = [places[places >= 0] for places in (place[own] for own in excluded)]
    return ExactRetriever(subset).rank(histories, place[targets], seen)


def short_histories(
    contenders: Sequence[Entrant], dataset: Dataset, split: Split, questions: Queries, lengths: Sequence[int] = LENGTHS
) -> ShortHistories:
    """Return the metrics of the targets when only the latest items of each history are read.

    The targets are those with a history of at least the longest of the lengths, so that each length is what it says.
    What is not ranked stays the same at every length: the whole history, unless seen items are kept. With no item to
    read everyone gets what is popular. Raises ConfigError for lengths that are missing, negative or not ascending,
    DataError if no history is long enough.
    """
    if not lengths or lengths[0] < 0 or list(lengths) != sorted(set(lengths)):
        raise ConfigError(
            f"the lengths of histories are {list(lengths)}; expected ascending numbers from 0, as 0,1,2,5"
        )
    first = contenders[0].evaluated
    longest = max(len(history) for history in questions.histories)
    rows = np.flatnonzero(first.targets.history_length >= lengths[-1])
    if not len(rows):
        raise DataError(f"no target has a history of {lengths[-1]} items, the longest has {longest}; ask for less")
    histories, targets = questions.histories[rows], questions.targets[rows]
    popular = ExactRetriever(Popularity(dataset, split))
    curves: dict[str, tuple[Metrics, ...]] = {}
    for each in contenders:
        points = []
        for length in lengths:
            retriever = ExactRetriever(each.scorer) if length else popular
            ranks = retriever.rank(histories.latest(length), targets, exclude=questions.excluded[rows])
            points.append(_means(each.evaluated, rows, ranks))
        ranks = each.evaluated.ranks
        points.append(_means(each.evaluated, rows, TargetRanks(ranks.better[rows], ranks.tied[rows])))
        curves[each.name] = tuple(points)
    listing = ", ".join(map(str, lengths))
    protocol = _with(
        first.result.protocol,
        first.targets,
        rows,
        history=f"the latest {listing} items before the target, of histories with at least {lengths[-1]}; 0: what is "
        "popular, for every recommender; all: a trained model reads the latest model.max_history",
    )
    return ShortHistories(
        protocol=protocol,
        lengths=(*lengths, None),
        curves=curves,
        num_left_out=len(questions.targets) - len(rows),
    )


class _SomeScores:
    """A Scorer of some of the items."""

    def __init__(self, scorer: Scorer, items: Int[np.ndarray, " some"]) -> None:
        self.scorer = scorer
        self.items = items

    @property
    def num_items(self) -> int:
        return len(self.items)

    def score(self, histories: Histories) -> Float[np.ndarray, "user some"]:
        return self.scorer.score(histories)[:, self.items]


class _SomeVectors:
    """A VectorScorer of some of the items."""

    def __init__(self, scorer: VectorScorer, items: Int[np.ndarray, " some"]) -> None:
        self.scorer = scorer
        self.keys = scorer.keys[items]

    @property
    def num_items(self) -> int:
        return len(self.keys)

    def queries(self, histories: Histories) -> Float[Tensor, "user dim"]:
        return self.scorer.queries(histories)

    def score(self, histories: Histories) -> Float[np.ndarray, "user some"]:
        return dot_products(self.queries(histories), self.keys)


def _means(evaluated: Evaluated, rows: Int[np.ndarray, " chosen"], ranks: TargetRanks) -> Metrics:
    """Return means with intervals over some targets, whose ranks these are; sampled metrics belong elsewhere."""
    config = evaluated.result.protocol.evaluation.model_copy(update={"sampled_candidates": None})
    metrics = metrics_of(evaluated.targets, ranks, config)
    users = evaluated.targets.users[rows]
    return bootstrap_means(metrics, users=users, samples=config.bootstrap_samples, seed=config.seed)


def _with(protocol: Protocol, targets: Targets, rows: Int[np.ndarray, " chosen"], **said: str) -> Protocol:
    """Return the protocol of some targets; `said` are its other fields."""
    counts = {"num_targets": len(rows), "num_users_with_target": len(np.unique(targets.users[rows]))}
    return protocol.model_copy(update=said | counts)
