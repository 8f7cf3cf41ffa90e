"""The Yelp Open Dataset: reviews and businesses, one JSON record a line.

Format and files: https://business.yelp.com/data/resources/open-dataset/ (yelp_academic_dataset_review.json,
yelp_academic_dataset_business.json). The businesses' average stars and review counts are left out: they are of all
time, later than many reviews.
"""

# Proved by tests/data/importing/test_layouts.py.

from datetime import UTC, datetime

import polars as pl

from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import convert, joined, number, text
from hllm.data.reading.records import Record

TEXT = ("title", "categories", "city", "state")
_INTERACTIONS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float64}
_ITEMS = {"item_id": pl.String, **dict.fromkeys(TEXT, pl.String), "address": pl.String, "is_open": pl.Boolean}


def read(source: Source) -> Tables:
    """Read reviews, each an interaction, and businesses."""
    log = find(source, "interactions", ["*review.json*"])
    places = find(source, "items", ["*business.json*"])
    interactions, notes = convert(log, source.scratch / "interactions.parquet", _INTERACTIONS, _review)
    items, more = convert(places, source.scratch / "items.parquet", _ITEMS, _business)
    return Tables(interactions, items, files=(log, places), text_cols=TEXT, notes=(*notes, *more))


def _review(record: Record) -> tuple[object, ...]:
    date = text(record, "date")
    try:
        time = int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise ValueError(f"'date' is {date!r}, expected a time such as 2018-07-07 22:09:11") from None
    return text(record, "user_id"), text(record, "business_id"), time, number(record, "stars")


def _business(record: Record) -> tuple[object, ...]:
    texts = (joined(record.get(key), ", ") for key in ("name", "categories", "city", "state", "address"))
    is_open = record.get("is_open")
    return text(record, "business_id"), *texts, bool(is_open) if is_open is not None else None
