"""`hllm recommend` and `hllm similar`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hllm.cli.embed import one_of
from hllm.cli.recommend_table import (
    CANDIDATES,
    HISTORY_COL,
    INPUT,
    OUTPUT,
    SEPARATOR,
    TEXT_COL,
    UNKNOWN,
    write_table,
)
from hllm.cli.run import RUN
from hllm.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from hllm.api import Recommender
    from hllm.retrieval.query import Unknown

K = typer.Option(10, "--k", "-k", min=1, help="How many to show.")
JSON = typer.Option(False, "--json", help="Print JSON for programs.")


def recommend(
    run: Path = RUN,
    user: str | None = typer.Option(None, "--user", help="A user id of the training data."),
    history: str | None = typer.Option(None, "--history", help='Item ids, oldest first: "id,id,…".'),
    times: str | None = typer.Option(
        None,
        "--times",
        help="When the items of --history were met, in seconds since 1970, for a model that reads times.",
    ),
    text: str | None = typer.Option(
        None,
        "--text",
        help='What the user looks for, in a sentence: "quiet science fiction about first contact". Alone, or after the '
        "history of --user or --history.",
    ),
    new_item: str | None = typer.Option(
        None,
        "--new-item",
        help='The text of an item nobody has seen: "title: …; genres: …". Shows whom to offer it to.',
    ),
    k: int | None = typer.Option(
        None, "--k", "-k", min=1, help="How many to show (10), or to write for each row of --input (100)."
    ),
    include_seen: bool = typer.Option(
        False, "--include-seen", "--no-exclude-seen", help="Keep items that the user has already."
    ),
    source: Path | None = INPUT,
    output: Path | None = OUTPUT,
    candidates: Path | None = CANDIDATES,
    unknown: str = UNKNOWN,
    history_col: str | None = HISTORY_COL,
    text_col: str | None = TEXT_COL,
    separator: str | None = SEPARATOR,
    as_json: bool = JSON,
) -> None:
    """Show the best items for a user, a history or a sentence, or the users for a new item known only by its text.

    Where nothing is known of a user, the most popular items are shown, and it is said so.

    With --input, write them for a whole table of users or histories to --output; a call that was stopped goes on.
    """
    of_tables = {"history_col": history_col, "text_col": text_col, "separator": separator}
    given = {name: value for name, value in of_tables.items() if value is not None}
    if source is not None or output is not None:
        if (
            source is None
            or output is None
            or any(option is not None for option in (user, history, times, text, new_item))
        ):
            raise ConfigError(
                "--input and --output belong together, without --user, --history, --times, --text and --new-item"
            )
        options = {"exclude_seen": not include_seen, "unknown": unknown, "candidates": candidates}
        write_table(run, source, output, options | given | {"k": k or 100}, as_json=as_json)
        return
    if given:
        raise ConfigError(f"--{next(iter(given)).replace('_', '-')} is for a table of requests: give --input too")
    k = k or 10
    whom = sum(option is not None for option in (user, history, new_item))
    if whom > 1 or (whom == 0 and text is None) or (new_item is not None and text is not None):
        raise ConfigError(
            "give one of --user ID, --history ID,ID,…, --text SENTENCE or --new-item TEXT; --text may also come with "
            "--user or --history"
        )
    if times is not None and history is None:
        raise ConfigError("--times belongs to --history")
    if new_item is not None and candidates is not None:
        raise ConfigError("--candidates are items to recommend; with --new-item there is only one, which it names")
    from hllm.api import Recommender

    recommender = Recommender.load(run)
    if new_item is not None:
        frame = recommender.audience(new_item, k=k)
        _show(frame, f"users to offer {new_item!r} to (rank: its place in the user's own list)", as_json)
        return
    from hllm.retrieval.query import UNKNOWN as POLICIES

    ids, policy = None if history is None else _parts(history), one_of("--unknown", unknown, POLICIES)
    frame = recommender.recommend(
        users=None if user is None else [user],
        histories=None if ids is None else [ids],
        times=[_seconds(times)] if times else None,
        texts=None if text is None else [text],
        k=k,
        exclude_seen=not include_seen,
        items=None if candidates is None else _allowed(recommender, candidates, policy),
        unknown=policy,
    )
    title = _title(user, ids, text, recommender)
    if "popularity" in frame["source"]:
        title = f"{title}: nothing is known, so what is popular (score: training interactions)"
    _show(_with_titles(frame, recommender), title, as_json)


def similar(
    run: Path = RUN,
    item: str | None = typer.Option(None, "--item", help="An item id of the catalogue."),
    text: str | None = typer.Option(None, "--text", help='The text of any item: "title: …; genres: …".'),
    k: int = K,
    as_json: bool = JSON,
) -> None:
    """Show the items nearest to an item or to a text."""
    if (item is None) == (text is None):
        raise ConfigError("give one of --item ID or --text TEXT")
    from hllm.api import Recommender

    recommender = Recommender.load(run)
    if text is not None:
        frame, title = recommender.similar(texts=[text], k=k), f"like {text!r}"
    else:
        frame, title = recommender.similar([item], k=k), f"like {recommender.title_of([item])[0]}"
    _show(_with_titles(frame, recommender), title, as_json)


def _allowed(recommender: "Recommender", candidates: Path, unknown: "Unknown") -> "pl.Series":
    """Return the item ids of a table of candidates that the catalogue has, and say how many it lacks."""
    from hllm.jobs.recommend_table import read_allowed_items

    rows, missing = read_allowed_items(recommender.dataset, candidates, unknown)
    if missing:
        typer.echo(f"{missing:,} items among the candidates are not in the catalogue and were left out", err=True)
    return recommender.dataset.item_ids[rows]


def _title(user: str | None, history: list[str] | None, text: str | None, recommender: "Recommender") -> str:
    catalogue = set(recommender.dataset.item_ids.cast(str)) if history else set()
    known = [item for item in history or () if item in catalogue]
    parts = [f"for user {user}"] if user is not None else []
    parts += [f"after {', '.join(recommender.title_of(known))}"] if known else []
    parts += [f"for {text!r}"] if text is not None else []
    return ", ".join(parts) or "without a history"


def _with_titles(frame: "pl.DataFrame", recommender: "Recommender") -> "pl.DataFrame":
    import polars as pl

    return frame.with_columns(pl.Series("title", recommender.title_of(frame["item_id"]), dtype=pl.String))


def _show(frame: "pl.DataFrame", title: str, as_json: bool) -> None:
    """Print a frame: JSON lines for programs, a table for people."""
    if as_json:
        for row in frame.iter_rows(named=True):
            typer.echo(json.dumps(row, default=str, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    typer.echo(f"{title}:")
    table = Table(box=None, header_style="bold")
    shown = [name for name in ("rank", "score", "user_id", "item_id", "title") if name in frame.columns]
    for name in shown:
        table.add_column(name, justify="right" if name in ("rank", "score") else "left")
    for row in frame.iter_rows(named=True):
        table.add_row(*(Text(f"{row[name]:.4f}" if name == "score" else str(row[name])) for name in shown))
    Console().print(table)


def _parts(listed: str) -> list[str]:
    return [part.strip() for part in listed.split(",") if part.strip()]


def _seconds(listed: str) -> list[int]:
    try:
        return [int(part) for part in _parts(listed)]
    except ValueError:
        raise ConfigError(
            f"--times is {listed!r}; expected whole seconds since 1970, such as 1700000000,1700003600"
        ) from None
