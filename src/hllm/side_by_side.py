"""Runs and baselines evaluated under one protocol, for one table."""

from collections.abc import Mapping, Sequence

from hllm.api import Recommender
from hllm.errors import ConfigError
from hllm.evaluation.evaluate import Evaluated, Part, Result
from hllm.evaluation.protocol import describe_differences


def evaluate_all(runs: Mapping[str, Recommender], baselines: Sequence[str], *, part: Part = "test") -> list[Result]:
    """Evaluate baselines and runs under one protocol; ConfigError if the runs' protocols differ."""
    return [each.result for each in evaluate_all_with_ranks(runs, baselines, part=part)]


def evaluate_all_with_ranks(
    runs: Mapping[str, Recommender], baselines: Sequence[str], *, part: Part = "test"
) -> list[Evaluated]:
    """Evaluate baselines and runs as `evaluate_all` does, and return where each target stands too."""
    if both := set(runs) & set(baselines):
        raise ConfigError(f"a run and a baseline are both named {both.pop()!r}; rename the run's directory")
    trained = [run.evaluate_with_ranks(part=part, name=name) for name, run in runs.items()]
    expected = trained[0].result
    for each in trained[1:]:
        if differing := expected.protocol.differences(each.result.protocol):
            raise ConfigError(
                f"{expected.name} and {each.result.name} were made under different protocols: "
                f"{describe_differences(differing)}; their numbers cannot stand in one table"
            )
    first = next(iter(runs.values()))
    return [*(first.evaluate_baseline_with_ranks(name, part=part) for name in baselines), *trained]
