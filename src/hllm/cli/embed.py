"""`hllm embed`, `hllm embed-users` and `hllm export-vectors`."""

import json
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from hllm.cli.run import RUN
from hllm.errors import ConfigError, nearest

if TYPE_CHECKING:
    from hllm.embedding.shards import Embedded

OUT = typer.Option(..., "--out", help="The table's directory; a table that stands there is brought up to date.")
DTYPE = typer.Option("fp32", "--dtype", help='How vectors are stored: "fp32", "bf16" or "int8".')
SHARD = typer.Option(
    "1/1", "--shard", metavar="I/N", help="Be the I-th of N processes on one --out; then call once without, to end."
)
JSON = typer.Option(False, "--json", help="Print JSON for programs.")

Choice = TypeVar("Choice", bound=str)


def embed(
    run: Path = RUN,
    out: Path = OUT,
    items: Path | None = typer.Option(
        None, "--items", help="A table of items with the columns of the training data; default: the run's own items."
    ),
    dtype: str = DTYPE,
    dim: int | None = typer.Option(None, "--dim", min=1, help="Keep only the first numbers of each vector."),
    shard: str = SHARD,
    as_json: bool = JSON,
) -> None:
    """Write the vectors of a run's items, or of any items; only texts that are new or changed are encoded.

    A call that was stopped goes on when it is repeated, and loses at most one shard of 4,096 items.
    """
    from hllm.embedding.rows import DTYPES
    from hllm.embedding.shards import Share
    from hllm.runs.run import Run
    from hllm.runs.tables import embed_run_items

    share, kind = Share.parse(shard), one_of("--dtype", dtype, DTYPES)
    found = embed_run_items(Run(run), out, items=items, dtype=kind, share=share, dim=dim)
    _report(found, out, share.of, "items", as_json)


def embed_users(
    run: Path = RUN,
    out: Path = OUT,
    active_since: str | None = typer.Option(
        None, "--active-since", help="Only users who did something since: a date (UTC), or seconds since 1970."
    ),
    users: Path | None = typer.Option(None, "--users", help="A table whose user id column says which; default: all."),
    dtype: str = DTYPE,
    shard: str = SHARD,
    as_json: bool = JSON,
) -> None:
    """Write the vectors of a run's users, after the latest items that the model reads.

    A call that was stopped goes on when it is repeated, and loses at most one shard of 4,096 users.
    """
    from hllm.embedding.rows import DTYPES
    from hllm.embedding.shards import Share
    from hllm.runs.run import Run
    from hllm.runs.tables import embed_run_users

    share, kind = Share.parse(shard), one_of("--dtype", dtype, DTYPES)
    since = None if active_since is None else _moment(active_since)
    found = embed_run_users(Run(run), out, users=users, active_since=since, dtype=kind, share=share)
    _report(found, out, share.of, "users", as_json)


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
    typer.echo(f"{out}: {len(opened):,} vectors of {opened.rows.values.shape[1]} numbers{there}")


def one_of(option: str, value: str, known: tuple[Choice, ...]) -> Choice:
    """Return the known value that was given; ConfigError for another one."""
    for each in known:
        if value == each:
            return each
    raise ConfigError(f"{option} is {value!r}{nearest(value, known)}; expected one of {', '.join(known)}")


def _moment(text: str) -> Fraction:
    from hllm.data.times import as_moment

    try:
        return Fraction(int(text)) if text.lstrip("-").isdecimal() else as_moment(text)
    except ValueError as error:
        raise ConfigError(f"--active-since: {error}") from None


def _report(found: "Embedded", out: Path, processes: int, noun: str, as_json: bool) -> None:
    facts: dict[str, Any] = {"out": str(out), **asdict(found)}
    if processes == 1:
        from hllm import artifacts

        details = json.loads((out / artifacts.MANIFEST).read_text(encoding="utf-8"))["details"]
        facts |= {name: details[name] for name in ("shape", "dtype", "cosine_error")}
    if as_json:
        typer.echo(json.dumps(facts))
    elif processes > 1:
        end = f"{found.shards_missing:,} are missing" if found.shards_missing else "all are there"
        typer.echo(f"{out}: this share of the shards is done; {end}; when all are, repeat the call without --shard")
    else:
        error = facts["cosine_error"]
        typer.echo(
            f"{out}: {found.num_rows:,} {noun} of {facts['shape'][1]} numbers in {facts['dtype']}, "
            f"{found.num_encoded:,} encoded; cosine error at most {error['max']:.1e}, {error['mean']:.1e} at the mean"
        )
