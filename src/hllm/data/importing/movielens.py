"""MovieLens in its three formats; every rating is an interaction, and a title's year becomes a column of its own.

Formats: the READMEs at https://grouplens.org/datasets/movielens/. 100K: u.data (tabs) and u.item (bars, Latin-1, a
column of 0 or 1 for each genre). 1M and 10M: ratings.dat and movies.dat with "::" (1M in Latin-1). Latest, 20M, 25M and
32M: ratings.csv and movies.csv. Genres are joined by ", ".
"""

# Proved by tests/data/importing/test_layouts.py.

import polars as pl

from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import scan_delimited, typed
from hllm.data.reading.tables import scan_table
from hllm.errors import DataError

TEXT = ("title", "year", "genres")
_KINDS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float64}
# In the order of the columns of u.item; the names are those of u.genre.
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


def read_100k(source: Source) -> Tables:
    """Read u.data and u.item."""
    log, films = find(source, "interactions", ["u.data"]), find(source, "items", ["u.item"])
    fields = ["user_id", "item_id", "rating", "timestamp"]
    ratings = scan_delimited(log, "\t", fields, scratch=source.scratch, header=False)
    columns = ["item_id", "title", "release_date", "video_release_date", "imdb_url", *_GENRES]
    items = scan_delimited(films, "|", columns, scratch=source.scratch, header=False)
    genres = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in _GENRES]
    items = items.select(
        "item_id", *_title_and_year(), genres=pl.concat_str(genres, separator=", ", ignore_nulls=True),
        release_date="release_date",
    )  # fmt: skip
    return Tables(typed(ratings, _KINDS, path=log).select(*_KINDS), items, files=(log, films), text_cols=TEXT)


def read_1m(source: Source) -> Tables:
    """Read ratings.dat and movies.dat."""
    log, films = find(source, "interactions", ["ratings.dat"]), find(source, "items", ["movies.dat"])
    fields = ["user_id", "item_id", "rating", "timestamp"]
    ratings = scan_delimited(log, "::", fields, scratch=source.scratch, header=False)
    items = scan_delimited(films, "::", ["item_id", "title", "genres"], scratch=source.scratch, header=False)
    items = items.select("item_id", *_title_and_year(), _genres())
    return Tables(typed(ratings, _KINDS, path=log).select(*_KINDS), items, files=(log, films), text_cols=TEXT)


def read_csv(source: Source) -> Tables:
    """Read ratings.csv and movies.csv."""
    log, films = find(source, "interactions", ["ratings.csv*"]), find(source, "items", ["movies.csv*"])
    ratings, items = scan_table(log, name="interactions"), scan_table(films, name="items")
    for file, frame, names in ((log, ratings, ("userId", "movieId", "rating", "timestamp")),
                                (films, items, ("movieId", "title", "genres"))):  # fmt: skip
        if missing := [name for name in names if name not in frame.collect_schema()]:
            raise DataError(f"{file}, line 1: no column {missing[0]!r}; expected {','.join(names)}")
    ratings = ratings.rename({"userId": "user_id", "movieId": "item_id"})
    items = items.rename({"movieId": "item_id"}).select("item_id", *_title_and_year(), _genres())
    return Tables(typed(ratings, _KINDS, path=log).select(*_KINDS), items, files=(log, films), text_cols=TEXT)


def _title_and_year() -> tuple[pl.Expr, pl.Expr]:
    """Split "Toy Story (1995)"; a title without a year stays whole."""
    pattern = r"^(.*\S)\s*\((\d{4})\)\s*$"
    title = pl.col("title").str.extract(pattern, 1).fill_null(pl.col("title").str.strip_chars())
    return title.alias("title"), pl.col("title").str.extract(pattern, 2).alias("year")


def _genres() -> pl.Expr:
    genres = pl.col("genres").str.replace_all("|", ", ", literal=True)
    return pl.when(genres != "(no genres listed)").then(genres).alias("genres")
