"""Goodbooks-10k: ratings of ten thousand books, in time order but without times; Kaggle's copy has no order at all.

Format and files: https://github.com/zygmuntz/goodbooks-10k, README (ratings.csv user_id,book_id,rating, "sorted by
time"; books.csv). In Kaggle's copy (ratings.csv book_id,user_id,rating; books.csv id,book_id,…) a rating's book_id is
the id of books.csv, and the rows are sorted by book. to_read.csv is left out: how its rows lie in time between the
ratings is not known. So are the books' average ratings and counts: they are of all time.
"""

# Proved by tests/data/importing/test_layouts.py, tests/data/importing/test_published.py.

import polars as pl

from hllm.data.importing.fields import Fields, keys_first
from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import first_line, numbered

TEXT = ("title", "authors", "year")
_RATINGS = Fields({"user_id": "user_id", "item_id": "book_id", "rating": "rating"}, numbers=("rating",))
_MORE = ("language_code", "original_title", "isbn", "year")
_BOOKS = {"title": "title", "authors": "authors", "language_code": "language_code", "original_title": "original_title",
          "isbn": "isbn", "year": "original_publication_year"}  # fmt: skip


def read(source: Source) -> Tables:
    """Read ratings.csv, whose order is the only time there is, and books.csv."""
    log, books = find(source, "interactions", ["ratings.csv*"]), find(source, "items", ["books.csv*"])
    of_kaggle = "id" in first_line(books).split(",")
    fields = Fields({"item_id": "id" if of_kaggle else "book_id", **_BOOKS}, optional=_MORE)
    items = fields.read(books, source)
    year = pl.col("year").str.strip_suffix(".0") if "year" in items.collect_schema() else pl.lit(None, dtype=pl.String)
    note = (
        "these are the files of Kaggle: ratings name books by the column id, and there is no order in time; timestamp "
        "is the row"
        if of_kaggle
        else "timestamp is the row of ratings.csv: the file is in time order, but has no times"
    )
    return Tables(
        keys_first(numbered(_RATINGS.read(log, source))), items.with_columns(year.alias("year")), files=(log, books),
        text_cols=TEXT, time_unit="none", notes=(note,),
    )  # fmt: skip
