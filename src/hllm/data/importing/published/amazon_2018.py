"""Amazon review data of 2018: reviews and metadata, one JSON record a line.

Format and files: https://nijianmo.github.io/amazon/ (X.json.gz or X_5.json.gz, or the ratings-only X.csv, and
meta_X.json.gz). Times are whole days. Some metadata lines hold a page's JavaScript where the title should be; their
title is left empty, as the data set's own notebook advises to filter them.
"""

# Proved by tests/data/importing/test_layouts.py.

import polars as pl

from hllm.data.importing.fields import Fields, TimeUnit, keys_first
from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import convert, joined, number, price, text, whole
from hllm.data.reading.records import Record

TEXT = ("title", "brand", "category", "feature", "description")
_KINDS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float64}
_RATINGS = Fields(
    {"user_id": "user|reviewerID|UserId", "item_id": "item|asin|ProductId", "timestamp": "timestamp|unixReviewTime",
     "rating": "rating|overall"},
    order=("item_id", "user_id", "rating", "timestamp"), numbers=("rating",),
)  # fmt: skip
_INTERACTIONS = {**_KINDS, "verified": pl.Boolean}
_ITEMS = {"item_id": pl.String, **dict.fromkeys(TEXT, pl.String), "price": pl.Float64}


def read(source: Source) -> Tables:
    """Read reviews, or the ratings-only CSV, and the metadata."""
    unit: TimeUnit
    notes: tuple[str, ...]
    log = find(source, "interactions", ["*.json*", "*.csv*"], but_not=["meta_*"])
    meta = find(source, "items", ["meta_*.json*"])
    if ".csv" in log.suffixes:
        interactions, unit = _RATINGS.read_times(_RATINGS.read(log, source), log)
        interactions, notes = keys_first(interactions), ()
    else:
        unit = "s"
        interactions, notes = convert(log, source.scratch / "interactions.parquet", _INTERACTIONS, _review)
    items, more = convert(meta, source.scratch / "items.parquet", _ITEMS, _product)
    return Tables(interactions, items, files=(log, meta), text_cols=TEXT, time_unit=unit,
                  notes=("times are whole days", *notes, *more))  # fmt: skip


def _review(record: Record) -> tuple[object, ...]:
    verified = record.get("verified")
    return (
        text(record, "reviewerID"),
        text(record, "asin"),
        whole(record, "unixReviewTime"),
        number(record, "overall"),
        verified if isinstance(verified, bool) else None,
    )


def _product(record: Record) -> tuple[object, ...]:
    title = joined(record.get("title"), " ")
    if title and "getTime" in title:
        title = None
    brand, feature, description = (joined(record.get(key), " ") for key in ("brand", "feature", "description"))
    category = joined(record.get("category"), " > ")
    return text(record, "asin"), title, brand, category, feature, description, price(record.get("price"))
