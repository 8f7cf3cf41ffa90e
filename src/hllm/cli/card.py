"""`hllm card`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hllm.cli.run import RUN, label
from hllm.cli.stored import RESULTS, ablations_of, read_results
from hllm.errors import ConfigError

if TYPE_CHECKING:
    from hllm.api import Recommender
    from hllm.reports.model_card import CardFacts


def card(
    run: Path = RUN,
    out: Path | None = typer.Option(None, "--out", help="The file; default: README.md in the run's directory."),
) -> None:
    """Write a model card in Hugging Face's form: what the model is, its data, training, numbers, limits and use.

    The numbers are those that `hllm evaluate` and, if it has run, `hllm ablate` have stored.
    """
    from hllm import artifacts
    from hllm.api import Recommender
    from hllm.reports.model_card import model_card

    recommender = Recommender.load(run)
    text = model_card(_facts(run, recommender), recommender.dataset, recommender.split)
    target = out or run / "README.md"
    artifacts.write_text(target, text)
    typer.echo(str(target))


def _facts(run: Path, recommender: "Recommender") -> "CardFacts":
    from hllm.reports.model_card import CardFacts

    results = read_results(run)
    own = next((result for result in results if result.name == label(run)), None)
    if own is None or own.protocol.dataset != recommender.dataset.log_fingerprint:
        raise ConfigError(f"{run / RESULTS} is not of this run; make it again with hllm evaluate --run {run}")
    position, recipe, model = recommender.run.position(), recommender.recipe, recommender.model
    return CardFacts(
        name=label(run),
        recipe=recipe.model_dump(mode="json"),
        recipe_changes=recipe.model_dump(mode="json", exclude_defaults=True),
        parameters={
            name: sum(weight.numel() for weight in part.parameters())
            for name, part in (
                ("item tier", model.item_encoder),
                ("user tier", model.user_encoder),
                ("in all", model),
            )
        },
        num_steps=position.step,
        elapsed_s=position.elapsed_s,
        reads_text=recipe.model.item.kind == "llm",
        reads_times=model.reads_times,
        reads_actions=model.fusion is not None and model.fusion.actions is not None,
        result=own,
        others=[result for result in results if result is not own],
        ablations=ablations_of(run, own),
        environment=_environment(),
    )


def _environment() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    packages = ("torch", "transformers", "numpy", "polars")
    return {
        "hllm": version("hllm"),
        "Python": platform.python_version(),
        **{name: version(name) for name in packages},
        platform.system(): platform.machine(),
    }
