"""A bundle evaluated under its run's protocol, and other recommenders beside it."""

from hllm.data.split import options_of
from hllm.evaluation.evaluate import Evaluated, Part, evaluate_with_ranks
from hllm.evaluation.facts import RunFacts
from hllm.retrieval.retriever import Retriever
from hllm.runs.bundle import Bundle
from hllm.runs.results import data_policy, device_name, log_evaluation, run_facts


def evaluate_run(bundle: Bundle, *, part: Part = "test", name: str = "model") -> Evaluated:
    """Rank the full catalogue for every target of `part`, by exact search; return metrics, ranks and the protocol.

    Each evaluation is counted in the run's directory, and the count for the test part is among the result's facts.
    """
    log_evaluation(bundle.run, part, bundle.split)
    facts = run_facts(bundle.run, bundle.recipe, bundle.model, bundle.split)
    return evaluate_beside(bundle, name, bundle.exact, part=part, facts=facts)


def evaluate_beside(
    bundle: Bundle, name: str, retriever: Retriever, *, part: Part = "test", facts: RunFacts | None = None
) -> Evaluated:
    """Evaluate another recommender, such as a baseline, on the bundle's data under the same protocol."""
    recipe = bundle.recipe
    return evaluate_with_ranks(
        name, retriever, bundle.dataset, bundle.split, part, recipe.evaluation,
        data_policy=data_policy(recipe), split_options=options_of(recipe.split),
        facts=facts or RunFacts(machine=device_name()),
    )  # fmt: skip
