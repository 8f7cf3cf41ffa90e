"""Runs and baselines evaluated under one protocol, for one table."""

from collections.abc import Mapping, Sequence

from hllm.api import Recommender
from hllm.errors import ConfigError
from hllm.evaluation.evaluate import Evaluated, Part, Result
from hllm.evaluation.impressions import RankingResult, evaluate_ranker
from hllm.evaluation.protocol import describe_differences
from hllm.ranking.ranker import ModelRanker
from hllm.runs.results import data_policy, log_evaluation, run_facts


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


def evaluate_rankers(runs: Mapping[str, Recommender], *, part: Part = "test") -> list[RankingResult]:
    """Evaluate runs that rank under one protocol, and count these evaluations in their directories.

    Raises ConfigError for a run without heads, and if data, split, candidates or targets of two runs differ.
    """
    results: list[RankingResult] = []
    for name, run in runs.items():
        split = run.split
        log_evaluation(run.run, part, split)
        result = evaluate_ranker(
            name, ModelRanker(run.scorer), run.dataset, split, part, run.recipe.evaluation,
            data_policy=data_policy(run.recipe), split_options=run.recipe.split.options(),
            facts=run_facts(run.run, run.recipe, run.model, split),
        )  # fmt: skip
        for first in results[:1]:
            ours, theirs = ({**each.protocol.model_dump(), "targets": list(each.targets)} for each in (first, result))
            compared = [key for key in ours if key not in ("data_policy", "split_options")]  # fingerprints say it
            if differing := [(key, ours[key], theirs[key]) for key in compared if ours[key] != theirs[key]]:
                raise ConfigError(
                    f"{first.name} and {name} were made under different protocols: {describe_differences(differing)}; "
                    "their numbers cannot stand in one table"
                )
        results.append(result)
    return results
