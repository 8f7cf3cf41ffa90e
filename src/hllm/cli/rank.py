"""`hllm rank` scores given candidates."""

from pathlib import Path

import typer

from hllm.cli.options import HISTORY, JSON, RUN, USER, comma_list
from hllm.cli.show import echo, show_frame, show_json, with_titles
from hllm.errors import ConfigError


def rank(
    run: Path = RUN,
    candidates: Path = typer.Option(
        ...,
        "--candidates",
        help="A table of item ids to score: for all users, or with a column of user ids for each its own.",
    ),
    user: str | None = USER,
    history: str | None = HISTORY,
    users: Path | None = typer.Option(None, "--users", help="A table with a column of user ids."),
    histories: Path | None = typer.Option(
        None, "--histories", help='A table with columns of user ids, any, and "history": a list, or "id,id,…".'
    ),
    target: str | None = typer.Option(
        None, "--target", help="What to rank by, of model.ranking.targets. Default: the first."
    ),
    out: Path | None = typer.Option(None, "--out", help="Write a Parquet file instead of printing."),
    as_json: bool = JSON,
) -> None:
    """Score given candidates for users or histories, with a run that was trained to rank.

    The score is the probability of the target. Without --user, --history, --users or --histories the users are those
    that the table of candidates names.
    """
    if sum(option is not None for option in (user, history, users, histories)) > 1:
        raise ConfigError("give one of --user, --history, --users and --histories")
    from hllm import artifacts
    from hllm.api import Recommender
    from hllm.jobs.rank_table import RankRequest, rank_table

    recommender = Recommender.load(run)
    request = RankRequest(user, None if history is None else comma_list(history), users, histories)
    frame = rank_table(recommender, candidates, request, target=target)
    if out is not None:
        with artifacts.replacing(out) as partial:
            frame.write_parquet(partial)
        if as_json:
            show_json({"output": str(out), "rows": len(frame)})
        else:
            echo(f"{out}: {len(frame):,} rows")
        return
    title = f"candidates by {target or recommender.model.require_ranker().names[0]}"
    show_frame(with_titles(frame, recommender), title, as_json=as_json)
