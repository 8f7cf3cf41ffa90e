"""`hllm rank` and `hllm evaluate-ranking`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hllm.cli.run import AGAINST, RUN, open_runs, part_of
from hllm.errors import ConfigError, DataError

if TYPE_CHECKING:
    import polars as pl

    from hllm.api import Recommender

HISTORY = "history"


def rank(
    run: Path = RUN,
    candidates: Path = typer.Option(
        ...,
        "--candidates",
        help="A table of item ids to score: for all users, or with a column of user ids for each its own.",
    ),
    user: str | None = typer.Option(None, "--user", help="A user id of the training data."),
    history: str | None = typer.Option(None, "--history", help='Item ids, oldest first: "id,id,…".'),
    users: Path | None = typer.Option(None, "--users", help="A table with a column of user ids."),
    histories: Path | None = typer.Option(
        None, "--histories", help='A table with columns of user ids, any, and "history": a list, or "id,id,…".'
    ),
    target: str | None = typer.Option(
        None, "--target", help="What to rank by, of model.ranking.targets. Default: the first."
    ),
    out: Path | None = typer.Option(None, "--out", help="Write a Parquet file instead of printing."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for programs."),
) -> None:
    """Score given candidates for users or histories, with a run that was trained to rank.

    The score is the probability of the target. Without --user, --history, --users or --histories the users are those
    that the table of candidates names.
    """
    if sum(option is not None for option in (user, history, users, histories)) > 1:
        raise ConfigError("give one of --user, --history, --users and --histories")
    from hllm import artifacts
    from hllm.api import Recommender
    from hllm.cli.recommend import _parts, _show, _with_titles

    recommender = Recommender.load(run)
    user_col = recommender.recipe.data.user_col
    shared, own = read_candidates(candidates, recommender.dataset.item_col, user_col)
    asked: dict[str, Any] = {}
    if history is not None:
        asked["histories"] = {HISTORY: _parts(history)}
    elif histories is not None:
        asked["histories"] = read_histories(histories, user_col)
    elif users is not None:
        asked["users"] = read_column(users, user_col, "users")
    elif user is not None or own:
        asked["users"] = [user] if user is not None else list(own)
    else:
        raise ConfigError(
            f"{candidates} has no column {user_col!r}, so it does not say whom to rank for: give --user, --history, "
            "--users or --histories"
        )
    frame = recommender.rank(_for(recommender, own, asked) if own else shared, **asked, target=target)
    if out is not None:
        with artifacts.replacing(out) as partial:
            frame.write_parquet(partial)
        typer.echo(json.dumps({"output": str(out), "rows": len(frame)}) if as_json else f"{out}: {len(frame):,} rows")
        return
    _show(
        _with_titles(frame, recommender),
        f"candidates by {target or recommender.model.require_ranker().names[0]}",
        as_json,
    )


def evaluate_ranking(
    run: Path = RUN,
    against: list[Path] = AGAINST,
    part: str = typer.Option("test", "--part", help='"test" or "validation".'),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for programs."),
) -> None:
    """Score labelled candidates of one part of the split: AUC, GAUC, log loss, calibration with 95 % intervals.

    The numbers are also kept in ranking.json (ranking-validation.json) of the run's directory.
    """
    from hllm import artifacts
    from hllm.jobs.evaluate import evaluate_rankers
    from hllm.reports.ranking import ranking_table

    results = evaluate_rankers(open_runs([run, *against]), part=part_of(part))
    content = json.dumps([result.model_dump(mode="json") for result in results], indent=1)
    artifacts.write_text(run / ("ranking.json" if part == "test" else f"ranking-{part}.json"), content)
    typer.echo(content if as_json else ranking_table(results))


def read_candidates(path: Path, item_col: str, user_col: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return the item ids of a table of candidates and, where it has a column of users, those of each user."""
    import polars as pl

    from hllm.data.tables import read_table, require_columns

    table = read_table(path, name="candidates")
    require_columns(table, {"item_col": item_col}, name="candidates")
    items = table[item_col].cast(pl.String)
    if user_col not in table.columns:
        return items.to_list(), {}
    own: dict[str, list[str]] = {}
    for user, item in zip(table[user_col].cast(pl.String), items, strict=True):
        own.setdefault(user, []).append(item)
    return [], own


def read_histories(path: Path, user_col: str) -> dict[str, list[str]]:
    """Return the item ids of each user's history; DataError for a user that stands twice."""
    import polars as pl

    from hllm.cli.recommend import _parts
    from hllm.data.tables import read_table, require_columns

    table = read_table(path, name="histories")
    require_columns(table, {"user_col": user_col, HISTORY: HISTORY}, name="histories")
    names = table[user_col].cast(pl.String)
    if names.n_unique() < len(names):
        raise DataError(f"{path} names {len(names) - names.n_unique():,} users twice: a history is one row")
    return {name: _parts(text or "") for name, text in zip(names, table[HISTORY].cast(pl.String), strict=True)}


def read_column(path: Path, column: str, name: str) -> "pl.Series":
    """Return one column of a table, as text."""
    import polars as pl

    from hllm.data.tables import read_table, require_columns

    table = read_table(path, name=name)
    require_columns(table, {"user_col": column}, name=name)
    return table[column].cast(pl.String)


def _for(
    recommender: "Recommender", own: Mapping[str, Sequence[str]], asked: Mapping[str, Any]
) -> dict[Any, Sequence[str]]:
    """Return each user's candidates under the id that the answer will have: of known users, of their own type."""
    if "histories" in asked:
        return dict(own)
    known = recommender.dataset.users[recommender.dataset.user_rows(list(own))]
    return dict(zip(known, own.values(), strict=True))
