"""`hllm recommend --input` has options of its own, and prints what it wrote."""

# Proved by tests/cli/test_embed.py, tests/jobs/test_recommend_table.py.

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from hllm.cli.options import one_of
from hllm.cli.show import echo, show_json

INPUT = typer.Option(
    None, "--input", help="A table of user ids, histories or sentences, or several of these. Writes --output instead."
)
OUTPUT = typer.Option(None, "--output", help="The Parquet file to write for --input.")
TEXT_COL = typer.Option(None, "--text-col", help='For --input: the column of sentences, unless it is "text".')
HISTORY_COL = typer.Option(None, "--history-col", help='For --input: the column of histories, unless it is "history".')
SEPARATOR = typer.Option(
    None, "--separator", help="For --input: what stands between the ids of a history, unless it is a comma."
)


def recommend_for_table(
    run: Path, source: Path, output: Path, options: dict[str, Any], unknown: str, *, as_json: bool
) -> None:
    """Write recommendations for a table; print how much was written, and what was unknown."""
    from hllm.api import Recommender
    from hllm.errors import first_few
    from hllm.jobs.recommend_table import TableOptions, recommend_table
    from hllm.retrieval.query import UNKNOWN

    policy = one_of("--unknown", unknown, UNKNOWN)
    report = recommend_table(Recommender.load(run), source, output, TableOptions(**options, unknown=policy))
    counts = report.counts
    if as_json:
        show_json({"output": str(output), **asdict(report), "counts": counts.model_dump(mode="json")})
        return
    echo(f"{output}: {report.rows:,} rows for {counts.rows:,} users")
    if counts.without_history:
        done = "were left out" if policy == "skip" else 'got popular items (source "popularity")'
        echo(f"{counts.without_history:,} without a history {done}; first: {first_few(counts.first_without_history)}")
    for number, place, first in (
        (counts.unknown_items, "in histories", f"; first: {first_few(counts.first_unknown_items)}"),
        (report.unknown_candidates, "among the candidates", ""),
    ):
        if number:
            echo(f"{number:,} items {place} are not in the catalogue and were left out{first}")
