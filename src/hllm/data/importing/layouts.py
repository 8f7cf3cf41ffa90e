"""Layouts list what `hllm data import` knows by name."""

import importlib
from dataclasses import dataclass
from typing import Any

from hllm.errors import ConfigError, nearest


@dataclass(frozen=True)
class Layout:
    """A published layout. Its module is imported when it is used, so that `hllm --help` need not wait for polars."""

    reader: str
    """Module of `published`, or of this package, and its function from a Source to Tables."""
    about: str
    """Contents and files of the layout, in a line."""
    origin: str
    """Page that describes its format, or offers its files."""
    any_columns: bool = False
    """True if the caller says which column means what."""

    @property
    def read(self) -> Any:
        """Return the function that reads it: Source -> Tables."""
        module, _, function = self.reader.rpartition(".")
        return getattr(importlib.import_module(f"hllm.data.importing.{module}"), function)


_GROUPLENS = "https://grouplens.org/datasets/movielens/"

LAYOUTS = {
    "table": Layout("table.read", "any two tables; say which column is which", "your own", any_columns=True),
    "hllm": Layout("published.reference_csv.read", "the HLLM authors' CSV pair: dataset/NAME.csv, information/NAME.csv",
        "https://huggingface.co/ByteDance/HLLM",
    ),
    "recbole": Layout("published.recbole.read",
        "RecBole's atomic files: NAME.inter, or NAME.train.inter with its like; NAME.item",
        "https://github.com/RUCAIBox/RecSysDatasets",
        any_columns=True,
    ),
    "two-parquet": Layout("published.pairs.read_two_parquet", "interactions.parquet, items.parquet", "your own"),
    "movielens-100k": Layout("published.movielens.read_100k", "u.data, u.item", _GROUPLENS + "100k/"),
    "movielens-1m": Layout("published.movielens.read_1m", "1M and 10M: ratings.dat, movies.dat", _GROUPLENS + "1m/"),
    "movielens": Layout("published.movielens.read_csv", 
        "latest, 20M, 25M, 32M: ratings.csv, movies.csv; Kaggle's rating.csv, movie.csv",
        _GROUPLENS,
    ),
    "amazon-2014": Layout("published.amazon_2014.read", "reviews_X.json.gz or ratings_X.csv, meta_X.json.gz",
        "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
    ),
    "amazon-2018": Layout("published.amazon_2018.read", "X.json.gz, X_5.json.gz or X.csv, meta_X.json.gz", "https://nijianmo.github.io/amazon/"
    ),
    "amazon-2023": Layout("published.amazon_2023.read", 
        "X.jsonl.gz, X.csv.gz or X.train.csv with its like; meta_X.jsonl.gz", "https://amazon-reviews-2023.github.io/"
    ),
    "pixelrec": Layout("published.pairs.read_pixelrec", "Pixel200K.csv, item_info.csv", "https://github.com/westlake-repl/PixelRec"
    ),
    "microlens": Layout("published.pairs.read_microlens", "X_pairs.csv or X_pairs.tsv, X_title_en.csv", "https://github.com/westlake-repl/MicroLens"
    ),
    "mind": Layout("published.mind.read", "behaviors.tsv, news.tsv", "https://msnews.github.io/"),
    "steam": Layout("published.steam.read", "steam_reviews.json.gz, steam_games.json.gz",
        "https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
    ),
    "goodbooks-10k": Layout("published.goodbooks.read", "ratings.csv, books.csv", "https://github.com/zygmuntz/goodbooks-10k"),
    "yelp": Layout("published.yelp.read", "yelp_academic_dataset_review.json, …_business.json",
        "https://business.yelp.com/data/resources/open-dataset/",
    ),
    "sasrec": Layout("published.sequences.read", "SASRec's and S3-Rec's NAME.txt: a user and items a line",
        "https://github.com/kang205/SASRec",
    ),
    "gowalla": Layout("published.check_ins.read_gowalla", "Gowalla_totalCheckins.txt, also Brightkite's",
        "https://snap.stanford.edu/data/loc-Gowalla.html",
    ),
    "foursquare": Layout("published.check_ins.read_foursquare",
        "dataset_TSMC2014_NYC.txt, or dataset_TIST2015_Checkins.txt and …_POIs.txt",
        "https://sites.google.com/site/yangdingqi/home/foursquare-dataset",
    ),
    "lastfm-hetrec": Layout("published.music.read", "user_artists.dat, artists.dat", "https://grouplens.org/datasets/hetrec-2011/"
    ),
    "retailrocket": Layout("published.shops.read_retailrocket", "events.csv",
        "https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
    ),
    "hm": Layout("published.shops.read_hm", "H&M: transactions_train.csv, articles.csv",
        "https://www.kaggle.com/c/h-and-m-personalized-fashion-recommendations",
    ),
    "yoochoose": Layout("published.shops.read_yoochoose", "yoochoose-clicks.dat, yoochoose-buys.dat",
        "https://recsys.acm.org/recsys15/challenge/",
    ),
    "diginetica": Layout("published.shops.read_diginetica", "train-item-views.csv",
        "https://competitions.codalab.org/competitions/11161",
    ),
    "merrec": Layout("published.shops.read_merrec", "Parquet files, at any depth", "https://huggingface.co/datasets/mercari-us/merrec"
    ),
    "book-crossing": Layout("published.books.read_book_crossing", 
        "BX-Book-Ratings.csv, BX-Books.csv, or Kaggle's Ratings.csv, Books.csv",
        "http://www2.informatik.uni-freiburg.de/~cziegler/BX/",
    ),
    "goodreads": Layout("published.books.read_goodreads", "goodreads_interactions_X.json.gz, goodreads_books_X.json.gz",
        "https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html",
    ),
}  # fmt: skip


def layout_named(name: str) -> Layout:
    """Return a layout; ConfigError for an unknown name."""
    if name not in LAYOUTS:
        raise ConfigError(f"unknown layout {name!r}{nearest(name, LAYOUTS)}; known: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
