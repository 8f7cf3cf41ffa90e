"""The clock of imported interactions: the unit of numeric times, and how dates are read, by the whole column."""

# Proved by tests/data/importing/test_import_layout.py.

from pathlib import Path
from typing import Any

import polars as pl

from hllm.data.reading.dates import EITHER_DATE, read_dates, read_format
from hllm.errors import DataError, first_few

_UNITS = ((1e14, "us"), (1e11, "ms"))  # as seconds, these would be the years 5138 and later
_DAYS = (19000101, 21001231)


def clock_of(log: Path, time_format: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return keys of `[data]` that the times of a written table need, and what a person should know of them.

    Raises DataError where the day and the month of dates cannot be told apart, and no format is given.
    """
    rows = pl.scan_parquet(log, glob=False).select("timestamp")
    kind = rows.collect_schema()["timestamp"]
    if time_format is not None:
        return {"time_format": time_format}, _unread(rows, time_format)
    if not kind.is_numeric() and kind != pl.String:
        return {}, []
    time = pl.col("timestamp").str.strip_chars() if kind == pl.String else pl.col("timestamp")
    number = time.cast(pl.Float64, strict=False)
    is_day = time.cast(pl.String).str.replace(r"\.0+$", "").str.to_date("%Y%m%d", strict=False).is_not_null()
    is_day &= number.is_between(*_DAYS)
    facts = rows.select(texts=time.count(), numbers=number.count(), last=number.max(), days=is_day.sum())
    num_texts, num_numbers, last, num_days = facts.collect(engine="streaming").row(0)
    if 2 * num_numbers < num_texts:
        day = time.str.extract(EITHER_DATE, 1)
        firsts = rows.filter(day.is_not_null()).group_by(day.alias("day")).agg(time.first()).sort("day")
        dates = firsts.collect(engine="streaming")["timestamp"]
        order = read_dates(dates)[1] if len(dates) else None
        return {}, [f"timestamp is read as {order}"] if order else []
    if num_days == num_texts:
        return {"time_format": "%Y%m%d"}, ["timestamp holds days such as 20240531"]
    unit = next((unit for least, unit in _UNITS if last is not None and last >= least), None)
    return ({"time_unit": unit}, []) if unit else ({}, [])


def _unread(rows: pl.LazyFrame, time_format: str) -> list[str]:
    """Return a note of the times that are not of the format; DataError if none is."""
    values = rows.unique().collect(engine="streaming").to_series()
    if isinstance(values.dtype, pl.Date | pl.Datetime):
        return []
    wrong = values.filter(read_format(values, time_format).is_null())
    if len(wrong) == len(values):
        raise DataError(f"not one time is of the format {time_format!r}: they are such as {first_few(wrong.sort())}")
    return [f"times such as {first_few(wrong.sort())} are not of the format {time_format!r}"] if len(wrong) else []
