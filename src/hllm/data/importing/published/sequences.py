"""Texts of numbers, as many papers' code reads them: SASRec has a user and an item a line, S3-Rec a user and all items.

Formats: https://github.com/kang205/SASRec (data/NAME.txt); https://github.com/RUCAIBox/CIKM2020-S3Rec (data/NAME.txt).
Both are in time order and have no times. Their numbers stand for ids that only the files they were made from know.
"""

# Proved by tests/data/importing/test_published.py.

import polars as pl

from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import scan_delimited
from hllm.errors import DataError


def read(source: Source) -> Tables:
    """Read a user and items in each line, oldest first."""
    path = find(source, "interactions", ["*.txt", "*.txt.gz"])
    lines = scan_delimited(path, "\x1f", ["line"], scratch=source.scratch, header=False)
    parts = pl.col("line").str.strip_chars().str.replace_all(r"[\s,]+", " ").str.split(" ")
    short = lines.filter(parts.list.len() < 2).head(1).collect(engine="streaming")
    if len(short):
        raise DataError(f"{path}: the line {short.item()[:60]!r} has a user and no item; expected USER ITEM …")
    rows = lines.select(user_id=parts.list.first(), item_id=parts.list.slice(1)).explode("item_id")
    rows = rows.with_row_index("timestamp").with_columns(pl.col("timestamp").cast(pl.Int64))
    return Tables(
        rows.select("user_id", "item_id", "timestamp"), None, files=(path,), time_unit="none",
        notes=("timestamp is the place in the file, which is in time order but has no times",),
    )  # fmt: skip
