"""Runs and baselines are evaluated where little is known, for one table."""

# Proved by tests/cli/test_cold_start.py.

from collections.abc import Mapping, Sequence

from hllm.api import Recommender
from hllm.evaluation.baselines import build_baseline
from hllm.evaluation.cold_start import LENGTHS, ColdStart, Entrant, cold_items, short_histories
from hllm.evaluation.evaluate import Part, queries
from hllm.evaluation.protocol import require_query_per_target
from hllm.jobs.evaluate import require_one_protocol, require_own_names
from hllm.retrieval.exact import ExactRetriever
from hllm.runs.measure import evaluate_beside, evaluate_run


def cold_start(
    runs: Mapping[str, Recommender], baselines: Sequence[str], *, part: Part = "test", lengths: Sequence[int] = LENGTHS
) -> ColdStart:
    """Evaluate baselines and runs on cold items, and on histories cut to `lengths`, under one protocol.

    Raises ConfigError if the runs' protocols differ, and what `short_histories` raises.
    """
    require_own_names(runs, baselines)
    first = next(iter(runs.values()))
    dataset, split = first.dataset, first.split
    require_query_per_target(first.recipe.evaluation, purpose="a cold-start report")
    trained = [_run(name, run, part) for name, run in runs.items()]
    require_one_protocol([each.evaluated for each in trained])
    entrants = [*(_baseline(name, first, part) for name in baselines), *trained]
    questions = queries(dataset, split, part, first.recipe.evaluation)
    return ColdStart(
        cold_items=cold_items(entrants, dataset, split, questions),
        short_histories=short_histories(entrants, dataset, split, questions, lengths),
    )


def _run(name: str, run: Recommender, part: Part) -> Entrant:
    by_id = not run.recipe.model.item.facts.reads_text
    return Entrant(run.scorer, evaluate_run(run.bundle, part=part, name=name), by_id)


def _baseline(name: str, first: Recommender, part: Part) -> Entrant:
    scorer = build_baseline(name, first.dataset, first.split)
    evaluated = evaluate_beside(first.bundle, name, ExactRetriever(scorer), part=part)
    return Entrant(scorer, evaluated, by_id=False)
