"""Runs and baselines where little is known, for one table."""

from collections.abc import Mapping, Sequence

from hllm.api import Recommender
from hllm.data.split import options_of
from hllm.evaluation.baselines import build_baseline
from hllm.evaluation.cold_start import LENGTHS, ColdStart, Entrant, cold_items, short_histories
from hllm.evaluation.evaluate import Part, evaluate_with_ranks, queries
from hllm.evaluation.facts import RunFacts
from hllm.jobs.evaluate import require_one_protocol, require_own_names
from hllm.retrieval.exact import ExactRetriever
from hllm.runs.results import data_policy, device_name


def cold_start(
    runs: Mapping[str, Recommender], baselines: Sequence[str], *, part: Part = "test", lengths: Sequence[int] = LENGTHS
) -> ColdStart:
    """Evaluate baselines and runs on cold items, and on histories cut to `lengths`, under one protocol.

    Raises ConfigError if the runs' protocols differ, and what `short_histories` raises.
    """
    require_own_names(runs, baselines)
    first = next(iter(runs.values()))
    dataset, split = first.dataset, first.split
    trained = [_run(name, run, part) for name, run in runs.items()]
    require_one_protocol([each.evaluated for each in trained])
    entrants = [*(_baseline(name, first, part) for name in baselines), *trained]
    targets = queries(dataset, split, part)
    return ColdStart(
        cold_items=cold_items(entrants, dataset, split, targets),
        short_histories=short_histories(entrants, dataset, split, targets, lengths),
    )


def _run(name: str, run: Recommender, part: Part) -> Entrant:
    by_id = not run.recipe.model.item.facts.reads_text
    return Entrant(run.scorer, run.evaluate_with_ranks(part=part, name=name), by_id)


def _baseline(name: str, first: Recommender, part: Part) -> Entrant:
    recipe, split = first.recipe, first.split
    scorer = build_baseline(name, first.dataset, split)
    evaluated = evaluate_with_ranks(
        name, ExactRetriever(scorer), first.dataset, split, part, recipe.evaluation,
        data_policy=data_policy(recipe), facts=RunFacts(machine=device_name()), split_options=options_of(recipe.split),
    )  # fmt: skip
    return Entrant(scorer, evaluated, by_id=False)
