"""Read files of one record a line in bounded memory: JSON, Python literals, and fields between separators."""

# Proved by tests/data/importing/test_layouts.py.

import ast
import gzip
import io
import json
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from hllm.data.reading.files import open_bytes
from hllm.errors import DataError, first_few
from hllm.progress import Progress, progress

_BATCH = 50_000
_UNIT_BYTES = 1 << 20
Record = dict[str, Any]


class MissingValue(ValueError):
    """A record lacks what it cannot be used without, such as an id or a time."""


def convert(
    path: Path, to: Path, schema: Mapping[str, Any], row: Callable[[Record], tuple[Any, ...]]
) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    """Turn every record of a file of JSON or Python-literal lines into a row of the Parquet file `to`.

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
        path.open("rb") as raw,
        _decompressed(raw, path) as file,
        warnings.catch_warnings(),
    ):
        for category in (SyntaxWarning, DeprecationWarning):  # Python literals with escapes such as "\d"
            warnings.simplefilter("ignore", category)
        units = 0
        for number, line in enumerate(_lines(file, path), start=1):
            if not line.strip():
                continue
            try:
                batch.append(row(parse(line)))
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


def parse(line: bytes) -> Record:
    """Return the record that a line of JSON, or of a Python literal, spells; nothing in it is ever run.

    Raises ValueError for anything but a dict with text for keys.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: byte 0x{line[error.start]:02x} at position {error.start + 1}") from None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as json_error:
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise ValueError(
                f"neither JSON ({json_error.msg} at position {json_error.pos + 1}) nor a Python literal: "
                f"{text.strip()[:60]!r}. Correct or remove the line"
            ) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a record {{…}}, found {text.strip()[:60]!r}")
    return value


def scan_delimited(path: Path, separator: str, columns: Sequence[str], *, scratch: Path, header: bool) -> pl.LazyFrame:
    """Return a file of `separator`-delimited fields as text columns of these names; quotes mean nothing.

    Text that is not UTF-8 is read as Latin-1, as in the older MovieLens sets. Raises DataError with the first line
    that has another number of fields.
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
    with open_bytes(path) as file:
        return file.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n")


def typed(frame: pl.LazyFrame, types: Mapping[str, Any], *, path: Path) -> pl.LazyFrame:
    """Return the frame with these columns as these types; DataError names the first row where that cannot be.

    An empty cell is missing, which is no error here.
    """
    blanks = [pl.when(pl.col(name).cast(pl.String) != "").then(pl.col(name)).alias(name) for name in types]
    frame = frame.with_columns(blanks)
    for name, kind in types.items():
        is_wrong = _cast(name, kind).is_null() & pl.col(name).is_not_null()
        bad_rows = frame.select(name).with_row_index("row").filter(is_wrong).head(1).collect(engine="streaming")
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
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
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


def _lines(file: Any, path: Path) -> Iterator[bytes]:
    number = 0
    try:
        for line in file:
            number += 1
            yield line
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path}, after line {number}: the compressed data is damaged ({error}). Download the file again"
        ) from None


def _decompressed(raw: Any, path: Path) -> Any:
    """Return the file to read lines from; `raw` tells how far that is."""
    match path.suffix.lower():
        case ".gz":
            return gzip.GzipFile(fileobj=raw)
        case ".zst":
            return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw), "zstd"))
    return raw


def _as_utf8(path: Path, scratch: Path) -> Path:
    """Return the file itself if it is UTF-8, or a copy that is, of what was Latin-1."""
    try:
        with open_bytes(path) as file:
            for line in file:
                line.decode()
        return path
    except (EOFError, OSError) as error:
        raise DataError(f"{path}: the compressed data is damaged ({error}). Download the file again") from None
    except UnicodeDecodeError:
        copy = scratch / f"{path.name}.utf-8"
        with open_bytes(path) as file, copy.open("wb") as out:
            for line in file:
                out.write(line.decode("latin-1").encode())
        return copy
