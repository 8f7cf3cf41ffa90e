"""Logs of shops: Retailrocket, H&M, YooChoose, Diginetica and MerRec.

Formats: https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset (events.csv; the properties of items are hashed,
so there is nothing to read); https://www.kaggle.com/c/h-and-m-personalized-fashion-recommendations
(transactions_train.csv, articles.csv); https://recsys.acm.org/recsys15/challenge (yoochoose-clicks.dat and
yoochoose-buys.dat, no header); https://competitions.codalab.org/competitions/11161 (train-item-views.csv, whose times
are a day and milliseconds of a session; the words of product names are hashed);
https://huggingface.co/datasets/mercari-us/merrec (Parquet files, one row an event, with the item's name in it).
"""

# Proved by tests/data/importing/test_published.py.

from datetime import date
from pathlib import Path

import polars as pl

from hllm.data.importing.fields import Fields, keys_first, read_log
from hllm.data.importing.layout import Source, Tables, find, matching
from hllm.errors import DataError

_EVENTS = Fields(
    {
        "user_id": "visitorid",
        "item_id": "itemid",
        "timestamp": "timestamp",
        "action": "event",
        "order": "transactionid",
    },
    optional=("order",),
)
_SALES = Fields(
    {"user_id": "customer_id", "item_id": "article_id", "timestamp": "t_dat", "price": "price",
     "channel": "sales_channel_id"},
    optional=("price", "channel"),
    numbers=("price",),
)  # fmt: skip
_CLOTHES = ("title", "kind", "colour", "department", "section", "description")
_ARTICLES = Fields(
    {"item_id": "article_id", "title": "prod_name", "kind": "product_type_name", "colour": "colour_group_name",
     "department": "department_name", "section": "section_name", "description": "detail_desc"},
    optional=_CLOTHES[1:],
)  # fmt: skip
_CLICKS = Fields(
    {"user_id": "session", "item_id": "item", "timestamp": "timestamp", "category": "category"},
    optional=("category",),
    order=("user_id", "timestamp", "item_id", "category"),
)
_BUYS = Fields(
    {"user_id": "session", "item_id": "item", "timestamp": "timestamp", "price": "price", "quantity": "quantity"},
    optional=("price", "quantity"),
    order=("user_id", "timestamp", "item_id", "price", "quantity"),
    numbers=("price", "quantity"),
)
_VIEWS = Fields(
    {"user_id": "session_id", "item_id": "item_id", "milliseconds": "timeframe", "timestamp": "eventdate"},
    numbers=("milliseconds",),
)
_MERREC_TEXT = {"name": "title", "brand_name": "brand", "c0_name": "department", "c1_name": "category",
                "c2_name": "subcategory", "size_name": "size", "color": "color"}  # fmt: skip


def read_retailrocket(source: Source) -> Tables:
    """Read the events: views, things put into a cart, and purchases."""
    log, unit, path = read_log(source, _EVENTS, ["events.csv*"])
    return Tables(log, None, files=(path,), time_unit=unit, action_col="action")


def read_hm(source: Source) -> Tables:
    """Read the purchases, which have days, and the articles, whose ids keep their zeros."""
    log, unit, path = read_log(source, _SALES, ["transactions*.csv*"])
    articles = find(source, "items", ["articles*.csv*"])
    items = _ARTICLES.read(articles, source)
    text = tuple(name for name in _CLOTHES if name in items.collect_schema())
    return Tables(log, items, files=(path, articles), text_cols=text, time_unit=unit, notes=("times are whole days",))


def read_yoochoose(source: Source) -> Tables:
    """Read the clicks and, if they are there, the buys; a user is a session."""
    clicks, unit, path = read_log(source, _CLICKS, ["*clicks*.dat*", "*clicks*.csv*"])
    log, files = clicks.with_columns(action=pl.lit("click")), [path]
    if bought := matching(source.folder, ["*buys*.dat*", "*buys*.csv*"]):
        rows, _ = _BUYS.read_times(_BUYS.read(bought[0], source), bought[0])
        log = pl.concat([log, keys_first(rows).with_columns(action=pl.lit("buy"))], how="diagonal")
        files.append(bought[0])
    return Tables(
        log, None, files=tuple(files), time_unit=unit, action_col="action", notes=("a user is a session",)
    )  # fmt: skip


def read_diginetica(source: Source) -> Tables:
    """Read the views; a user is a session, and the time is the day and the milliseconds since the session began."""
    path = find(source, "interactions", ["*item-views*.csv*"])
    rows = _VIEWS.read(path, source)
    day = (pl.col("timestamp").str.to_date("%Y-%m-%d", strict=False) - date(1970, 1, 1)).dt.total_milliseconds()
    bad = rows.filter(day.is_null() & pl.col("timestamp").is_not_null()).head(1).collect(engine="streaming")
    if len(bad):
        raise DataError(f"{path}: eventdate is {bad['timestamp'][0]!r}, expected a day such as 2016-05-09")
    times = day + pl.col("milliseconds").fill_null(0).cast(pl.Int64)
    log = keys_first(rows.select("user_id", "item_id", timestamp=times))
    return Tables(
        log, None, files=(path,), time_unit="ms", notes=("a user is a session; sessions of one day overlap in time",)
    )


def read_merrec(source: Source) -> Tables:
    """Read the events of all Parquet files in the folder; an item is what the first event says of it."""
    paths = [source.interactions] if source.interactions else matching(source.folder, ["*.parquet", "**/*.parquet"])
    if not paths:
        raise DataError(f"interactions: no file in {source.folder} is called *.parquet")
    rows = pl.concat([_scan(path) for path in paths], how="diagonal_relaxed")
    schema = rows.collect_schema()
    wanted = {"user_id": "user_id", "item_id": "item_id", "stime": "timestamp", "event_id": "action"}
    if missing := [name for name in wanted if name not in schema]:
        raise DataError(f"{paths[0]}: no column {missing[0]!r}; it has {', '.join(schema)}")
    more = {name: name for name in ("session_id", "sequence_id", "product_id", "price") if name in schema}
    log = rows.select(pl.col(name).alias(ours) for name, ours in (wanted | more).items())
    text = {name: ours for name, ours in _MERREC_TEXT.items() if name in schema}
    items = rows.select("item_id", *(pl.col(name).alias(ours) for name, ours in text.items()))
    return Tables(
        log, items.unique("item_id", keep="first", maintain_order=True), files=tuple(paths),
        text_cols=tuple(text.values()), action_col="action",
    )  # fmt: skip


def _scan(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(path, glob=False)
