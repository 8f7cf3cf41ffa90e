"""Read a table of interactions or items from CSV, TSV, Parquet or a data frame, ids exactly as given."""

from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from hllm.errors import DataError, nearest

Table = pl.DataFrame | Path | str | Any
"""A polars or pandas data frame, or the path of a .csv, .tsv or .parquet file."""


def read_table(source: Table, *, name: str) -> pl.DataFrame:
    """Return `source` as a polars frame. CSV and TSV columns are read as text, so that id "007" stays "007".

    `name` says in errors which table is meant. Raises DataError for a missing, empty or unreadable source.
    """
    if isinstance(source, str | Path):
        frame = _read_file(Path(source), name)
        place = str(source)
    elif isinstance(source, pl.DataFrame):
        frame, place = source, f"the {name} frame"
    elif type(source).__module__.split(".")[0] == "pandas":
        frame, place = pl.from_pandas(source), f"the {name} frame"
    else:
        raise DataError(f"{name}: expected a path, or a polars or pandas frame, found {type(source).__name__}")
    if frame.is_empty():
        raise DataError(f"{place} is empty: it has {frame.width} columns and no rows; {name} need at least one row")
    return frame


def require_columns(frame: pl.DataFrame, wanted: dict[str, str], *, name: str) -> None:
    """Raise DataError unless every column in `wanted` (config key -> column) exists in `frame`."""
    for key, column in wanted.items():
        if column not in frame.columns:
            hint = nearest(column, frame.columns)
            raise DataError(
                f"{name} have no column {column!r}{hint}; they have {', '.join(map(repr, frame.columns))}. "
                f"Name the right one with data.{key}"
            )


def _read_file(path: Path, name: str) -> pl.DataFrame:
    if not path.is_file():
        raise DataError(f"{name}: there is no file {path}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty: it has no bytes; {name} need a header and at least one row")
    try:
        match path.suffix.lower():
            case ".parquet":
                return pl.read_parquet(path)
            case ".csv":
                return pl.read_csv(path, infer_schema=False)
            case ".tsv":
                return pl.read_csv(path, infer_schema=False, separator="\t", quote_char=None)
    except (PolarsError, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{path} cannot be read as {path.suffix[1:].upper()}: {reason}") from None
    raise DataError(f"{path}: unknown kind of file {path.suffix!r}; expected .csv, .tsv or .parquet")
