"""Verbs print here: JSON for programs, tables and sentences for people."""

# Proved by tests/cli/test_rank.py.

import json
import shlex
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hllm.visible import visible

if TYPE_CHECKING:
    import polars as pl

    from hllm.api import Recommender
    from hllm.embedding.shards import Embedded

_WIDEST = 100_000
_SHOWN_COLUMNS = ("rank", "score", "user_id", "item_id", "title")


def echo(text: str, *, err: bool = False) -> None:
    """Print text, with control characters that data may hold as escapes."""
    typer.echo(visible(text), err=err)


def show_json(values: Any) -> None:
    """Print values as one line of JSON; other letters than ASCII as escapes where the output cannot hold all."""
    is_unicode = (sys.stdout.encoding or "ascii").lower().replace("-", "").startswith("utf")
    echo(json.dumps(values, ensure_ascii=not is_unicode))


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str]) -> None:
    """Print columns; those named in `right` are aligned to the right. Nothing is cut.

    On a terminal a cell that is too wide goes on below, elsewhere a row is one line.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell).replace("\n", "\\n").replace("\t", " ")) for cell in row))
    Console(width=None if sys.stdout.isatty() else _WIDEST).print(table)


def show_frame(frame: "pl.DataFrame", title: str, *, as_json: bool) -> None:
    """Print a frame under its title, or each of its rows as a line of JSON."""
    if as_json:
        for row in frame.iter_rows(named=True):
            show_json({name: value if isinstance(value, int | float) else str(value) for name, value in row.items()})
        return
    echo(f"{title}:")
    columns = [name for name in _SHOWN_COLUMNS if name in frame.columns]
    rows = (
        [f"{row[name]:.4f}" if name == "score" else str(row[name]) for name in columns]
        for row in frame.iter_rows(named=True)
    )
    show_table(columns, rows, right=("rank", "score"))


def with_titles(frame: "pl.DataFrame", recommender: "Recommender") -> "pl.DataFrame":
    """Return a frame of items with a column of their titles."""
    import polars as pl

    return frame.with_columns(pl.Series("title", recommender.title_of(frame["item_id"]), dtype=pl.String))


def next_steps(run: object, select_by: str, user: object) -> str:
    """Return the commands that show what a run can do, for one that was selected as a ranker or as a retriever."""
    run, user = f"--run {shlex.quote(str(run))}", f"--user {shlex.quote(str(user))}"
    if "@" not in select_by:  # auc, gauc: a ranker need not retrieve
        return f"hllm evaluate-ranking {run}; hllm rank {run} {user} --candidates FILE"
    return f"hllm evaluate {run}; hllm recommend {run} {user}"


def show_embedded(embedded: "Embedded", out: Path, *, processes: int, noun: str, as_json: bool) -> None:
    """Print what a verb that embeds has written to the table at `out`, as one of some processes."""
    facts: dict[str, Any] = {"out": str(out), **asdict(embedded)}
    if processes == 1:
        from hllm import artifacts

        details = json.loads((out / artifacts.MANIFEST).read_text(encoding="utf-8"))["details"]
        facts |= {name: details[name] for name in ("shape", "dtype", "cosine_error")}
    if as_json:
        show_json(facts)
    elif processes > 1:
        end = f"{embedded.shards_missing:,} are missing" if embedded.shards_missing else "all are there"
        echo(f"{out}: this share of the shards is done; {end}; when all are, repeat the call without --shard")
    else:
        error = facts["cosine_error"]
        echo(
            f"{out}: {embedded.num_rows:,} {noun} of {facts['shape'][1]} numbers in {facts['dtype']}, "
            f"{embedded.num_encoded:,} encoded; cosine error at most {error['max']:.1e}, "
            f"{error['mean']:.1e} at the mean"
        )
