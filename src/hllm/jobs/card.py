"""The model card of a run is made from its stored results and settings."""

# Proved by tests/cli/test_card.py.

import platform
from importlib.metadata import version
from pathlib import Path

from hllm import artifacts
from hllm.api import Recommender
from hllm.errors import ConfigError
from hllm.reports.model_card import CardFacts, model_card
from hllm.runs.results import ablations_of, read_evaluation
from hllm.runs.run import Run

_PACKAGES = ("torch", "transformers", "numpy", "polars")


def write_card(run: Run, target: Path | None = None) -> Path:
    """Write the card to `target`, by default into the run's directory; return where it is.

    Raises ConfigError if the run has not been evaluated as it is now.
    """
    recommender = Recommender.load(run.folder)
    text = model_card(card_facts(recommender), recommender.dataset, recommender.split)
    target = target or run.card_path
    artifacts.write_text(target, text)
    return target


def card_facts(recommender: Recommender) -> CardFacts:
    """Return what the card says of a run; ConfigError if it has not been evaluated as it is now."""
    run, recipe, model = recommender.run, recommender.recipe, recommender.model
    results = read_evaluation(run)
    own = next((result for result in results if result.name == run.name), None)
    now = recommender.dataset.log_fingerprint, recommender.bundle.origin.checkpoint
    if own is None or (own.protocol.dataset, own.facts.checkpoint) != now:
        raise ConfigError(
            f"{run.result_path('evaluation', 'test')} is not of this run; make it again with hllm evaluate --run "
            f"{run.folder}"
        )
    position = run.position()
    parts = (("item tier", model.item_encoder), ("user tier", model.user_encoder), ("in all", model))
    return CardFacts(
        name=run.name,
        recipe=recipe.model_dump(mode="json"),
        recipe_changes=recipe.model_dump(mode="json", exclude_defaults=True),
        start=recipe.start.sentence if recipe.start is not None else None,
        trained=[stage.described for stage in recipe.stages],
        parameters={name: sum(weight.numel() for weight in part.parameters()) for name, part in parts},
        num_steps=position.step,
        elapsed_s=position.elapsed_s,
        reads_text=recipe.model.item.facts.reads_text,
        reads_times=model.reads_times,
        reads_actions=model.fusion is not None and model.fusion.actions is not None,
        result=own,
        others=[result for result in results if result is not own],
        ablations=ablations_of(run, own),
        environment=_environment(),
    )


def _environment() -> dict[str, str]:
    return {
        "hllm": version("hllm"),
        "Python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        platform.system(): platform.machine(),
    }
