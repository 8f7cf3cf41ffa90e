"""Readers of books: Book-Crossing, without times, and Goodreads.

Formats: http://www2.informatik.uni-freiburg.de/~cziegler/BX/ (BX-Book-Ratings.csv, BX-Books.csv: semicolons, quotes,
Latin-1; Kaggle's copy is Ratings.csv, Books.csv); https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html
(goodreads_interactions_X.json.gz, goodreads_books_X.json.gz). Average ratings and the shelves that people put a book on
are left out: they are of all time.
"""

# Proved by tests/data/importing/test_published.py.

from datetime import datetime

import polars as pl

from hllm.data.importing.fields import Fields, keys_first
from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import MissingValue, convert, joined, number, numbered, text
from hllm.data.reading.records import Record

_RATINGS = Fields({"user_id": "User-ID", "item_id": "ISBN", "rating": "Book-Rating"}, numbers=("rating",))
_CROSSED = ("title", "author", "year", "publisher")
_BOOKS = Fields(
    {"item_id": "ISBN", "title": "Book-Title", "author": "Book-Author", "year": "Year-Of-Publication",
     "publisher": "Publisher"},
)  # fmt: skip
_READ = ("title", "publisher", "year", "description")
_INTERACTIONS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float64,
                 "is_read": pl.Boolean}  # fmt: skip
_ITEMS = {"item_id": pl.String, **dict.fromkeys(_READ, pl.String), "language": pl.String}


def read_book_crossing(source: Source) -> Tables:
    """Read the ratings, of which 0 means that a book was read and not rated, and the books."""
    log = find(source, "interactions", ["*Book-Ratings*.csv*", "Ratings.csv*"])
    books = find(source, "items", ["*X-Books*.csv*", "Books.csv*"])
    return Tables(
        keys_first(numbered(_RATINGS.read(log, source))), _BOOKS.read(books, source), files=(log, books),
        text_cols=_CROSSED, time_unit="none",
        notes=("there are neither times nor an order: timestamp is the row", "a rating of 0 is none"),
    )  # fmt: skip


def read_goodreads(source: Source) -> Tables:
    """Read what people put on their shelves, at the time when they did, and the books."""
    log = find(source, "interactions", ["goodreads_interactions*.json*", "goodreads_reviews*.json*"])
    books = find(source, "items", ["goodreads_books*.json*"])
    interactions, notes = convert(log, source.scratch / "interactions.parquet", _INTERACTIONS, _interaction)
    items, more = convert(books, source.scratch / "items.parquet", _ITEMS, _book)
    return Tables(interactions, items, files=(log, books), text_cols=_READ, notes=(*notes, *more))


def _interaction(record: Record) -> tuple[object, ...]:
    added, is_read = record.get("date_added"), record.get("is_read", record.get("isRead"))
    if not added:
        raise MissingValue("the record has no 'date_added'")
    try:
        time = int(datetime.strptime(str(added), "%a %b %d %H:%M:%S %z %Y").timestamp())
    except ValueError:
        raise ValueError(f"'date_added' is {added!r}, expected a time such as Wed Aug 02 20:24:10 -0700 2017") from None
    ids = text(record, "user_id"), text(record, "book_id")
    return *ids, time, number(record, "rating"), is_read if isinstance(is_read, bool) else None


def _book(record: Record) -> tuple[object, ...]:
    keys = ("title", "publisher", "publication_year", "description", "language_code")
    return text(record, "book_id"), *(joined(record.get(key), " ") for key in keys)
