"""`hllm embed-users` writes the vectors of users."""

# Proved by tests/cli/test_embed.py.

from fractions import Fraction
from pathlib import Path

import typer

from hllm.cli.options import DTYPE, JSON, RUN, SHARD, TABLE, dtype_of
from hllm.cli.show import show_embedded
from hllm.errors import ConfigError


def embed_users(
    run: Path = RUN,
    out: Path = TABLE,
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
    from hllm.embedding.shards import Share
    from hllm.jobs.embed_users import embed_run_users
    from hllm.runs.run import Run

    share, kind = Share.parse(shard), dtype_of(dtype)
    out = out.resolve() if out.is_symlink() else out  # a link that is named here is meant
    since = None if active_since is None else _moment(active_since)
    embedded = embed_run_users(Run(run), out, users=users, active_since=since, dtype=kind, share=share)
    show_embedded(embedded, out, processes=share.of, noun="users", as_json=as_json)


def _moment(text: str) -> Fraction:
    from hllm.data.reading.times import as_moment

    try:
        return Fraction(int(text)) if text.lstrip("-").isdecimal() else as_moment(text)
    except ValueError as error:
        raise ConfigError(f"--active-since: {error}") from None
