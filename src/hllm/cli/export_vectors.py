"""`hllm export-vectors` writes a table of vectors as plain files."""

# Proved by tests/cli/test_embed.py.

from pathlib import Path

import typer

from hllm.cli.options import one_of
from hllm.cli.show import echo


def export_vectors(
    table: Path = typer.Option(..., "--table", help="The directory that `hllm embed` or `hllm embed-users` made."),
    out: Path = typer.Option(..., "--out", help="A new directory; an export of the same table there is left alone."),
    form: str = typer.Option("parquet", "--format", help='"parquet", "npy" or "safetensors".'),
) -> None:
    """Write a table as plain files for other programs: vectors in fp32, with your own ids beside them."""
    from hllm.embedding.export import FORMATS, export_table
    from hllm.embedding.table import load_table

    chosen = one_of("--format", form, FORMATS)
    opened = load_table(table)
    there = "" if export_table(opened, out, chosen) else "; they were there already"
    echo(f"{out}: {len(opened):,} vectors of {opened.rows.values.shape[1]} numbers{there}")
