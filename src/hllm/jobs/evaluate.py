"""Runs and baselines are evaluated under one protocol, for one table."""

# Proved by tests/test_api.py.

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hllm.api import Recommender
from hllm.errors import ConfigError
from hllm.evaluation.baselines import build_baseline
from hllm.evaluation.evaluate import Evaluated, Part
from hllm.evaluation.protocol import describe_differences, different_protocols
from hllm.retrieval.exact import ExactRetriever
from hllm.runs.bundle import Bundle
from hllm.runs.measure import evaluate_beside, evaluate_run
from hllm.runs.run import Run


def open_runs(paths: Iterable[Path]) -> dict[str, Recommender]:
    """Open finished runs, by the names of their directories; ConfigError if two are alike."""
    runs: dict[str, Recommender] = {}
    for path in paths:
        if (name := Run(path).name) in runs:
            raise ConfigError(f"two runs are named {name!r}; a table needs names that differ: rename a directory")
        runs[name] = Recommender.load(path)
    return runs


def evaluate_all(runs: Mapping[str, Recommender], baselines: Sequence[str], *, part: Part = "test") -> list[Evaluated]:
    """Evaluate baselines and runs under one protocol; ConfigError if the runs' protocols differ."""
    require_own_names(runs, baselines)
    trained = [evaluate_run(run.bundle, part=part, name=name) for name, run in runs.items()]
    require_one_protocol(trained)
    first = next(iter(runs.values())).bundle
    return [*(evaluate_baseline(first, name, part=part) for name in baselines), *trained]


def evaluate_baseline(bundle: Bundle, name: str, *, part: Part = "test") -> Evaluated:
    """Evaluate one of `hllm.evaluation.baselines`, such as "popularity", on a run's data under the same protocol."""
    retriever = ExactRetriever(build_baseline(name, bundle.dataset, bundle.split))
    return evaluate_beside(bundle, name, retriever, part=part)


def require_own_names(runs: Iterable[str], baselines: Iterable[str]) -> None:
    """Raise ConfigError if a run has the name of a baseline."""
    if both := set(runs) & set(baselines):
        raise ConfigError(f"a run and a baseline are both named {both.pop()!r}; rename the run's directory")


def require_one_protocol(evaluated: Sequence[Evaluated]) -> None:
    """Raise ConfigError if one of the results has another protocol than the first."""
    first = evaluated[0].result
    for each in evaluated[1:]:
        refuse_differences(first.name, each.result.name, first.protocol.differences(each.result.protocol))


def refuse_differences(first: str, other: str, differences: list[tuple[str, Any, Any]]) -> None:
    """Raise ConfigError if there are differences between the protocols of two results."""
    if differences:
        raise different_protocols(first, other, describe_differences(differences))
