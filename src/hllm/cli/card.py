"""`hllm card` writes a model card."""

from pathlib import Path

import typer

from hllm.cli.options import RUN
from hllm.cli.show import echo


def card(
    run: Path = RUN,
    out: Path | None = typer.Option(None, "--out", help="The file; default: README.md in the run's directory."),
) -> None:
    """Write a model card in Hugging Face's form: what the model is, its data, training, numbers, limits and use.

    The numbers are those that `hllm evaluate` and, if it has run, `hllm ablate` have stored.
    """
    from hllm.jobs.card import write_card
    from hllm.runs.run import Run

    echo(str(write_card(Run(run), out)))
