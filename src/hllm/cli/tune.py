"""`hllm tune` tries other values of a recipe's keys."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hllm.cli.allocator import keep_freed_memory
from hllm.cli.options import JSON, RECIPE, overrides_option
from hllm.cli.show import echo, show_json, show_table

if TYPE_CHECKING:
    from hllm.jobs.tuning.trials import Trial

SHOWN = 10


def tune(
    recipe: Path = RECIPE,
    out: Path = typer.Option(..., "--out", help="The tuning's directory; one stopped there goes on."),
    search: Path = typer.Option(..., "--search", help="A TOML file of keys and their ranges: see docs/tuning.md."),
    trials: int | None = typer.Option(None, "--trials", min=1, help="Runs to try; default: what the search file says."),
    seconds: float | None = typer.Option(None, "--seconds", min=1.0, help="Begin no trial after that time."),
    overrides: list[str] = overrides_option("Change one key of the recipe for all trials; repeatable."),
    as_json: bool = JSON,
) -> None:
    """Search for better values of a recipe's keys: full runs, compared on the validation part only."""
    from hllm.jobs.tuning.trials import ranked
    from hllm.jobs.tuning.tune import tune as run_trials

    keep_freed_memory()
    result, done = run_trials(
        recipe, search, out, overrides=overrides, trials=trials, seconds=seconds,
        say=lambda line: echo(line, err=True),
    )  # fmt: skip
    if as_json:
        show_json(result.model_dump(mode="json") | {"all_trials": [trial.model_dump() for trial in done]})
        return
    echo(
        f"{out}: {result.complete} of {result.trials} trials complete, {result.failed} failed, {result.seconds:,.0f} s"
    )
    _show_trials(result.metric, ranked(done)[:SHOWN])
    echo(
        f"next: hllm evaluate --run {result.best_run}; with another seed: "
        f"hllm train {out / 'best.json'} --set seed=2 --out RUN"
    )


def _show_trials(metric: str, trials: "Sequence[Trial]") -> None:
    headings = ["trial", metric, "seconds", *(trials[0].overrides if trials else ())]
    rows = [
        [str(trial.number), f"{trial.value:.4f}", f"{trial.seconds:,.0f}", *map(_setting, trial.overrides.values())]
        for trial in trials
    ]
    show_table(headings, rows, right=headings)


def _setting(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
