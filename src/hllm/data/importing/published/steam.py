"""Steam reviews and games of UCSD (version 2), one Python literal a line.

Format and files: https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data (steam_reviews.json.gz,
steam_games.json.gz). A user is a username, as in SASRec's preprocessing (arXiv 1808.09781): few records have a user_id.
Times are whole days. A few games have no id and cannot be joined.
"""

# Proved by tests/data/importing/test_layouts.py.

from datetime import UTC, datetime

import polars as pl

from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import convert, joined, number, price, text
from hllm.data.reading.records import Record

TEXT = ("title", "genres", "tags", "developer")
_INTERACTIONS = {
    "user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "hours": pl.Float64,
    "early_access": pl.Boolean, "steam_id": pl.String,
}  # fmt: skip
_ITEMS = {
    "item_id": pl.String, **dict.fromkeys(TEXT, pl.String), "publisher": pl.String, "release_date": pl.String,
    "price": pl.Float64,
}  # fmt: skip


def read(source: Source) -> Tables:
    """Read reviews, each an interaction on its day, and games."""
    log = find(source, "interactions", ["steam_reviews.json*"])
    games = find(source, "items", ["steam_games.json*"])
    interactions, notes = convert(log, source.scratch / "interactions.parquet", _INTERACTIONS, _review)
    items, more = convert(games, source.scratch / "items.parquet", _ITEMS, _game)
    return Tables(interactions, items, files=(log, games), text_cols=TEXT,
                  notes=("a user is a username; times are whole days", *notes, *more))  # fmt: skip


def _review(record: Record) -> tuple[object, ...]:
    day = text(record, "date")
    try:
        time = int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise ValueError(f"'date' is {day!r}, expected a day such as 2017-12-31") from None
    early, steam_id = record.get("early_access"), record.get("user_id")
    return (
        text(record, "username"),
        text(record, "product_id"),
        time,
        number(record, "hours"),
        early if isinstance(early, bool) else None,
        steam_id if isinstance(steam_id, str) else None,
    )


def _game(record: Record) -> tuple[object, ...]:
    title = joined(record.get("title"), " ") or joined(record.get("app_name"), " ")
    texts = (joined(record.get(key), ", ") for key in ("genres", "tags", "developer", "publisher", "release_date"))
    return text(record, "id"), title, *texts, price(record.get("price"))
