"""`hllm fine-tune` trains a run on with new data."""

from pathlib import Path

import typer

from hllm.cli.allocator import keep_freed_memory
from hllm.cli.options import JSON, overrides_option
from hllm.cli.show import echo, next_steps, show_json
from hllm.progress import is_first_process


def fine_tune(
    run: Path = typer.Argument(help="The finished run to go on from; it stays as it is."),
    interactions: Path = typer.Option(
        ...,
        "--interactions",
        help="New interactions, in the columns of the training data; with a time column, known ones are left out.",
    ),
    items: Path | None = typer.Option(
        None, "--items", help="New items, in the columns of the training data; known ones may be among them."
    ),
    out: Path = typer.Option(..., "--out", help="The new run's directory; one that was stopped there goes on."),
    recipe: Path | None = typer.Option(
        None,
        "--recipe",
        help="A recipe of the same model; default: the run's own, its last stage once, at a quarter of the rates.",
    ),
    overrides: list[str] = overrides_option(
        "Change one key, such as stages.0.epochs=2 or parent.known_items=update; repeatable."
    ),
    as_json: bool = JSON,
) -> None:
    """Train a run on with new interactions and new items; ids are kept, and what moved is reported.

    Begins with the weights of the run's best checkpoint and a new optimizer, on the run's data and the new rows. The
    report is kept in drift.json of the new run: how far the vectors of old items moved, how many of their neighbours
    stayed, and how well old validation targets are found before and after.
    """
    from hllm.data.dataset import Dataset
    from hllm.jobs.fine_tune import fine_tune as train_on
    from hllm.runs.run import Run

    keep_freed_memory()
    tuned, report = train_on(Run(run), interactions, items, out, recipe=recipe, overrides=overrides)
    if not is_first_process():
        return
    position = tuned.resume_point()[0]
    if as_json:
        facts = {"run": str(out), "steps": position.step, "elapsed_s": position.elapsed_s, "best": position.best}
        show_json(facts | {"report": report.model_dump(mode="json")})
        return
    echo("\n".join(report.lines()))
    select_by = tuned.read_recipe().select_by
    user = Dataset.load(tuned.dataset_path).users[0]
    echo(
        f"{out}: {position.step:,} steps; best validation {select_by} {position.best:.4f}\n"
        f"next: {next_steps(out, select_by, user)}"
    )
