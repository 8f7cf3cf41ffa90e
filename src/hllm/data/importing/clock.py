"""The clock of imported interactions: the unit of numeric times, and how dates are read, by the whole column."""

# Proved by tests/data/importing/test_import_layout.py.

from pathlib import Path
from typing import Any

import polars as pl

from hllm.data.reading.dates import EITHER_DATE, read_dates

_UNITS = ((1e14, "us"), (1e11, "ms"))  # as seconds, these would be the years 5138 and later
_DAYS = (19000101, 21001231)


def clock_of(log: Path, time_format: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return keys of `[data]` that the times of a written table need, and what a person should know of them.

    Raises DataError where the day and the month of dates cannot be told apart, and no format is given.
    """
    rows = pl.scan_parquet(log, glob=False).select("timestamp")
    kind = rows.collect_schema()["timestamp"]
    if time_format is not None:
        return {"time_format": time_format}, []
    if not kind.is_numeric() and kind != pl.String:
        return {}, []
    time = pl.col("timestamp").str.strip_chars() if kind == pl.String else pl.col("timestamp")
    number = time.cast(pl.Float64, strict=False)
    is_day = time.cast(pl.String).str.replace(r"\.0+$", "").str.to_date("%Y%m%d", strict=False).is_not_null()
    is_day &= number.is_between(*_DAYS)
    facts = rows.select(texts=time.count(), numbers=number.count(), last=number.max(), days=is_day.sum())
    num_texts, num_numbers, last, num_days = facts.collect(engine="streaming").row(0)
    if 2 * num_numbers < num_texts:
        days = rows.select(time.str.extract(EITHER_DATE, 1)).drop_nulls().unique().collect(engine="streaming")
        order = read_dates(days.to_series())[1] if len(days) else None
        return {}, [f"timestamp is read as {order}"] if order else []
    if num_days == num_texts:
        return {"time_format": "%Y%m%d"}, ["timestamp holds days such as 20240531"]
    unit = next((unit for least, unit in _UNITS if last is not None and last >= least), None)
    return ({"time_unit": unit}, []) if unit else ({}, [])
