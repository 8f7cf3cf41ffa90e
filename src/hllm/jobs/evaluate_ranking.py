"""Runs that rank are evaluated under one protocol, for one table."""

# Proved by tests/training/test_ranking.py.

from collections.abc import Mapping
from typing import Any

from hllm.api import Recommender
from hllm.evaluation.evaluate import Part
from hllm.evaluation.impressions import RankingResult
from hllm.jobs.evaluate import refuse_differences
from hllm.runs.measure import evaluate_run_as_ranker

_SAID_BY_FINGERPRINTS = ("data_policy", "split_options")


def evaluate_rankers(runs: Mapping[str, Recommender], *, part: Part = "test") -> list[RankingResult]:
    """Evaluate runs that rank under one protocol, and count these evaluations in their directories.

    Raises ConfigError for a run without heads, and if data, split, candidates or targets of two runs differ.
    """
    results: list[RankingResult] = []
    for name, run in runs.items():
        result = evaluate_run_as_ranker(run.bundle, part=part, name=name)
        for first in results[:1]:
            refuse_differences(first.name, name, _differences(first, result))
        results.append(result)
    return results


def _differences(ours: RankingResult, theirs: RankingResult) -> list[tuple[str, Any, Any]]:
    """Return what differs between two protocols, and the values on both sides."""
    first, second = ({**each.protocol.model_dump(), "targets": list(each.targets)} for each in (ours, theirs))
    compared = [key for key in first if key not in _SAID_BY_FINGERPRINTS]
    return [(key, first[key], second[key]) for key in compared if first[key] != second[key]]
