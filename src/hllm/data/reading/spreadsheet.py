"""Read the first sheet of a spreadsheet as text, ids as they are shown."""

# Proved by tests/data/reading/test_spreadsheet.py.

import csv
import warnings
from functools import lru_cache
from pathlib import Path

import polars as pl

from hllm.data.reading.delimited import scan_text
from hllm.data.reading.form import Form
from hllm.data.reading.scratch import scratch_file, state_of
from hllm.errors import DataError, HllmWarning
from hllm.extras import require


def scan_sheet(path: Path, form: Form, *, name: Path) -> pl.LazyFrame:
    """Return the first sheet as columns of text; `name` stands in messages. Rows without a filled cell are none.

    Raises MissingExtraError without the extra `excel`, DataError for a file that is no spreadsheet.
    """
    copy = _copy(path, name, state_of(path))
    try:
        return scan_text(copy, Form(",", None, form.header, form.columns))
    except DataError as error:
        raise DataError(str(error).replace(str(copy), str(name))) from None


@lru_cache(maxsize=64)
def _copy(path: Path, name: Path, _state: tuple[int, ...]) -> Path:
    fastexcel = require("fastexcel", extra="excel", purpose=f"reading {name}")
    try:
        book = fastexcel.read_excel(str(path))
        sheet = book.load_sheet(0, header_row=None, dtypes="string").to_polars()
    except fastexcel.FastExcelError as error:
        raise DataError(f"{name} cannot be read as a spreadsheet: {str(error).splitlines()[0]}") from None
    if sheet.is_empty():
        raise DataError(f"{name} is empty: its first sheet, {book.sheet_names[0]!r}, holds nothing")
    if len(book.sheet_names) > 1:
        warnings.warn(
            f"{name} has {len(book.sheet_names)} sheets; the first, {book.sheet_names[0]!r}, is read",
            HllmWarning,
            stacklevel=2,
        )
    copy = scratch_file(".csv")
    with copy.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(sheet.fill_null("").iter_rows())
    return copy
