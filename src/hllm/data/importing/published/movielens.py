"""MovieLens in its formats; every rating is an interaction, and a title's year becomes a column of its own.

Formats: the READMEs at https://grouplens.org/datasets/movielens/. 100K: u.data (tabs) and u.item (bars, Latin-1, a
column of 0 or 1 for each genre). 1M and 10M: ratings.dat and movies.dat with "::" (1M in Latin-1). Latest, 20M, 25M and
32M: ratings.csv and movies.csv; Kaggle's copy of 20M has rating.csv and movie.csv, with dates. Genres are joined
by ", ".
"""

# Proved by tests/data/importing/test_layouts.py, tests/data/importing/test_published.py.

import polars as pl

from hllm.data.importing.fields import Fields, read_log
from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import scan_delimited

TEXT = ("title", "year", "genres")
_RATINGS = Fields(
    {"user_id": "userId|user", "item_id": "movieId|movie|item", "timestamp": "timestamp", "rating": "rating"},
    order=("user_id", "item_id", "rating", "timestamp"),
    numbers=("rating",),
)
_FILMS = Fields(
    {"item_id": "movieId|movie|item", "title": "title|name", "genres": "genres|genre"},
    order=("item_id", "title", "genres"),
)
# In the order of the columns of u.item; the names are those of u.genre.
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


def read_100k(source: Source) -> Tables:
    """Read u.data and u.item."""
    ratings, unit, log = read_log(source, _RATINGS, ["u.data"])
    films = find(source, "items", ["u.item"])
    columns = ["item_id", "title", "release_date", "video_release_date", "imdb_url", *_GENRES]
    items = scan_delimited(films, "|", columns, scratch=source.scratch, header=False)
    genres = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in _GENRES]
    items = items.select(
        "item_id", *_title_and_year(), genres=pl.concat_str(genres, separator=", ", ignore_nulls=True),
        release_date="release_date",
    )  # fmt: skip
    return Tables(ratings, items, files=(log, films), text_cols=TEXT, time_unit=unit)


def read_1m(source: Source) -> Tables:
    """Read ratings.dat and movies.dat."""
    return _read(source, ["ratings.dat"], ["movies.dat"])


def read_csv(source: Source) -> Tables:
    """Read ratings.csv and movies.csv, or rating.csv and movie.csv."""
    return _read(source, ["ratings.csv*", "rating.csv*"], ["movies.csv*", "movie.csv*"])


def _read(source: Source, log_names: list[str], film_names: list[str]) -> Tables:
    ratings, unit, log = read_log(source, _RATINGS, log_names)
    films = find(source, "items", film_names)
    genres = pl.col("genres").str.replace_all("|", ", ", literal=True)
    genres = pl.when(genres != "(no genres listed)").then(genres).alias("genres")
    items = _FILMS.read(films, source).select("item_id", *_title_and_year(), genres)
    return Tables(ratings, items, files=(log, films), text_cols=TEXT, time_unit=unit)


def _title_and_year() -> tuple[pl.Expr, pl.Expr]:
    """Split "Toy Story (1995)"; a title without a year stays whole."""
    pattern = r"^(.*\S)\s*\((\d{4})\)\s*$"
    title = pl.col("title").str.extract(pattern, 1).fill_null(pl.col("title").str.strip_chars())
    return title.alias("title"), pl.col("title").str.extract(pattern, 2).alias("year")
