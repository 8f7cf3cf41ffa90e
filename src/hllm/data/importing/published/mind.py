"""MIND, the Microsoft News Dataset: clicks among shown news, and the clicks before them.

Format: https://github.com/msnews/msnews.github.io/blob/master/assets/doc/introduction.md (behaviors.tsv: impression id,
user, time, history, impressions such as "N1-0 N2-1"; news.tsv). One folder at a time, such as MINDsmall_train.
"""

# Proved by tests/data/importing/test_layouts.py.

from pathlib import Path

import polars as pl

from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import scan_delimited
from hllm.errors import DataError

TEXT = ("title", "category", "subcategory", "abstract")
_BEHAVIORS = ["session", "user_id", "time", "history", "impressions"]
_NEWS = ["item_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities"]
_TIME = "%m/%d/%Y %I:%M:%S %p"
_COLUMNS = ["user_id", "item_id", "timestamp", "action", "session"]


def read(source: Source) -> Tables:
    """Read clicks, with the history before a user's first impression, as interactions; all impressions besides.

    The history has no times. Its news get the seconds right before the user's first impression, in their order:
    the order is true, and no time is later than the click was.
    """
    log, news = find(source, "interactions", ["behaviors.tsv*"]), find(source, "items", ["news.tsv*"])
    rows = scan_delimited(log, "\t", _BEHAVIORS, scratch=source.scratch, header=False)
    time = pl.col("time").str.to_datetime(_TIME, strict=False)
    labelled_news = pl.col("impressions").str.split(" ")
    bad_rows = (
        rows.with_row_index("row")
        .filter(time.is_null() | (labelled_news.list.eval(~pl.element().str.contains("-[01]$")).list.any()))
        .head(1)
        .collect(engine="streaming")
    )
    if len(bad_rows):
        row, moment, cell = bad_rows.select("row", "time", "impressions").row(0)
        raise DataError(
            f"{log}, data row {row + 1}: time {moment!r} and impressions {cell[:40]!r}; expected a time such as "
            "11/15/2019 8:55:22 AM and news with labels, N1-0 N2-1. The large set's test part has no labels"
        )
    events = rows.with_columns(timestamp=time.dt.epoch("s"))
    impressions = events.with_columns(item_id=labelled_news).explode("item_id").select(
        "user_id",
        "timestamp",
        "session",
        item_id=pl.col("item_id").str.strip_suffix("-0").str.strip_suffix("-1"),
        action=pl.when(pl.col("item_id").str.ends_with("-1")).then(pl.lit("click")).otherwise(pl.lit("skip")),
    ).select(_COLUMNS)  # fmt: skip
    # Written one after the other: side by side, polars would hold one while it reads the other.
    impressions = _written(impressions, source.scratch / "impressions.parquet")
    clicks = _written(impressions.filter(pl.col("action") == "click"), source.scratch / "clicks.parquet")
    history = _written(_history(events), source.scratch / "history.parquet")
    items = scan_delimited(news, "\t", _NEWS, scratch=source.scratch, header=False)
    return Tables(
        pl.concat([history, clicks]),
        items.select("item_id", *TEXT, "url"),
        files=(log, news),
        text_cols=TEXT,
        action_col="action",
        extra={"impressions": impressions},
        notes=(
            'interactions are the clicks, and the history before a user\'s first impression as action "history"; '
            "impressions.parquet holds all that was shown, clicked or skipped",
            "the history has no times: it is given the seconds right before the user's first impression",
        ),
    )


def _written(rows: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    rows.sink_parquet(path, mkdir=False)
    return pl.scan_parquet(path, glob=False)


def _history(events: pl.LazyFrame) -> pl.LazyFrame:
    """Return the clicks before each user's first impression, in order; at no time are all histories in memory."""
    numbered = events.with_row_index("row")
    first = pl.col("row").sort_by("timestamp", "row").first()
    first_rows = numbered.group_by("user_id").agg(first).select("row").collect(engine="streaming")
    items = pl.col("history").str.split(" ").list.filter(pl.element() != "")
    count = items.list.len().cast(pl.Int64)
    return (
        numbered.join(first_rows.lazy(), on="row", how="semi", maintain_order="left")
        .select("user_id", item_id=items, timestamp=pl.int_ranges(pl.col("timestamp") - count, pl.col("timestamp")))
        .explode("item_id", "timestamp")
        .filter(pl.col("item_id").is_not_null())
        .select(
            "user_id",
            "item_id",
            "timestamp",
            action=pl.lit("history"),
            session=pl.lit(None, dtype=pl.String),
        )
    )
