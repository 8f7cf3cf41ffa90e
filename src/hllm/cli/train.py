"""`hllm train` trains the model of a recipe."""

from pathlib import Path

import typer

from hllm.cli.allocator import keep_freed_memory
from hllm.cli.options import JSON, RECIPE, overrides_option
from hllm.cli.plan import dry_run
from hllm.cli.show import echo, next_steps, show_json
from hllm.errors import ConfigError
from hllm.progress import is_first_process


def train(
    recipe: Path = RECIPE,
    out: Path | None = typer.Option(None, "--out", help="The run's directory; a run stopped there goes on."),
    dry: bool = typer.Option(
        False, "--dry-run", help="Estimate parameters, operations, memory and time, and write nothing."
    ),
    resume: str = typer.Option(
        "auto", "--resume", help='"auto": go on from the newest checkpoint that is not damaged. "never": refuse to.'
    ),
    overrides: list[str] = overrides_option("Change one key of the recipe, such as stages.0.epochs=2; repeatable."),
    as_json: bool = JSON,
) -> None:
    """Train the recipe's model on the recipe's data; what is finished already is not done again."""
    if dry:
        dry_run(recipe, overrides, as_json=as_json)
        return
    if out is None:
        raise ConfigError("give --out, the run's directory; or --dry-run, for an estimate of what training costs")
    from hllm.api import fit_recipe

    if resume not in ("auto", "never"):
        raise ConfigError(f'--resume is {resume!r}; expected "auto" or "never"')
    keep_freed_memory()
    recommender = fit_recipe(recipe, out, overrides, resume="auto" if resume == "auto" else "never")
    if not is_first_process():
        return
    position, select_by = recommender.run.resume_point()[0], recommender.recipe.select_by
    if as_json:
        facts = {"run": str(out), "steps": position.step, "elapsed_s": position.elapsed_s}
        show_json(facts | {select_by: position.best})
        return
    echo(
        f"{out}: {position.step:,} steps in {position.elapsed_s:,.0f} s; best validation "
        f"{select_by} {position.best:.4f}\n"
        f"next: {next_steps(out, select_by, recommender.dataset.users[0])}"
    )
