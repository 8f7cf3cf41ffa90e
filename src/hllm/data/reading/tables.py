"""Read tables of interactions and items from text, JSON, Parquet, a spreadsheet or a data frame, ids exactly as given.

Each text kind may be compressed (.gz, .zst, .zip). A path may be a glob or a directory of Parquet parts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError
from pyarrow.lib import ArrowException

from hllm.data.reading.bounds import require_few_columns
from hllm.data.reading.files import RECORDS, find_fault, find_files, kind_of, scan_file
from hllm.data.reading.form import FOUND, Form
from hllm.errors import DataError, first_few, nearest

Table = pl.DataFrame | Path | str | Any
"""A polars or pandas data frame, or the path of one or many files that `read_table` reads."""


def read_table(source: Table, form: Form = FOUND, *, name: str) -> pl.DataFrame:
    """Return `source` as a polars frame. Columns of text files are read as text, so that id "007" stays "007".

    Lists of texts or integers become text, joined by ", ". `name` says in errors which table is meant. Raises DataError
    for a missing, empty or unreadable source, with the file and, where it can be found, the line.
    """
    with explained(source, form, name=name):
        frame = scan_table(source, form, name=name).collect()
    if frame.is_empty():
        place = str(source) if isinstance(source, str | Path) else f"the {name} frame"
        raise DataError(f"{place} is empty: it has {frame.width} columns and no rows; {name} need at least one row")
    return frame


def scan_table(source: Table, form: Form = FOUND, *, name: str) -> pl.LazyFrame:
    """Return `source` as `read_table` would, but lazily, for tables larger than memory.

    Only headers are checked here. Collect it inside `explained(source, name=name)`, so that what is found wrong further
    down is a DataError too; a table without rows is not an error.
    """
    if isinstance(source, str | Path):
        with explained(source, form, name=name):
            return _flat(_scan_files(find_files(source, name=name), form, name), name)
    if isinstance(source, pl.DataFrame):
        return _flat(source.lazy(), name)
    if type(source).__module__.split(".")[0] == "pandas" and hasattr(source, "columns"):
        return _flat(_from_pandas(source, name).lazy(), name)
    raise DataError(f"{name}: expected a path, or a polars or pandas frame, found {type(source).__name__}")


@contextmanager
def explained(source: Table, form: Form = FOUND, *, name: str) -> Iterator[None]:
    """Turn the errors of reading `source` into DataError; for files it names the one, and looks for the line."""
    try:
        yield
    except (PolarsError, OSError, EOFError, UnicodeDecodeError) as error:
        if not isinstance(source, str | Path):
            raise
        files = find_files(source, name=name)
        for file in files:
            find_fault(file, form)
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{source} cannot be read as {kind_of(files[0])[1:].upper()}: {reason}") from None


def require_columns(frame: pl.DataFrame, wanted: dict[str, str], *, name: str) -> None:
    """Raise DataError unless every column in `wanted` (config key -> column) exists in `frame`."""
    for key, column in wanted.items():
        if column not in frame.columns:
            hint = nearest(column, frame.columns)
            raise DataError(
                f"{name} have no column {column!r}{hint}; they have {', '.join(map(repr, frame.columns))}. "
                f"Name the right one with data.{key}"
            )


def _scan_files(files: list[Path], form: Form, name: str) -> pl.LazyFrame:
    """Return the files one after another; DataError if the columns of one differ from those of the first."""
    scans = [scan_file(file, form) for file in files]
    if len(files) == 1:
        return scans[0]
    schemas = [scan.collect_schema() for scan in scans]
    loose = kind_of(files[0]) in RECORDS  # a field that no line of a file has is no column of it
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        if problem := _difference(schemas[0], schema, loose=loose):
            raise DataError(
                f"{name}: {file} differs from {files[0]}: {problem}. Files of one table need the same columns: "
                "correct the file, or name fewer files"
            )
    if loose:
        return pl.concat(scans, how="diagonal_relaxed")
    return pl.concat([scan.select(schemas[0].names()) for scan in scans])


def _difference(first: dict[str, Any], other: dict[str, Any], *, loose: bool) -> str:
    if not loose and (missing := [c for c in first if c not in other]):
        return f"it has no column {missing[0]!r}{nearest(missing[0], other)}"
    if not loose and (extra := [c for c in other if c not in first]):
        return f"it has a column {extra[0]!r} more"
    for column, kind in other.items():
        old = first.get(column, kind)
        if kind != old and not (loose and pl.Null in (kind, old)):
            return f"column {column!r} is {kind}, not {old}"
    return ""


def _from_pandas(frame: Any, name: str) -> pl.DataFrame:
    """Return a pandas frame column by column: a column that holds values of several types becomes text."""
    columns = [str(column) for column in frame.columns]
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        raise DataError(f"{name}: several columns are called {first_few(twice)}; give each column a name of its own")
    series: list[pl.Series] = []
    for position, column in enumerate(columns):
        values = frame.iloc[:, position].rename(column)
        if hasattr(values, "sparse"):
            values = values.sparse.to_dense()
        try:
            series.append(pl.Series(pl.from_pandas(values)))
        except (ArrowException, PolarsError, TypeError, ValueError):
            texts = [None if blank else str(value) for value, blank in zip(values, values.isna(), strict=True)]
            series.append(pl.Series(column, texts, dtype=pl.String))
    return pl.DataFrame(series)


def _flat(frame: pl.LazyFrame, name: str) -> pl.LazyFrame:
    """Return the frame with bytes that are text, and lists of texts or integers, as text.

    Vectors of numbers, records and other bytes stay as they are.
    """
    schema = frame.collect_schema()
    require_few_columns(schema.names(), name=name)
    coded = [name for name, kind in schema.items() if kind == pl.Binary and _is_utf8(frame.select(name))]
    frame = frame.with_columns(pl.col(name).cast(pl.String) for name in coded)
    lists = {name: kind for name, kind in schema.items() if _is_list_of_texts(kind)}
    return frame.with_columns(_as_text(pl.col(name), kind).alias(name) for name, kind in lists.items())


def _is_utf8(column: pl.LazyFrame) -> bool:
    try:
        column.select(pl.all().cast(pl.String).count()).collect(engine="streaming")
    except PolarsError:
        return False
    return True


def _is_list_of_texts(kind: Any) -> bool:
    inner = kind
    while isinstance(inner, pl.List):
        inner = inner.inner
    return isinstance(kind, pl.List) and (inner == pl.String or inner == pl.Null or inner.is_integer())


def _as_text(value: pl.Expr, kind: Any) -> pl.Expr:
    if not isinstance(kind, pl.List):
        return value.cast(pl.String)
    parts = value.list.eval(_as_text(pl.element(), kind.inner))
    return parts.list.drop_nulls().list.join(", ")
