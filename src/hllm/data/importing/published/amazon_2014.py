"""Amazon product data of 2014: reviews and metadata, one record a line, the metadata as Python literals.

Format and files: https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html (reviews_X.json.gz or ratings_X.csv,
and meta_X.json.gz). Times are whole days, so many of a user's reviews are tied.
"""

# Proved by tests/data/importing/test_layouts.py.

import polars as pl

from hllm.data.importing.fields import Fields, TimeUnit, keys_first
from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import convert, joined, number, price, text, whole
from hllm.data.reading.records import Record

TEXT = ("title", "brand", "categories", "description")
_INTERACTIONS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float64}
_RATINGS = Fields(
    {"user_id": "UserId|reviewerID", "item_id": "ProductId|asin", "timestamp": "Timestamp|unixReviewTime",
     "rating": "Rating|overall"},
    order=("user_id", "item_id", "rating", "timestamp"), numbers=("rating",),
)  # fmt: skip
_ITEMS = {"item_id": pl.String, **dict.fromkeys(TEXT, pl.String), "price": pl.Float64}


def read(source: Source) -> Tables:
    """Read reviews, or the ratings-only CSV, and the metadata."""
    unit: TimeUnit
    notes: tuple[str, ...]
    log = find(source, "interactions", ["reviews_*.json*", "ratings_*.csv*"])
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
    return text(record, "reviewerID"), text(record, "asin"), whole(record, "unixReviewTime"), number(record, "overall")


def _product(record: Record) -> tuple[object, ...]:
    """Take a product; a category is a path, "Makeup > Nails", and there may be several, between semicolons."""
    paths = record.get("categories") or []
    categories = "; ".join(filter(None, (joined(path, " > ") for path in paths))) or None
    title, brand, description = (joined(record.get(key), " ") for key in ("title", "brand", "description"))
    return text(record, "asin"), title, brand, categories, description, price(record.get("price"))
