"""Results of rankers become text for a terminal."""

# Proved by tests/cli/test_rank.py.

from collections.abc import Sequence

from hllm.evaluation.impressions import RankingResult
from hllm.evaluation.statistics import Estimate
from hllm.metrics.definitions import RANKER
from hllm.reports.text import text_table


def ranking_table(results: Sequence[RankingResult]) -> str:
    """Return a table for each target, a row for each result, under the protocol that they share."""
    protocol = results[0].protocol
    lines = [
        f"data {protocol.dataset[:12]}, split {protocol.split} {protocol.split_fingerprint[:12]}, {protocol.part} part",
        f"scored: {protocol.candidates}",
        f"history: {protocol.history}",
        f"intervals: {protocol.interval}, {protocol.bootstrap_samples} samples, seed {protocol.seed}",
    ]
    for target in results[0].targets:
        first = results[0].targets[target]
        lines += [
            "",
            f"target {target}: {first.num_impressions:,} impressions of {first.num_users:,} users, "
            f"{first.num_positive:,} positive; gauc: {first.num_users_of_one_class:,} users of one class left out",
        ]
        rows = [(each.name, *(_cell(each.targets[target].metrics.get(name)) for name in RANKER)) for each in results]
        lines += text_table(("", *RANKER), rows)
    lines += ["", *(f"{each.name}: {each.facts.line()}" for each in results)]
    return "\n".join(lines)


def _cell(value: Estimate | None) -> str:
    return "-" if value is None else f"{value.mean:.4f} [{value.low:.4f} {value.high:.4f}]"
