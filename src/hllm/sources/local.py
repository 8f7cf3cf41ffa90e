"""Local data sets cannot be fetched: here are their published sizes, and which files to put where.

Each is two files in $HLLM_HOME/data/NAME (by default ~/.cache/hllm/data/NAME), with the columns that a recipe's
`[data]` table expects by default.
"""

# Proved by tests/sources/test_data_sets.py.

from dataclasses import dataclass
from pathlib import Path

from hllm.artifacts import home
from hllm.errors import ConfigError


@dataclass(frozen=True)
class DataSetSize:
    """Published size of a data set: enough to estimate what training on it costs."""

    num_users: int
    num_items: int
    num_interactions: int
    shortest: int = 5
    """Least number of interactions of a user."""


@dataclass(frozen=True)
class LocalSource:
    """A data set that people put in place themselves."""

    size: DataSetSize
    suffix: str
    """Ending of the two files: "csv" or "parquet"."""
    text: str
    """Columns of the items, besides item_id."""
    origin: str
    """Origin of the files."""


_PIXEL = "https://github.com/westlake-repl/PixelRec: Interaction and item information files of that size"
_BOOKS = "https://huggingface.co/ByteDance/HLLM: Interactions/amazon_books.csv and ItemInformation/amazon_books.csv"

# Sizes of the first four: arXiv:2409.12740, table 1.
LOCAL = {
    "pixel-8m": LocalSource(DataSetSize(8_886_078, 407_082, 158_488_652), "csv", "title, tag, description", _PIXEL),
    "pixel-1m": LocalSource(DataSetSize(1_001_822, 100_541, 19_886_579), "csv", "title, tag, description", _PIXEL),
    "pixel-200k": LocalSource(DataSetSize(200_000, 96_282, 3_965_656), "csv", "title, tag, description", _PIXEL),
    "amazon-books": LocalSource(DataSetSize(694_898, 686_624, 10_053_086), "csv", "title, description", _BOOKS),
    "amazon-beauty": LocalSource(
        DataSetSize(22_363, 12_101, 198_502),
        "parquet",
        "title, brand, categories",
        "Amazon Beauty 2014, 5-core, in the preprocessing of S3-Rec (https://github.com/RUCAIBox/CIKM2020-S3Rec); "
        "timestamp is the position in the user's history",
    ),
    "ml-1m": LocalSource(
        DataSetSize(6_040, 3_416, 999_611, shortest=18),
        "parquet",
        "title, year, genres",
        "MovieLens-1M in the preprocessing of SASRec (https://github.com/kang205/SASRec); timestamp is the position "
        "in the user's history",
    ),
    "microlens-50k": LocalSource(
        DataSetSize(50_000, 19_220, 359_708),
        "parquet",
        "title",
        "MicroLens-50K (https://github.com/westlake-repl/MicroLens) with the English titles; timestamp is the "
        "position in the user's history",
    ),
}


def local_files(name: str) -> tuple[Path, Path]:
    """Return the interactions and items files of a local set; ConfigError says what to put where."""
    source = LOCAL[name]
    folder = home() / "data" / name
    files = folder / f"interactions.{source.suffix}", folder / f"items.{source.suffix}"
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ConfigError(
            f"{name} is not on this machine, and hllm cannot fetch it: {folder} lacks {' and '.join(missing)}. Put "
            f"there interactions.{source.suffix} (columns item_id, user_id, timestamp) and items.{source.suffix} "
            f"(columns item_id, {source.text}). Source: {source.origin}"
        )
    return files
