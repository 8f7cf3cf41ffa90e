"""A file of fields is declared by its columns: their names in a header, or their order, and what is in them."""

# Proved by tests/data/importing/test_published.py.

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from hllm.data.importing.layout import Source, find
from hllm.data.reading.delimited import scan_text
from hllm.data.reading.form import Form
from hllm.data.reading.lines import first_line, scan_delimited, typed
from hllm.errors import DataError, nearest

TimeUnit = Literal["s", "ms", "us", "none"]
_SEPARATORS = ("\t", "::", ";", "|", ",")
_QUOTED = (";", ",")
_UNITS: tuple[tuple[float, TimeUnit], ...] = ((1e14, "us"), (1e11, "ms"))  # seconds would be the years beyond 5138


@dataclass(frozen=True)
class Fields:
    """Columns of one file of a layout."""

    names: Mapping[str, str]
    """Our name of each column, and its names in a header, between bars; case, blanks and signs do not count."""
    optional: tuple[str, ...] = ()
    """Columns that the file may lack."""
    order: tuple[str, ...] = ()
    """Our names by place, for a file without a header; such a file is refused if this is empty."""
    numbers: tuple[str, ...] = ()
    """Columns that hold numbers; all others are text."""
    time_format: str | None = None
    """Format of the column `timestamp`, if it is a text that is no ISO date."""

    def read(self, path: Path, source: Source) -> pl.LazyFrame:
        """Return the columns of the file that are known, under our names; DataError if it lacks one.

        Separator, quotes, and whether there is a header, are found in the first line.
        """
        line = first_line(path)
        separator = next((each for each in _SEPARATORS if each in line), ",")
        cells = next(csv.reader([line], delimiter=separator)) if separator in _QUOTED else line.split(separator)
        ours = self._named(cells)
        header = len(ours) >= min(2, len(self.names) - len(self.optional))
        if not header:
            ours = dict(zip(self.order, range(len(cells)), strict=True)) if len(cells) == len(self.order) else {}
        if missing := [name for name in self.names if name not in ours and name not in self.optional]:
            wanted = ", ".join(name.split("|")[0] for ours, name in self.names.items() if ours not in self.optional)
            expected = self.names[missing[0]].split("|")[0]
            raise DataError(
                f"{path}, line 1: no column {expected!r}{nearest(expected, cells)}; expected {wanted}; "
                f"found {', '.join(cells)}"
            )
        named = {place: name for name, place in ours.items()}
        places = [named.get(place, f"field {place + 1}") for place in range(len(cells))]
        if separator in _QUOTED:
            rows = scan_text(path, Form(separator, columns=tuple(places)))
            rows = rows.slice(1) if header else rows
        else:
            rows = scan_delimited(path, separator, places, scratch=source.scratch, header=header)
        rows = rows.select(name for name in self.names if name in ours)
        kinds = {name: pl.Float64 if name in self.numbers else pl.String for name in self.names if name in ours}
        return typed(rows, kinds, path=path)

    def read_times(self, rows: pl.LazyFrame, path: Path) -> tuple[pl.LazyFrame, TimeUnit]:
        """Return the rows with times as whole numbers, and their unit; ISO dates stay as they are."""
        text = pl.col("timestamp").str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False)
        counts = rows.select(all=text.count(), numbers=numbers.count(), last=numbers.max()).collect(engine="streaming")
        num_texts, num_numbers, last = counts.row(0)
        if 2 * num_numbers >= num_texts:
            times = pl.coalesce(text.cast(pl.Int64, strict=False), numbers.round().cast(pl.Int64, strict=False))
            expected = "a whole number"
        elif self.time_format is not None:
            times = text.str.to_datetime(self.time_format, strict=False, time_unit="us").dt.epoch("s")
            expected = f"a time like {self.time_format}"
        else:
            return rows, "s"
        bad = rows.select("timestamp", wrong=times.is_null() & text.is_not_null()).with_row_index("row").filter("wrong")
        first = bad.head(1).collect(engine="streaming")
        if len(first):
            row, value, _ = first.row(0)
            raise DataError(f"{path}, data row {row + 1}: timestamp is {value!r}, expected {expected}")
        unit: TimeUnit = "s"
        if 2 * num_numbers >= num_texts:
            unit = next((unit for least, unit in _UNITS if last is not None and last >= least), "s")
        return rows.with_columns(times.alias("timestamp")), unit

    def _named(self, cells: Iterable[str]) -> dict[str, int]:
        """Return the place of each of our columns that a line names; nothing if it is no header."""
        places = {_bare(cell): place for place, cell in reversed(list(enumerate(cells)))}
        wanted = {ours: [_bare(name) for name in (*names.split("|"), ours)] for ours, names in self.names.items()}
        return {ours: places[name] for ours, names in wanted.items() for name in names[::-1] if name in places}


def read_log(
    source: Source, fields: Fields, patterns: list[str], *, but_not: tuple[str, ...] = ()
) -> tuple[pl.LazyFrame, TimeUnit, Path]:
    """Return the interactions of the file that fits, user, item and time first; the unit of the times; the file."""
    path = find(source, "interactions", patterns, but_not=but_not)
    rows, unit = fields.read_times(fields.read(path, source), path)
    return keys_first(rows), unit, path


def keys_first(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the columns with user, item and time first."""
    keys = ("user_id", "item_id", "timestamp")
    return rows.select(*keys, *(name for name in rows.collect_schema() if name not in keys))


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()
