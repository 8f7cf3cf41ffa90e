"""`hllm export-model` writes a smaller copy of a run."""

from pathlib import Path

import typer

from hllm.cli.options import JSON, one_of, part_of
from hllm.cli.show import echo


def export_model(
    run: Path = typer.Argument(help="The directory that `hllm train --out` made."),
    out: Path = typer.Option(
        ..., "--out", help="A new directory: a run that train, fine-tune and export-model refuse."
    ),
    dtype: str = typer.Option("int8", "--dtype", help='What the weights are kept in: "bf16" or "int8".'),
    max_loss: float | None = typer.Option(
        None, "--max-loss", min=0, max=1, help="Refuse an export that loses more than this share of select_by: .01."
    ),
    part: str = typer.Option("validation", "--part", help='Measure on "validation" or "test".'),
    as_json: bool = JSON,
) -> None:
    """Write a smaller copy of a run, its weights in bf16 (a half) or int8 (a quarter), and measure what is lost.

    Both rank the same targets, and with heads the same candidates. The tables, with intervals and for targets a paired
    test, are printed and kept in the copy's manifest.json. The weights come back to fp32 when they are loaded: the copy
    saves disk, not memory.

    Example: hllm export-model demo --dtype int8 --max-loss 0.01 --out demo-int8
    """
    from hllm.jobs.export_model import export_model
    from hllm.models.compact import WEIGHTS
    from hllm.runs.results import json_of

    chosen = one_of("--dtype", dtype, WEIGHTS[1:])
    report = export_model(run, out, chosen, part=part_of(part), max_loss=max_loss)
    echo(json_of(report) if as_json else f"{report}\n{out}: a run in {chosen}")
