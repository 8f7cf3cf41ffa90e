"""Find the files that a path names, scan each kind of table, and tell at which line a broken one is broken."""

import glob
import shutil
from functools import lru_cache
from pathlib import Path

import polars as pl

from hllm.checked import check_files
from hllm.data.reading.bounds import require_short_lines
from hllm.data.reading.delimited import find_fault_of_rows, scan_text
from hllm.data.reading.form import FOUND, Form
from hllm.data.reading.opening import member, open_bytes, undamaged
from hllm.data.reading.records import read_values, require_record, scan_records
from hllm.data.reading.scratch import scratch_file, state_of
from hllm.data.reading.spreadsheet import scan_sheet
from hllm.errors import ConfigError, DataError

TEXTS = (".csv", ".tsv", ".tab", ".psv", ".txt", ".dat", ".data", ".inter", ".item")
RECORDS = (".json", ".jsonl", ".ndjson")
KINDS = (*TEXTS, *RECORDS, ".parquet", ".xlsx")
COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
EXPECTED = (
    "expected .csv, .tsv, .txt, .dat, .json, .jsonl (each also as .gz, .zst, .bz2, .xz or .zip), .parquet or .xlsx"
)


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
    """Return one of KINDS, compressed or not, for a .zip that of the table in it; DataError for anything else."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if not suffixes:
        return ".txt"
    if suffixes[-1:] == [".zip"]:
        return kind_of(path.parent / member(path)) if path.is_file() else ".zip"
    if suffixes and suffixes[-1] in COMPRESSIONS and suffixes[-2:-1] not in ([".parquet"], [".xlsx"]):
        suffixes.pop()
    if not suffixes or suffixes[-1] not in KINDS:
        found = "".join(path.suffixes[-2:]) if path.suffix.lower() in COMPRESSIONS else path.suffix
        raise DataError(f"{path}: unknown kind of file {found!r}; {EXPECTED}")
    return suffixes[-1]


def is_text(path: Path) -> bool:
    """Tell whether the cells of a table are texts throughout, whatever they hold."""
    return kind_of(path) in (*TEXTS, ".xlsx")


def scan_file(path: Path, form: Form = FOUND) -> pl.LazyFrame:
    """Return the file as a lazy frame: fields between separators as text throughout, JSON as it is typed there.

    A text file is looked through once, in bounded memory; one that polars would not read rightly is copied first.
    Raises DataError for what cannot be right, ConfigError for names of columns where the file has its own.
    """
    kind = kind_of(path)
    if form.columns is not None and kind in (*RECORDS, ".parquet"):
        raise ConfigError(
            f"{path} names its columns itself; leave out {', '.join(form.columns)}, or rename the columns in the file"
        )
    if kind == ".parquet":
        return pl.scan_parquet(_unpacked(path, state_of(path)), glob=False)
    if kind == ".xlsx":
        return scan_sheet(_unpacked(path, state_of(path)), form, name=path)
    require_short_lines(path, open_bytes)
    return scan_records(path, form) if kind in RECORDS else scan_text(path, form)


def find_fault(path: Path, form: Form = FOUND) -> None:
    """Read a text file line by line, and raise DataError where it is broken; slow.

    It is meant for a file that a fast reader has refused without naming the line.
    """
    kind = kind_of(path)
    if kind in TEXTS:
        find_fault_of_rows(path, form)
    elif kind in RECORDS:
        with undamaged(path), open_bytes(path) as file:
            for number, value in read_values(path, file, form):
                require_record(value, path, number)


@lru_cache(maxsize=64)
def _unpacked(path: Path, _state: tuple[int, ...]) -> Path:
    """Return the file itself, or a copy of what a .zip holds."""
    if path.suffix.lower() != ".zip":
        return path
    copy = scratch_file(Path(member(path)).suffix)
    with undamaged(path), open_bytes(path) as file, copy.open("wb") as out:
        shutil.copyfileobj(file, out)
    return copy
