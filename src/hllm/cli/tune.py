"""`hllm tune`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from hllm.jobs.tuning.trials import Trial

SHOWN = 10


def tune(
    recipe: Path = typer.Argument(help="A recipe, such as recipes/demo.toml."),
    out: Path = typer.Option(..., "--out", help="The tuning's directory; one stopped there goes on."),
    search: Path = typer.Option(..., "--search", help="A TOML file of keys and their ranges: see docs/tuning.md."),
    trials: int | None = typer.Option(None, "--trials", min=1, help="Runs to try; default: what the search file says."),
    seconds: float | None = typer.Option(None, "--seconds", min=1.0, help="Begin no trial after that time."),
    overrides: list[str] = typer.Option(
        (), "--set", metavar="A.B=VALUE", help="Change one key of the recipe for all trials; repeatable."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for programs."),
) -> None:
    """Search for better values of a recipe's keys: full runs, compared on the validation part only."""
    from hllm.cli.allocator import keep_freed_memory
    from hllm.jobs.tuning.trials import ranked
    from hllm.jobs.tuning.tune import tune as run_trials

    keep_freed_memory()
    result, done = run_trials(
        recipe, search, out, overrides=overrides, trials=trials, seconds=seconds,
        say=lambda line: typer.echo(line, err=True),
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(result.model_dump(mode="json") | {"all_trials": [t.model_dump() for t in done]}))
        return
    typer.echo(
        f"{out}: {result.complete} of {result.trials} trials complete, {result.failed} failed, {result.seconds:,.0f} s"
    )
    _print_table(result.metric, ranked(done)[:SHOWN])
    typer.echo(
        f"next: hllm evaluate --run {result.best_run}; with another seed: "
        f"hllm train {out / 'best.json'} --set seed=2 --out RUN"
    )


def _print_table(metric: str, trials: "Sequence[Trial]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    for heading in ("trial", metric, "seconds", *(trials[0].overrides if trials else ())):
        table.add_column(heading, justify="right")
    for trial in trials:
        values = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in trial.overrides.values())
        cells = (str(trial.number), f"{trial.value:.4f}", f"{trial.seconds:,.0f}", *values)
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)
