"""Amazon Reviews 2023: reviews and metadata, one JSON record a line, joined by parent_asin.

Format and files: https://amazon-reviews-2023.github.io/ (X.jsonl.gz, the ratings-only X.csv.gz, or the benchmark's
X.train.csv, X.valid.csv and X.test.csv; and meta_X.jsonl.gz). An item is a parent_asin: colours and sizes of one
product share it. Times are milliseconds.
"""

# Proved by tests/data/importing/test_layouts.py.

import polars as pl

from hllm.data.importing.fields import Fields, TimeUnit, keys_first
from hllm.data.importing.layout import Source, Tables, find
from hllm.data.importing.published.splits import SPLIT_NOTE, joined_splits, published_splits
from hllm.data.reading.lines import convert, joined, number, price, text, whole
from hllm.data.reading.records import Record

TEXT = ("title", "store", "categories", "features", "description")
_KINDS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float64}
_INTERACTIONS = {**_KINDS, "asin": pl.String, "verified": pl.Boolean}
_RATINGS = Fields(
    {"user_id": "user_id", "item_id": "parent_asin", "timestamp": "timestamp", "rating": "rating"},
    order=("user_id", "item_id", "rating", "timestamp"), numbers=("rating",),
)  # fmt: skip
_ITEMS = {"item_id": pl.String, **dict.fromkeys(TEXT, pl.String), "main_category": pl.String, "price": pl.Float64}


def read(source: Source) -> Tables:
    """Read reviews, or the ratings-only CSV, or its published parts with a column "split", and the metadata."""
    splits = published_splits(source, "*.{}.csv*", ["*.jsonl*", "*.csv*"], but_not=["meta_*"])
    others = ["meta_*", "*.train.csv*", "*.valid.csv*", "*.test.csv*"]
    log = splits["train"] if splits else find(source, "interactions", ["*.jsonl*", "*.csv*"], but_not=others)
    meta = find(source, "items", ["meta_*.jsonl*"])
    unit: TimeUnit = "ms"
    notes: tuple[str, ...] = ()
    if splits:
        parts = {name: _RATINGS.read_times(_RATINGS.read(path, source), path) for name, path in splits.items()}
        interactions, unit = (
            joined_splits({name: keys_first(rows) for name, (rows, _) in parts.items()}),
            parts["train"][1],
        )
        notes = (SPLIT_NOTE,)
    elif ".csv" in log.suffixes:
        interactions, unit = _RATINGS.read_times(_RATINGS.read(log, source), log)
        interactions = keys_first(interactions)
    else:
        interactions, notes = convert(log, source.scratch / "interactions.parquet", _INTERACTIONS, _review)
    items, more = convert(meta, source.scratch / "items.parquet", _ITEMS, _product)
    return Tables(
        interactions, items, files=(*(splits.values() or [log]), meta), text_cols=TEXT, time_unit=unit,
        settings={"split_col": "split"} if splits else {}, notes=(*notes, *more),
    )  # fmt: skip


def _review(record: Record) -> tuple[object, ...]:
    verified = record.get("verified_purchase")
    asin = record.get("asin")
    return (
        text(record, "user_id"),
        text(record, "parent_asin"),
        whole(record, "timestamp"),
        number(record, "rating"),
        asin if isinstance(asin, str) else None,
        verified if isinstance(verified, bool) else None,
    )


def _product(record: Record) -> tuple[object, ...]:
    title, store, features, description, main = (
        joined(record.get(key), " ") for key in ("title", "store", "features", "description", "main_category")
    )
    categories = joined(record.get("categories"), " > ")
    item = text(record, "parent_asin")
    return item, title, store, categories, features, description, main, price(record.get("price"))
