"""Ablation switches: what a trained recommender loses without the histories' order, or without the items' texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isclose
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from hllm.config import Config
from hllm.data.dataset import Dataset
from hllm.data.prompt import PromptConfig, render
from hllm.data.split import Split
from hllm.errors import ConfigError, nearest
from hllm.evaluation.baselines import Popularity
from hllm.evaluation.evaluate import Queries, Result, queries
from hllm.evaluation.protocol import EvaluationConfig, Protocol
from hllm.evaluation.statistics import Estimate, bootstrap_means
from hllm.metrics import TargetRanks, ranking_metrics
from hllm.progress import progress
from hllm.random import stream
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.histories import Histories, ItemLists
from hllm.retrieval.retriever import Recommendations, Retriever

SWITCHES = {
    "shuffled-order": "the items of each history in random order",
    "reversed-order": "the items of each history with the latest first",
    "last-item": "only the latest item of each history",
    "shuffled-text": "each item with the text of another, drawn at random",
    "title-only": "only the title of each item",
    "no-text": "the same empty text for all items",
    "popularity": "no training: the most popular items for everybody",
}
"""The part of the recommender's inputs that each switch leaves."""

_OF_TEXT = ("shuffled-text", "title-only", "no-text")
_TARGETS_PER_STEP = 1024

Places = Int[np.ndarray, " kept"]
"""Positions in a history, in the order in which they are to be read."""


class AblationResult(Config):
    """The numbers with one switch thrown."""

    switch: str
    what: str
    """The part of the inputs that is left."""
    not_applied: str
    """Why this switch says nothing about this recommender; empty if it was thrown."""
    values: dict[str, Estimate]
    """Each metric with the switch thrown."""
    drop: dict[str, Estimate]
    """Each metric as it was minus what it is now, user by user: above 0, the recommender is worse off."""


class Ablations(Config):
    """Metrics of one recommender as it is, and with each switch thrown."""

    name: str
    protocol: Protocol
    intact: dict[str, Estimate]
    """Each metric of the recommender as it is."""
    results: tuple[AblationResult, ...]

    def are_of(self, protocol: Protocol, values: Mapping[str, Estimate]) -> bool:
        """Return whether these results belong to the recommender with `values` under `protocol`."""
        return self.protocol == protocol and all(
            metric in values and isclose(values[metric].mean, estimate.mean, abs_tol=1e-6)
            for metric, estimate in self.intact.items()
        )

    def joined_to(self, earlier: "Ablations") -> "Ablations":
        """Return these results and the earlier ones of other switches, if both are of one model and protocol."""
        if not earlier.are_of(self.protocol, self.intact):
            return self
        by_switch = {result.switch: result for result in (*earlier.results, *self.results)}
        return self.model_copy(
            update={"results": tuple(by_switch[switch] for switch in SWITCHES if switch in by_switch)}
        )


@dataclass(frozen=True)
class TextReader:
    """The prompt of a recommender that reads items' texts, and a way to give it other texts."""

    prompt: PromptConfig
    with_texts: Callable[[Sequence[str]], Retriever]
    """The same recommender with these texts, one for each item of the catalogue, in its order."""


@final
class Rearranged:
    """A Retriever that reads histories after `rearrange` has chosen and ordered their positions.

    Items and actions move; the k-th latest time stays the k-th latest, so that a model that reads times finds
    none that run backwards, and no trace of the old order.
    """

    def __init__(self, retriever: Retriever, rearrange: Callable[[int], Places]) -> None:
        self.retriever = retriever
        self.rearrange = rearrange

    def recommend(
        self,
        histories: Histories,
        k: int,
        *,
        exclude: ItemLists | None = None,
        candidates: Bool[np.ndarray, " item"] | None = None,
    ) -> Recommendations:
        """Return the k best items of each user; see Retriever."""
        return self.retriever.recommend(self._moved(histories), k, exclude=exclude, candidates=candidates)

    def rank(self, histories: Histories, targets: Int[np.ndarray, " user"], exclude: ItemLists) -> TargetRanks:
        """Return where each target stands; see Retriever."""
        return self.retriever.rank(self._moved(histories), targets, exclude)

    def _moved(self, histories: Histories) -> Histories:
        places = [self.rearrange(length) for length in histories.lengths.tolist()]

        def moved(column: ItemLists) -> ItemLists:
            return [history[order] for history, order in zip(column, places, strict=True)]

        times, actions = histories.times, histories.actions
        if times is not None:
            times = [history[len(history) - len(order) :] for history, order in zip(times, places, strict=True)]
        return replace(
            histories, items=moved(histories.items), times=times, actions=None if actions is None else moved(actions)
        )


def ablate(
    as_it_is: Result,
    retriever: Retriever,
    dataset: Dataset,
    split: Split,
    *,
    switches: Sequence[str] | None,
    max_history: int | None,
    texts: TextReader | None,
) -> Ablations:
    """Rank every target again with each switch thrown; return metrics and drops with paired intervals.

    `as_it_is` is the retriever's own evaluation, whose protocol is kept to. Nothing is trained. `switches` are names
    of SWITCHES (None: all, and those that do not apply say why). `max_history` is how many of a history's latest
    items the recommender reads (None: all): those are reordered, so that the same items are read. `texts` is None
    for one that reads no text. Random orders come from the evaluation's seed. Raises ConfigError as check_switches.
    """
    reasons = check_switches(switches, dataset, texts)
    config = as_it_is.protocol.evaluation
    questions = queries(dataset, split, as_it_is.protocol.part, config)
    interval = partial(bootstrap_means, users=questions.users, samples=config.bootstrap_samples, seed=config.seed)
    intact = _metrics(retriever, questions, config, label="as it is")
    results = []
    for switch, reason in reasons.items():
        description = SWITCHES[switch]
        if reason:
            results.append(AblationResult(switch=switch, what=description, not_applied=reason, values={}, drop={}))
            continue
        other = _thrown(switch, retriever, dataset, split, config.seed, max_history, texts)
        values = _metrics(other, questions, config, label=switch)
        drop = {metric: intact[metric] - values[metric] for metric in intact}
        results.append(
            AblationResult(
                switch=switch, what=description, not_applied="", values=interval(values), drop=interval(drop)
            )
        )
    return Ablations(name=as_it_is.name, protocol=as_it_is.protocol, intact=interval(intact), results=tuple(results))


def check_switches(switches: Sequence[str] | None, dataset: Dataset, texts: TextReader | None) -> dict[str, str]:
    """Return why each switch (None: each of SWITCHES) does not apply to a recommender; empty where it does.

    Raises ConfigError for an unknown switch, and for one that was asked for by name and does not apply.
    """
    for switch in switches or ():
        if switch not in SWITCHES:
            raise ConfigError(
                f"unknown ablation switch {switch!r}{nearest(switch, SWITCHES)}; known: {', '.join(SWITCHES)}"
            )
    if switches is None:
        return {switch: _why_not(switch, dataset, texts) for switch in SWITCHES}
    if not switches:
        raise ConfigError(f"no ablation switch is named; known: {', '.join(SWITCHES)}")
    reasons = {switch: _why_not(switch, dataset, texts) for switch in switches}
    if any(reasons.values()):
        refused = "; ".join(f"{switch!r} does not apply: {why}" for switch, why in reasons.items() if why)
        raise ConfigError(f"ablation switch {refused}")
    return reasons


def _why_not(switch: str, dataset: Dataset, texts: TextReader | None) -> str:
    """Return why a switch would change nothing, or cannot be thrown; empty if it can."""
    if switch not in _OF_TEXT:
        return ""
    if texts is None:
        return "the model knows items by id only and reads no text"
    if switch == "title-only" and dataset.title_col not in dataset.text_cols:
        return f"the model does not read the title column {dataset.title_col!r}"
    if switch == "title-only" and dataset.text_cols == (dataset.title_col,):
        return "the title is all the text that the model reads"
    return ""


def _thrown(
    switch: str,
    retriever: Retriever,
    dataset: Dataset,
    split: Split,
    seed: int,
    max_history: int | None,
    texts: TextReader | None,
) -> Retriever:
    """Return the recommender with one switch thrown."""
    rng = stream(seed, "ablation", switch)

    def reordered(order: Callable[[Places], Places]) -> Retriever:
        def rearrange(length: int) -> Places:
            unread = 0 if max_history is None else max(0, length - max_history)
            return np.concatenate([np.arange(unread), order(np.arange(unread, length))])

        return Rearranged(retriever, rearrange)

    match switch:
        case "shuffled-order":
            return reordered(rng.permutation)
        case "reversed-order":
            return reordered(np.flip)
        case "last-item":
            return Rearranged(retriever, lambda n: np.arange(max(0, n - 1), n))
        case "popularity":
            return ExactRetriever(Popularity(dataset, split))
    assert texts is not None, "a switch of text on a model without text"
    fields = (dataset.title_col,) if switch == "title-only" else dataset.text_cols
    rendered = render(dataset.items, fields, texts.prompt)
    if switch == "shuffled-text":
        rendered = [rendered[item] for item in rng.permutation(len(rendered))]
    if switch == "no-text":
        rendered = [texts.prompt.prefix] * len(rendered)
    return texts.with_texts(rendered)


def _metrics(
    retriever: Retriever, questions: Queries, config: EvaluationConfig, *, label: str
) -> dict[str, Float[np.ndarray, " target"]]:
    """Return each target's metrics, with progress."""
    parts = []
    with progress(label, len(questions.targets)) as advance:
        for start in range(0, len(questions.targets), _TARGETS_PER_STEP):
            some = slice(start, start + _TARGETS_PER_STEP)
            histories = questions.histories[some]
            ranks = retriever.rank(histories, questions.targets[some], exclude=questions.excluded[some])
            parts.append(ranking_metrics(ranks, config.cutoffs))
            advance(len(histories))
    return {metric: np.concatenate([part[metric] for part in parts]) for metric in parts[0]}
