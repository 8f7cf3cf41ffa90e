"""Layouts list what `hllm data import` knows by name."""

import importlib
from dataclasses import dataclass
from typing import Any

from hllm.errors import ConfigError, nearest


@dataclass(frozen=True)
class Layout:
    """A published layout. Its module is imported when it is used, so that `hllm --help` need not wait for polars."""

    reader: str
    """Module of this package, and its function from a Source to Tables."""
    about: str
    """Contents and files of the layout, in a line."""
    origin: str
    """Page that describes its format, or offers its files."""
    any_columns: bool = False
    """True if the caller says which column means what."""

    @property
    def read(self) -> Any:
        """Return the function that reads it: Source -> Tables."""
        module, function = self.reader.split(".")
        return getattr(importlib.import_module(f"hllm.data.importing.{module}"), function)


_GROUPLENS = "https://grouplens.org/datasets/movielens/"

LAYOUTS = {
    "table": Layout("table.read", "any two tables; say which column is which", "your own", any_columns=True),
    "hllm": Layout("reference_csv.read", "the HLLM authors' CSV pair: dataset/NAME.csv, information/NAME.csv",
        "https://huggingface.co/ByteDance/HLLM",
    ),
    "recbole": Layout("recbole.read", "RecBole's atomic files: NAME.inter, NAME.item", "https://github.com/RUCAIBox/RecSysDatasets",
        any_columns=True,
    ),
    "two-parquet": Layout("pairs.read_two_parquet", "interactions.parquet, items.parquet", "your own"),
    "movielens-100k": Layout("movielens.read_100k", "u.data, u.item", _GROUPLENS + "100k/"),
    "movielens-1m": Layout("movielens.read_1m", "1M and 10M: ratings.dat, movies.dat", _GROUPLENS + "1m/"),
    "movielens": Layout("movielens.read_csv", "latest, 20M, 25M, 32M: ratings.csv, movies.csv", _GROUPLENS),
    "amazon-2014": Layout("amazon_2014.read", "reviews_X.json.gz or ratings_X.csv, meta_X.json.gz",
        "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
    ),
    "amazon-2018": Layout("amazon_2018.read", "X.json.gz, X_5.json.gz or X.csv, meta_X.json.gz", "https://nijianmo.github.io/amazon/"
    ),
    "amazon-2023": Layout("amazon_2023.read", "X.jsonl.gz or X.csv.gz, meta_X.jsonl.gz", "https://amazon-reviews-2023.github.io/"
    ),
    "pixelrec": Layout("pairs.read_pixelrec", "Pixel200K.csv, item_info.csv", "https://github.com/westlake-repl/PixelRec"
    ),
    "microlens": Layout("pairs.read_microlens", "X_pairs.csv or X_pairs.tsv, X_title_en.csv", "https://github.com/westlake-repl/MicroLens"
    ),
    "mind": Layout("mind.read", "behaviors.tsv, news.tsv", "https://msnews.github.io/"),
    "steam": Layout("steam.read", "steam_reviews.json.gz, steam_games.json.gz",
        "https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
    ),
    "goodbooks-10k": Layout("goodbooks.read", "ratings.csv, books.csv", "https://github.com/zygmuntz/goodbooks-10k"),
    "yelp": Layout("yelp.read", "yelp_academic_dataset_review.json, …_business.json",
        "https://business.yelp.com/data/resources/open-dataset/",
    ),
}  # fmt: skip


def layout_named(name: str) -> Layout:
    """Return a layout; ConfigError for an unknown name."""
    if name not in LAYOUTS:
        raise ConfigError(f"unknown layout {name!r}{nearest(name, LAYOUTS)}; known: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
