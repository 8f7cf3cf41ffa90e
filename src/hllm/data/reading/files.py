"""Find the files that a path names, scan each kind of table, and tell at which line a broken one is broken."""

import csv
import glob
import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from hllm.checked import check_files
from hllm.data.reading.bounds import require_few_columns, require_short_lines
from hllm.errors import DataError, first_few

KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
COMPRESSIONS = (".gz", ".zst")
EXPECTED = "expected .csv, .tsv, .jsonl, .ndjson (each also as .gz or .zst) or .parquet"
_BLOCK_BYTES = 32 << 20
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


def find_files(source: str | Path, *, name: str) -> list[Path]:
    """Return the files that a path, a glob such as "clicks-*.parquet" or a directory of Parquet parts names, sorted.

    `name` says in errors which table is meant. Raises DataError if there is none, or one of no bytes.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.glob("*.parquet") if not p.name.startswith((".", "_")))
        if not files:
            raise DataError(
                f"{name}: {path} is a directory without .parquet files; name a file, a directory of Parquet parts, "
                f'or files by a pattern such as "{path / "*.csv.gz"}"'
            )
    elif path.exists() or not glob.has_magic(str(path)):
        files = [path]
    else:
        files = sorted(file for file in _matches(path) if file.is_file())
        if not files:
            raise DataError(f"{name}: no file is called {path}; check the pattern, or name one file")
    for file in files:
        if not file.is_file():
            raise DataError(f"{name}: there is no file {file}")
        if file.stat().st_size == 0:
            raise DataError(f"{file} is empty: it has no bytes; {name} need a header and at least one row")
    kinds = {kind_of(file) for file in files}
    if len(kinds) > 1:
        raise DataError(
            f"{name}: {source} names files of more than one kind: {', '.join(sorted(kinds))}; name one kind"
        )
    check_files(files)
    return files


def _matches(pattern: Path) -> list[Path]:
    """Return what a pattern names; a part of it that is the name of a folder means that folder alone."""
    literal = Path(pattern.anchor)
    parts = list(pattern.relative_to(literal).parts)
    while parts and (not glob.has_magic(parts[0]) or (literal / parts[0]).exists()):
        literal /= parts.pop(0)
    return [literal / name for name in glob.glob("/".join(parts), root_dir=literal, recursive=True)]


def kind_of(path: Path) -> str:
    """Return ".csv", ".tsv", ".jsonl", ".ndjson" or ".parquet", compressed or not; DataError for anything else."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSIONS and suffixes[-2:-1] != [".parquet"]:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in KINDS:
        found = "".join(path.suffixes[-2:]) if path.suffix.lower() in COMPRESSIONS else path.suffix
        raise DataError(f"{path}: unknown kind of file {found!r}; {EXPECTED}")
    return suffixes[-1]


def scan_file(path: Path) -> pl.LazyFrame:
    """Return the file as a lazy frame: CSV and TSV as text throughout, JSON lines as they are typed there.

    Nothing but the header is read, except for JSON lines: their columns and types need one pass over the file, a block
    at a time, because a field may first appear in the last line. Raises DataError for a header that cannot be right.
    """
    kind = kind_of(path)
    if kind == ".parquet":
        return pl.scan_parquet(path, glob=False)
    require_short_lines(path, open_bytes)
    if kind in (".csv", ".tsv"):
        separator = "," if kind == ".csv" else "\t"
        _check_header(path, separator)
        return pl.scan_csv(
            path, infer_schema=False, separator=separator, quote_char='"' if kind == ".csv" else None, glob=False
        )
    return pl.scan_ndjson(glob.escape(str(path)), schema=_json_schema(path))  # it has no option `glob`


def open_bytes(path: Path) -> io.BufferedIOBase:
    """Open a file for reading, decompressed as its last suffix says."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path)
    if suffix == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
    return path.open("rb")


def find_fault(path: Path) -> str | None:
    """Read a text file line by line and say where it is broken and what to do; None if it looks whole.

    Slow: meant for a file that a fast reader has refused without naming the line.
    """
    kind = kind_of(path)
    if kind == ".parquet":
        return None
    try:
        with open_bytes(path) as file:
            if kind == ".csv":
                return _csv_fault(file)
            return _tsv_fault(file) if kind == ".tsv" else _json_fault(file)
    except (EOFError, OSError) as error:
        if path.suffix.lower() not in COMPRESSIONS:
            raise
        reason = "it ends in the middle" if isinstance(error, EOFError) else str(error)
        return f"the compressed data is damaged: {reason}. Copy or download the file again"


def _check_header(path: Path, separator: str) -> None:
    with open_bytes(path) as file:
        line = file.readline()
    text = line.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    names = next(csv.reader([text])) if separator == "," else text.split(separator)
    require_few_columns(names, name=f"the rows of {path}")
    if len(names) == 1:
        for other, word in _SEPARATORS.items():
            if other != separator and other in names[0]:
                raise DataError(
                    f"{path}, line 1: the header is one column, {names[0]!r}: its fields are separated by {word}, "
                    f"expected {_SEPARATORS[separator]}. "
                    + ("Rename the file to .tsv" if other == "\t" else "Rename the file to .csv" if other == "," else
                       f"Write it again with {_SEPARATORS[separator]}")
                )  # fmt: skip
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path}, line 1: the header names {first_few(twice)} more than once; give each column a name of its own"
        )


def _json_schema(path: Path) -> dict[str, Any]:
    """Return every field of a JSON-lines file with the type that all its values fit."""
    merged: dict[str, Any] = {}
    with open_bytes(path) as file:
        while block := b"".join(file.readlines(_BLOCK_BYTES)):
            if block.isspace():
                continue
            found = pl.read_ndjson(io.BytesIO(block), infer_schema_length=None).schema
            merged |= {name: _both(merged.get(name, kind), kind) for name, kind in found.items()}
    return merged


def _both(old: Any, new: Any) -> Any:
    """Return the type that holds values of both; text where they have nothing in common."""
    if old == new:
        return new
    try:
        both = pl.concat([pl.Series("", [], dtype=kind).to_frame() for kind in (old, new)], how="vertical_relaxed")
    except pl.exceptions.PolarsError:
        return pl.String()
    return both.schema[""]


def _lines(file: io.BufferedIOBase) -> Iterator[str]:
    """Yield decoded lines; ValueError, with the line number, at the first that is not UTF-8."""
    for number, line in enumerate(file, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"line {number}: not UTF-8 text: byte 0x{line[error.start]:02x} at position {error.start + 1}. "
                "Convert the file, for example: iconv -f latin1 -t utf-8"
            ) from None


def _csv_fault(file: io.BufferedIOBase) -> str | None:
    rows = csv.reader(_lines(file), strict=True)
    width = start = 0
    try:
        for row in rows:
            width = width or len(row)
            if len(row) > width:
                return _wrong_width(start + 1, len(row), width, "Quote fields that hold a comma")
            start = rows.line_num
    except ValueError as error:
        return str(error)
    except csv.Error as error:
        return f"line {start + 1}: {error}. A quoted field may start there and never end: close it, or double the quote"
    return None


def _tsv_fault(file: io.BufferedIOBase) -> str | None:
    width = 0
    try:
        for number, line in enumerate(_lines(file), start=1):
            fields = line.count("\t") + 1
            width = width or fields
            if fields > width:
                return _wrong_width(number, fields, width, "Take tabs out of the texts")
    except ValueError as error:
        return str(error)
    return None


def _wrong_width(line: int, found: int, expected: int, advice: str) -> str:
    return f"line {line}: found {found} fields, expected {expected}, as in the header. {advice}"


def _json_fault(file: io.BufferedIOBase) -> str | None:
    number = 0
    try:
        for number, line in enumerate(_lines(file), start=1):
            if not line.strip():
                continue
            if not isinstance(json.loads(line), dict):
                return f"line {number}: expected one JSON object a line, found {line.strip()[:40]!r}"
    except json.JSONDecodeError as error:
        if number == 1 and re.fullmatch(r"\s*[\[{]\s*", line):
            return "line 1: one JSON value over many lines; write one object a line"
        return f"line {number}: not JSON: {error.msg} at position {error.pos + 1}. Correct or remove the line"
    except ValueError as error:
        return str(error)
    return None
