"""Amazon Reviews 2023: reviews and metadata, one JSON record a line, joined by parent_asin.

Format and files: https://amazon-reviews-2023.github.io/ (X.jsonl.gz or the ratings-only X.csv.gz, and
meta_X.jsonl.gz). An item is a parent_asin: colours and sizes of one product share it. Times are milliseconds.
"""

# Proved by tests/data/importing/test_layouts.py.

import polars as pl

from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import Record, convert, joined, number, price, text, typed, whole
from hllm.data.reading.tables import scan_table
from hllm.errors import DataError

TEXT = ("title", "store", "categories", "features", "description")
_KINDS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float64}
_INTERACTIONS = {**_KINDS, "asin": pl.String, "verified": pl.Boolean}
_ITEMS = {"item_id": pl.String, **dict.fromkeys(TEXT, pl.String), "main_category": pl.String, "price": pl.Float64}


def read(source: Source) -> Tables:
    """Read reviews, or the ratings-only CSV, and the metadata."""
    log = find(source, "interactions", ["*.jsonl*", "*.csv*"], but_not=["meta_*"])
    meta = find(source, "items", ["meta_*.jsonl*"])
    if ".csv" in log.suffixes:
        ratings = scan_table(log, name="interactions")
        if missing := {"user_id", "parent_asin", "rating", "timestamp"} - set(ratings.collect_schema()):
            raise DataError(f"{log}, line 1: expected columns user_id, parent_asin, rating and timestamp; no {missing}")
        interactions = typed(ratings.rename({"parent_asin": "item_id"}), _KINDS, path=log).select(*_KINDS)
    else:
        interactions, _ = convert(log, source.scratch / "interactions.parquet", _INTERACTIONS, _review)
    items, _ = convert(meta, source.scratch / "items.parquet", _ITEMS, _product)
    return Tables(interactions, items, files=(log, meta), text_cols=TEXT, time_unit="ms")


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
