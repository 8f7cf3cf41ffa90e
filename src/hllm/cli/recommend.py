"""`hllm recommend` shows items for a user, or users for a new item."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hllm.cli.options import HISTORY, JSON, RUN, USER, comma_list, number_list, one_of
from hllm.cli.recommend_table import HISTORY_COL, INPUT, OUTPUT, SEPARATOR, TEXT_COL, recommend_for_table
from hllm.cli.show import echo, show_frame, with_titles
from hllm.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from hllm.api import Recommender
    from hllm.retrieval.query import Unknown

_SHOWN = 10
_WRITTEN = 100


def recommend(
    run: Path = RUN,
    user: str | None = USER,
    history: str | None = HISTORY,
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
    candidates: Path | None = typer.Option(
        None, "--candidates", help="A table whose item ids are all that may be recommended."
    ),
    unknown: str = typer.Option(
        "error",
        "--unknown",
        help='What to do with unknown users, and unknown items in histories: "error"; "skip" leaves them out; '
        '"popularity" gives users of whom nothing is known the most popular items.',
    ),
    history_col: str | None = HISTORY_COL,
    text_col: str | None = TEXT_COL,
    separator: str | None = SEPARATOR,
    as_json: bool = JSON,
) -> None:
    """Show the best items for a user, a history or a sentence, or the users for a new item known only by its text.

    A user of whom nothing is known gets the most popular items, and the title says so.

    With --input, write them for a whole table of users or histories to --output; a call that was stopped goes on.
    """
    request = _Request(user, history, times, text, new_item)
    columns = {"history_col": history_col, "text_col": text_col, "separator": separator}
    named_columns = {name: value for name, value in columns.items() if value is not None}
    if source is not None or output is not None:
        if source is None or output is None or request.is_given:
            raise ConfigError(
                "--input and --output belong together, without --user, --history, --times, --text and --new-item"
            )
        options = {"exclude_seen": not include_seen, "candidates": candidates, "k": k or _WRITTEN, **named_columns}
        recommend_for_table(run, source, output, options, unknown, as_json=as_json)
        return
    if named_columns:
        option = next(iter(named_columns)).replace("_", "-")
        raise ConfigError(f"--{option} is for a table of requests: give --input too")
    request.check(candidates)
    _show(run, request, candidates, unknown, k or _SHOWN, exclude_seen=not include_seen, as_json=as_json)


@dataclass(frozen=True)
class _Request:
    """The options that say whom the recommendations are for."""

    user: str | None
    history: str | None
    times: str | None
    text: str | None
    new_item: str | None

    @property
    def is_given(self) -> bool:
        """Tell whether any of the options is there."""
        return any(option is not None for option in vars(self).values())

    def check(self, candidates: Path | None) -> None:
        """Raise ConfigError if the options do not go together."""
        whom = sum(option is not None for option in (self.user, self.history, self.new_item))
        if whom > 1 or (whom == 0 and self.text is None) or (self.new_item is not None and self.text is not None):
            raise ConfigError(
                "give one of --user ID, --history ID,ID,…, --text SENTENCE or --new-item TEXT; --text may also come "
                "with --user or --history"
            )
        if self.times is not None and self.history is None:
            raise ConfigError("--times belongs to --history")
        if self.new_item is not None and candidates is not None:
            raise ConfigError("--candidates are items to recommend; with --new-item there is only one, which it names")

    @property
    def item_ids(self) -> list[str] | None:
        """Return the item ids of --history."""
        return None if self.history is None else comma_list(self.history)

    def arguments(self) -> dict[str, Any]:
        """Return the request as `Recommender.recommend` takes it."""
        expected = "whole seconds since 1970, such as 1700000000,1700003600"
        return {
            "users": None if self.user is None else [self.user],
            "histories": None if self.item_ids is None else [self.item_ids],
            "times": [number_list("--times", self.times, expected=expected)] if self.times else None,
            "texts": None if self.text is None else [self.text],
        }

    def title(self, recommender: "Recommender") -> str:
        """Return the heading of the answer: the user, the titles of the history, the sentence."""
        catalogue = set(recommender.dataset.item_ids.cast(str)) if self.item_ids else set()
        known = [item for item in self.item_ids or () if item in catalogue]
        parts = [f"for user {self.user}"] if self.user is not None else []
        parts += [f"after {', '.join(recommender.title_of(known))}"] if known else []
        parts += [f"for {self.text!r}"] if self.text is not None else []
        return ", ".join(parts) or "without a history"


def _show(
    run: Path, request: _Request, candidates: Path | None, unknown: str, k: int, *, exclude_seen: bool, as_json: bool
) -> None:
    """Print the items for one request, or the users for its new item."""
    from hllm.api import Recommender
    from hllm.retrieval.query import UNKNOWN

    recommender = Recommender.load(run)
    if request.new_item is not None:
        title = f"users to offer {request.new_item!r} to (rank: its place in the user's own list)"
        show_frame(recommender.audience(request.new_item, k=k), title, as_json=as_json)
        return
    policy = one_of("--unknown", unknown, UNKNOWN)
    items = None if candidates is None else _allowed(recommender, candidates, policy)
    frame = recommender.recommend(**request.arguments(), k=k, exclude_seen=exclude_seen, items=items, unknown=policy)
    title = request.title(recommender)
    if "popularity" in frame["source"]:
        title = f"{title}: nothing is known, so what is popular (score: training interactions)"
    show_frame(with_titles(frame, recommender), title, as_json=as_json)


def _allowed(recommender: "Recommender", candidates: Path, unknown: "Unknown") -> "pl.Series":
    """Return the item ids of a table of candidates that the catalogue has, and say how many it lacks."""
    from hllm.jobs.recommend_table import read_allowed_items

    rows, missing = read_allowed_items(recommender.dataset, candidates, unknown)
    if missing:
        echo(f"{missing:,} items among the candidates are not in the catalogue and were left out", err=True)
    return recommender.dataset.item_ids[rows]
