"""A bundle is evaluated under its run's protocol, and other recommenders beside it."""

# Proved by tests/test_matryoshka.py.

from hllm.evaluation.evaluate import Evaluated, Part, evaluate_with_ranks, require_part
from hllm.evaluation.facts import Provenance
from hllm.evaluation.impressions import RankingResult, evaluate_ranker
from hllm.ranking.ranker import ModelRanker
from hllm.retrieval.retriever import Retriever
from hllm.runs.bundle import Bundle
from hllm.runs.results import log_evaluation, provenance_of, run_facts


def evaluate_run(bundle: Bundle, *, part: Part = "test", name: str = "model") -> Evaluated:
    """Rank the full catalogue for every target of `part`, by exact search; return metrics, ranks and the protocol.

    Each evaluation is counted in the run's directory, and the count for the test part is among the result's facts.
    """
    return _evaluated(bundle, name, bundle.exact, part, _counted(bundle, part))


def evaluate_beside(bundle: Bundle, name: str, retriever: Retriever, *, part: Part = "test") -> Evaluated:
    """Evaluate another recommender, such as a baseline, on the bundle's data under the same protocol."""
    return _evaluated(bundle, name, retriever, part, provenance_of(bundle.recipe))


def evaluate_run_as_ranker(bundle: Bundle, *, part: Part = "test", name: str = "model") -> RankingResult:
    """Score the labelled candidates of `part`; count the evaluation. Raises ConfigError for a run without heads."""
    return evaluate_ranker(
        name, ModelRanker(bundle.scorer), bundle.dataset, bundle.split, part, bundle.recipe.evaluation,
        provenance=_counted(bundle, part),
    )  # fmt: skip


def _evaluated(bundle: Bundle, name: str, retriever: Retriever, part: Part, provenance: Provenance) -> Evaluated:
    return evaluate_with_ranks(
        name, retriever, bundle.dataset, bundle.split, part, bundle.recipe.evaluation, provenance=provenance
    )


def _counted(bundle: Bundle, part: Part) -> Provenance:
    """Count an evaluation of the run in its directory; return where its result comes from."""
    require_part(part)
    log_evaluation(bundle.run, part, bundle.split)
    facts = run_facts(bundle.run, bundle.recipe, bundle.model, bundle.split)
    return provenance_of(bundle.recipe, facts)
