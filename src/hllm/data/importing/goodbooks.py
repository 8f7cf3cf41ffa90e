"""Goodbooks-10k: ratings of ten thousand books, in time order but without times.

Format and files: https://github.com/zygmuntz/goodbooks-10k, README (ratings.csv user_id,book_id,rating, "sorted by
time"; books.csv). to_read.csv is left out: how its rows lie in time between the ratings is not known. So are the
books' average ratings and counts: they are of all time.
"""

# Proved by tests/data/importing/test_layouts.py.

import polars as pl

from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import numbered, typed
from hllm.data.reading.tables import scan_table
from hllm.errors import DataError

TEXT = ("title", "authors", "year")


def read(source: Source) -> Tables:
    """Read ratings.csv, whose order is the only time there is, and books.csv."""
    log, books = find(source, "interactions", ["ratings.csv*"]), find(source, "items", ["books.csv*"])
    ratings, items = scan_table(log, name="interactions"), scan_table(books, name="items")
    for file, frame, names in ((log, ratings, ("user_id", "book_id", "rating")),
                                (books, items, ("book_id", "title", "authors"))):  # fmt: skip
        if missing := [name for name in names if name not in frame.collect_schema()]:
            raise DataError(f"{file}, line 1: no column {missing[0]!r}; expected {', '.join(names)}")
    ratings = typed(ratings, {"user_id": pl.String, "book_id": pl.String, "rating": pl.Float64}, path=log)
    ratings = numbered(ratings).select("user_id", item_id="book_id", timestamp="timestamp", rating="rating")
    year = (
        pl.col("original_publication_year") if "original_publication_year" in items.collect_schema() else pl.lit(None)
    )
    items = items.select(
        "title", "authors", item_id="book_id", year=year.cast(pl.String).str.strip_suffix(".0"),
        **{name: name for name in ("language_code", "original_title", "isbn") if name in items.collect_schema()},
    )  # fmt: skip
    return Tables(
        ratings, items, files=(log, books), text_cols=TEXT, time_unit="none",
        notes=("timestamp is the row of ratings.csv: the file is in time order, but has no times",),
    )  # fmt: skip
