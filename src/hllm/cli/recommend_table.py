"""`hllm recommend --input`: the options, and what is told at the end."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from hllm.cli.embed import one_of

INPUT = typer.Option(
    None, "--input", help="A table of user ids, histories or sentences, or several of these. Writes --output instead."
)
OUTPUT = typer.Option(None, "--output", help="The Parquet file to write for --input.")
CANDIDATES = typer.Option(None, "--candidates", help="A table whose item ids are all that may be recommended.")
UNKNOWN = typer.Option(
    "error",
    "--unknown",
    help='What to do with unknown users, and unknown items in histories: "error"; "skip" leaves them out; "popularity" '
    "gives users of whom nothing is known the most popular items.",
)
TEXT_COL = typer.Option(None, "--text-col", help='For --input: the column of sentences, unless it is "text".')
HISTORY_COL = typer.Option(None, "--history-col", help='For --input: the column of histories, unless it is "history".')
SEPARATOR = typer.Option(
    None, "--separator", help="For --input: what stands between the ids of a history, unless it is a comma."
)


def write_table(run: Path, source: Path, output: Path, options: dict[str, Any], *, as_json: bool) -> None:
    """Recommend for a table, and print what was found and written."""
    from hllm.api import Recommender
    from hllm.errors import first_few
    from hllm.jobs.recommend_table import TableOptions, recommend_table
    from hllm.retrieval.query import UNKNOWN as POLICIES

    options["unknown"] = one_of("--unknown", options["unknown"], POLICIES)
    report = recommend_table(Recommender.load(run), source, output, TableOptions(**options))
    counts = report.counts
    if as_json:
        found = {"counts": counts.model_dump(mode="json")}
        typer.echo(json.dumps({"output": str(output), **asdict(report), **found}))
        return
    typer.echo(f"{output}: {report.rows:,} rows for {counts.rows:,} users")
    if counts.without_history:
        done = "were left out" if options["unknown"] == "skip" else 'got popular items (source "popularity")'
        typer.echo(
            f"{counts.without_history:,} without a history {done}; first: {first_few(counts.first_without_history)}"
        )
    for number, place, first in (
        (counts.unknown_items, "in histories", f"; first: {first_few(counts.first_unknown_items)}"),
        (report.unknown_candidates, "among the candidates", ""),
    ):
        if number:
            typer.echo(f"{number:,} items {place} are not in the catalogue and were left out{first}")
