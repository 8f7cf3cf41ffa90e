"""Compare recommenders by the ranks that their evaluations stored: intervals, paired tests, and which are best."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from hllm.config import Config
from hllm.errors import ConfigError, nearest
from hllm.evaluation.evaluate import measured
from hllm.evaluation.facts import RunFacts
from hllm.evaluation.protocol import EvaluationConfig, Protocol, describe_differences, different_protocols
from hllm.evaluation.ranks import Contender
from hllm.evaluation.sampled import warn_of_sampling
from hllm.evaluation.statistics import (
    Estimate,
    bootstrap_means,
    holm,
    paired_t_test,
    randomisation_test,
    user_sums,
)

LEVEL = 0.05
BEST = "best"
_ANEW = ("evaluation.", "categories")  # computed anew from the ranks, or no part of what is compared
_NAME = re.compile(r"(?P<sampled>sampled_)?(?P<metric>[a-z_]+)@(?P<k>[1-9]\d*)(?:/(?P<candidates>[1-9]\d*))?")


class PairedTest(Config):
    """A recommender less another one, over the users that both have."""

    against: str
    difference: Estimate
    num_users: int
    p_randomisation: float
    """p of the paired randomisation test, corrected for the number of tests."""
    p_t: float
    """p of the paired t-test, corrected for the number of tests."""
    raw_p_randomisation: float
    raw_p_t: float


class ComparedRun(Config):
    """One recommender's line."""

    name: str
    value: Estimate
    num_targets: int
    """Rows behind the mean: targets, or users where a query is a user's."""
    test: PairedTest | None
    """Against the reference; None for the reference itself, or where no user is common."""
    mark: Literal["best", "as good", ""]
    """"as good": not significantly below the best by the corrected randomisation test."""


class MetricTable(Config):
    """All recommenders by one metric, in the order they were given."""

    metric: str
    rows: tuple[ComparedRun, ...]


class Comparison(Config):
    """Result of `hllm compare`."""

    protocol: Protocol
    """Protocol of the first recommender."""
    mixed: dict[str, str]
    """Differences of another's protocol, by its name; empty unless mixing was forced."""
    group: str | None
    """The group of targets, such as "cold items"; None: all."""
    facts: dict[str, RunFacts]
    tables: tuple[MetricTable, ...]


@dataclass(frozen=True)
class _Values:
    """One recommender's values of one metric, a row for each target."""

    name: str
    user_ids: pl.Series
    item_ids: pl.Series
    users: Int[np.ndarray, " target"]
    values: Float[np.ndarray, " target"]


def compare_ranks(
    contenders: Sequence[Contender],
    metrics: Sequence[str],
    *,
    reference: str = BEST,
    group: str | None = None,
    force: bool = False,
) -> Comparison:
    """Tabulate `metrics`, and test each recommender against the `reference`: a name, or the best by each metric.

    All tests of a comparison are corrected together. Metrics need not be among those shown when the ranks were made.
    With `force`, other protocols are allowed and the tests are over the users that both recommenders have, each
    with the mean over the user's targets. Raises ConfigError for protocols that differ, naming the difference;
    for a metric, group or reference that is not known; and for a single recommender.
    """
    _check(contenders, metrics, reference)
    mixed = _mixed(contenders)
    if mixed and not force:
        name, difference = next(iter(mixed.items()))
        advice = ". Evaluate both alike, or mix them knowingly with --force"
        raise different_protocols(contenders[0].name, name, difference, advice=advice)
    first = contenders[0].protocol
    base = first.evaluation
    for candidates in {_config_for(metric, first).sampled_candidates for metric in metrics} - {None}:
        warn_of_sampling(candidates or 0)
    tables = [
        (metric, [_values_of(each, _config_for(metric, first), metric, group) for each in contenders])
        for metric in metrics
    ]
    return Comparison(
        protocol=contenders[0].protocol,
        mixed=mixed,
        group=group,
        facts={contender.name: contender.facts for contender in contenders},
        tables=_tested(tables, reference, base),
    )


def _check(contenders: Sequence[Contender], metrics: Sequence[str], reference: str) -> None:
    if not metrics:
        raise ConfigError("a comparison needs at least one metric, such as ndcg@10")
    names = [contender.name for contender in contenders]
    if len(names) < 2:
        raise ConfigError("a comparison needs at least two recommenders: give two runs, or RUN and RUN:popularity")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"two runs are named {twice!r}; a table needs names that differ: rename a directory")
    if reference not in (BEST, *names):
        raise ConfigError(
            f'unknown reference {reference!r}{nearest(reference, names)}; expected "{BEST}" or one of: '
            f"{', '.join(names)}"
        )


def _mixed(contenders: Sequence[Contender]) -> dict[str, str]:
    """Return what is different from the first protocol; what is computed anew from the ranks does not count."""
    first, descriptions = contenders[0], {}
    for other in contenders[1:]:
        differences = [d for d in first.protocol.differences(other.protocol) if not d[0].startswith(_ANEW)]
        if differences:
            descriptions[other.name] = describe_differences(differences)
    return descriptions


def _values_of(contender: Contender, config: EvaluationConfig, metric: str, group: str | None) -> _Values:
    members = contender.targets.group(group)
    if not members.any():
        raise ConfigError(f"{contender.name} has no targets in the slice {group!r}")
    query_per = contender.protocol.evaluation.query_per  # as its ranks are: another's, if protocols are mixed
    config = config.model_copy(update={"query_per": query_per})
    rows, metrics = next(measured(contender.targets, contender.ranks, config, [members]))
    if metric not in metrics:
        raise ConfigError(f"{contender.name} has no {metric}: it was evaluated with one query for each {query_per}")
    return _Values(contender.name, rows.user_ids, rows.item_ids, rows.users, metrics[metric])


def _config_for(metric: str, protocol: Protocol) -> EvaluationConfig:
    """Return the config under which the metric is computed; ConfigError if there is no such metric."""
    parts = _NAME.fullmatch(metric)
    sampled = parts is not None and parts["sampled"] is not None
    if parts is None or parts["metric"] not in protocol.metrics or sampled != (parts["candidates"] is not None):
        raise ConfigError(
            f"unknown metric {metric!r}; expected one of {', '.join(protocol.metrics)} and a cut-off, such as "
            "ndcg@10, or among sampled candidates, such as sampled_ndcg@10/100"
        )
    if sampled and int(parts["k"]) > int(parts["candidates"]):
        raise ConfigError(f"{metric} has a cut-off beyond its number of candidates")
    if sampled and protocol.evaluation.query_per == "user":
        raise ConfigError(
            f"{metric} is of targets by themselves, and the runs have one query for each user; leave it out"
        )
    return protocol.evaluation.model_copy(update={
        "cutoffs": (int(parts["k"]),),
        "sampled_candidates": int(parts["candidates"]) if sampled else None,
    })  # fmt: skip


def _tested(
    tables: Sequence[tuple[str, Sequence[_Values]]], reference: str, config: EvaluationConfig
) -> tuple[MetricTable, ...]:
    best = [_best(rows) for _, rows in tables]
    to_best = _tests([[(row, top) for row in rows] for top, (_, rows) in zip(best, tables, strict=True)], config)
    tests = to_best
    if reference != BEST:
        references = [next(row for row in rows if row.name == reference) for _, rows in tables]
        tests = _tests(
            [[(row, base) for row in rows] for base, (_, rows) in zip(references, tables, strict=True)], config
        )
    return tuple(
        MetricTable(
            metric=metric,
            rows=tuple(
                ComparedRun(
                    name=row.name,
                    value=_estimate(row.values, row.users, config),
                    num_targets=len(row.values),
                    test=tests[number][place],
                    mark="best" if row is best[number] else _mark(to_best[number][place]),
                )
                for place, row in enumerate(rows)
            ),
        )
        for number, (metric, rows) in enumerate(tables)
    )


def _mark(against_best: PairedTest | None) -> Literal["as good", ""]:
    return "as good" if against_best is not None and against_best.p_randomisation >= LEVEL else ""


def _best(rows: Sequence[_Values]) -> _Values:
    return max(rows, key=lambda row: float(row.values.mean()))


def _tests(
    tables: Sequence[Sequence[tuple[_Values, _Values]]], config: EvaluationConfig
) -> list[list[PairedTest | None]]:
    """Test the pairs of every table, corrected for their number; None for a pair that cannot be tested."""
    raw = [[None if ours is theirs else _test(ours, theirs, config) for ours, theirs in pairs] for pairs in tables]
    tests = [test for row in raw for test in row if test is not None]
    signs, t = holm([test.raw_p_randomisation for test in tests]), holm([test.raw_p_t for test in tests])
    corrected = iter([
        test.model_copy(update={"p_randomisation": p, "p_t": q}) for test, p, q in zip(tests, signs, t, strict=True)
    ])  # fmt: skip
    return [[None if test is None else next(corrected) for test in row] for row in raw]


def _test(ours: _Values, theirs: _Values, config: EvaluationConfig) -> PairedTest | None:
    ours, theirs = _paired(ours, theirs)
    if len(ours.values) == 0:
        return None
    sums, _ = user_sums(np.stack([ours.values, theirs.values], axis=1), ours.users)
    p_signs, p_t = randomisation_test(sums[:, 0] - sums[:, 1], seed=config.seed), paired_t_test(sums[:, 0], sums[:, 1])
    return PairedTest(
        against=theirs.name,
        difference=_estimate(ours.values - theirs.values, ours.users, config),
        num_users=len(sums),
        p_randomisation=p_signs,
        p_t=p_t,
        raw_p_randomisation=p_signs,
        raw_p_t=p_t,
    )


def _paired(ours: _Values, theirs: _Values) -> tuple[_Values, _Values]:
    """Return both with the same rows: as they are, or, where the targets differ, a mean for each common user."""
    if ours.user_ids.equals(theirs.user_ids) and ours.item_ids.equals(theirs.item_ids):
        return ours, theirs
    frames = [
        pl.DataFrame({"user": side.user_ids.cast(pl.String), "value": side.values})
        .group_by("user", maintain_order=True)
        .mean()
        for side in (ours, theirs)
    ]
    common = frames[0].join(frames[1], on="user", maintain_order="left")
    users = np.arange(len(common))

    def one(side: _Values, column: str) -> _Values:
        return _Values(side.name, common["user"], common["user"], users, common[column].to_numpy())

    return one(ours, "value"), one(theirs, "value_right")


def _estimate(
    values: Float[np.ndarray, " target"], users: Int[np.ndarray, " target"], config: EvaluationConfig
) -> Estimate:
    return bootstrap_means({"value": values}, users=users, samples=config.bootstrap_samples, seed=config.seed)["value"]
