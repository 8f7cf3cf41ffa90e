"""Read files of records in bounded memory: JSON, Python literals, and fields between separators."""

# Proved by tests/data/importing/test_layouts.py.

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from hllm.data.reading.decoding import DecodedLines, spelling_of
from hllm.data.reading.opening import decompressed, open_bytes, polars_opens, undamaged
from hllm.data.reading.records import Record, read_values, require_record
from hllm.errors import DataError, first_few
from hllm.progress import Progress, progress

_BATCH = 50_000
_UNIT_BYTES = 1 << 20


class MissingValue(ValueError):
    """A record lacks what it cannot be used without, such as an id or a time."""


def convert(
    path: Path, to: Path, schema: Mapping[str, Any], row: Callable[[Record], tuple[Any, ...]]
) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    """Turn every record of a file of JSON, or of lines of Python literals, into a row of the Parquet file `to`.

    `row` returns the values of `schema`, or raises MissingValue to leave the record out, or ValueError for what cannot
    be right. Returns the table, and a note if records were left out. Raises DataError with file and line, also if all
    records would be left out. Only a batch of rows is in memory at once.
    """
    left_out = ""
    batch: list[tuple[Any, ...]] = []
    num_left_out = num_rows = number = 0
    total = max(1, path.stat().st_size // _UNIT_BYTES)
    with (
        pq.ParquetWriter(to, pl.DataFrame(schema=schema).to_arrow().schema) as writer,
        progress(f"{path.name}, MiB", total) as advance,
        undamaged(path),
        path.open("rb") as raw,
        decompressed(raw, path) as file,
    ):
        units = 0
        for number, value in read_values(path, file, literals=True):
            record = require_record(value, path, number)
            try:
                batch.append(row(record))
                num_rows += 1
            except MissingValue as error:
                num_left_out += 1
                left_out = left_out or f"the first is line {number}: {error}"
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}") from None
            if len(batch) == _BATCH:
                _write(writer, batch, schema)
                units = _show(advance, raw.tell(), units, total, number)
        _write(writer, batch, schema)
        advance(total - units, f"{number:,} lines")
    if num_left_out and not num_rows:
        raise DataError(f"{path}: not one of the {num_left_out:,} records can be used; {left_out}")
    notes = (f"{num_left_out:,} records of {path.name} were left out; {left_out}",) if num_left_out else ()
    return pl.scan_parquet(to, glob=False), notes


def scan_delimited(path: Path, separator: str, columns: Sequence[str], *, scratch: Path, header: bool) -> pl.LazyFrame:
    """Return a file of `separator`-delimited fields as text columns of these names; quotes mean nothing.

    Bytes that are not UTF-8 are read as Western European, with a warning, as in the older MovieLens sets. Raises
    DataError with the first line that has another number of fields.
    """
    lines = pl.scan_csv(
        _as_utf8(path, scratch), has_header=False, skip_lines=int(header), separator="\x1f", quote_char=None,
        infer_schema=False, new_columns=["line"], row_index_name="number", row_index_offset=1 + int(header), glob=False
    ).filter(pl.col("line").str.strip_chars() != "")  # fmt: skip
    parts = pl.col("line").str.split(separator)
    bad_lines = lines.filter(parts.list.len() != len(columns)).head(1).collect(engine="streaming")
    if len(bad_lines):
        number, line = bad_lines.row(0)
        raise DataError(
            f"{path}, line {number}: found {line.count(separator) + 1} fields between {separator!r}, expected "
            f"{len(columns)}: {', '.join(columns)}. The line is {line[:60]!r}"
        )
    return lines.select(parts.list.get(n).alias(name) for n, name in enumerate(columns))


def first_line(path: Path) -> str:
    """Return the first line of a text file, without its end."""
    with undamaged(path), open_bytes(path) as file:
        return next(DecodedLines(path, spelling_of(path, None)).read(file), "").rstrip("\r\n")


def typed(frame: pl.LazyFrame, types: Mapping[str, Any], *, path: Path) -> pl.LazyFrame:
    """Return the frame with these columns as these types; DataError names the first row where that cannot be.

    An empty cell is missing, which is no error here.
    """
    blanks = [pl.when(pl.col(name).cast(pl.String) != "").then(pl.col(name)).alias(name) for name in types]
    frame = frame.with_columns(blanks)
    for name, kind in types.items():
        is_wrong = _cast("cell", kind).is_null() & pl.col("cell").is_not_null()
        cells = frame.select(cell=pl.col(name)).with_row_index("row")
        bad_rows = cells.filter(is_wrong).head(1).collect(engine="streaming")
        if len(bad_rows):
            row, value = bad_rows.row(0)
            expected = "a whole number" if kind == pl.Int64 else "a number"
            raise DataError(
                f"{path}, data row {row + 1}: {name} is {value!r}, expected {expected}. Correct or remove the row"
            )
    return frame.with_columns(_cast(name, kind) for name, kind in types.items())


def _cast(name: str, kind: Any) -> pl.Expr:
    """Return a column as a type, null where it has another; 1111111111.0 is a whole number."""
    whole = pl.col(name).cast(kind, strict=False)
    if kind != pl.Int64:
        return whole
    number = pl.col(name).cast(pl.Float64, strict=False)
    return pl.coalesce(whole, pl.when(number == number.round()).then(number).cast(pl.Int64, strict=False))


def numbered(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return the frame with the number of the row, from 0, as its timestamp, in place of one that it may have."""
    rows = frame.drop("timestamp", strict=False).with_row_index("timestamp")
    return rows.with_columns(pl.col("timestamp").cast(pl.Int64))


def text(record: Record, *keys: str) -> str:
    """Return the first of `keys` that holds text or a number, as text; MissingValue if none does."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, str | int) and str(value).strip():
            return str(value)
    filled = [key for key, value in record.items() if value is not None]
    raise MissingValue(f"the record has no {' or '.join(map(repr, keys))}; it has {first_few(filled, 8)}")


def whole(record: Record, key: str) -> int:
    """Return a whole number, such as a time; MissingValue if there is none, ValueError for anything else."""
    value = record.get(key)
    if value is None or value == "":
        raise MissingValue(f"the record has no {key!r}")
    if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
        value = int(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value != int(value):
        raise ValueError(f"{key!r} is {value!r}, expected a whole number")
    return int(value)


def number(record: Record, key: str) -> float | None:
    """Return a number, None if there is none; ValueError for anything else."""
    value = record.get(key)
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{key!r} is {value!r}, expected a number") from None


def price(value: object) -> float | None:
    """Return a price such as 4.99 or "$1,004.99"; None for ranges and words, of which no one number can be made."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    plain = str(value).strip().removeprefix("$").replace(",", "")
    return float(plain) if re.fullmatch(r"\d+(\.\d+)?", plain) else None


def joined(value: object, separator: str) -> str | None:
    """Return a text as it is and a list's texts joined, empty ones left out; None if nothing is left."""
    parts = value if isinstance(value, list | tuple) else [value]
    return separator.join(p.strip() for p in parts if isinstance(p, str) and p.strip()) or None


def _write(writer: pq.ParquetWriter, batch: list[tuple[Any, ...]], schema: Mapping[str, Any]) -> None:
    if batch:
        table = pl.DataFrame(batch, schema=dict(schema), orient="row").to_arrow()
        writer.write_table(table.cast(writer.schema))
        batch.clear()


def _show(advance: Progress, position: int, units: int, total: int, lines: int) -> int:
    units_now = min(position // _UNIT_BYTES, total - 1)
    advance(units_now - units, f"{lines:,} lines")
    return units_now


def _as_utf8(path: Path, scratch: Path) -> Path:
    """Return the file itself if it is UTF-8, or a copy that is."""
    with undamaged(path):
        lines = DecodedLines(path, spelling_of(path, None))
        if lines.spelling.is_plain and polars_opens(path):
            with open_bytes(path) as file:
                for _ in lines.read(file):
                    if lines.num_odd or lines.num_nul:
                        break
                else:
                    return path
        lines = DecodedLines(path, lines.spelling)
        copy = scratch / f"{path.name}.utf-8"
        with open_bytes(path) as file, copy.open("w", encoding="utf-8", newline="") as out:
            out.writelines(lines.read(file))
    lines.warn()
    return copy
