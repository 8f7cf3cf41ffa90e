"""Turn times, or whatever orders interactions, into integers that sort the same way."""

# Proved by tests/data/reading/test_times.py, tests/data/test_dataset.py.

from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import polars as pl
from jaxtyping import Int

from hllm.data.reading.dates import read_dates, read_format
from hllm.errors import DataError

_YEAR_1973, _YEAR_5138 = 10**8, 10**11  # seconds since 1970
_FIRST_DAY, _LAST_DAY = 19000101, 21001231


def as_integers(column: pl.Series, time_format: str | None = None) -> pl.Series:
    """Return numbers or dates as Int64 in their order: microseconds for dates, millionths for fractions.

    Text is read as numbers if at least half of it reads as such, else as dates, as `dates.read_dates` does; numbers and
    text are dates of `time_format`, if that is given. What cannot be read is null. Raises DataError for a column of
    another type, and for dates whose day and month cannot be told apart.
    """
    if time_format is not None and not isinstance(column.dtype, pl.Date | pl.Datetime):
        times = read_format(column, time_format)
    elif isinstance(column.dtype, pl.Date | pl.Datetime):
        times = column.cast(pl.Datetime("us")).cast(pl.Int64)
    elif column.dtype.is_integer():
        times = column.cast(pl.Int64, strict=False)
    elif column.dtype.is_float():
        times = _from_floats(column)
    elif column.dtype == pl.String:
        times = _from_text(column)
    else:
        raise DataError(
            f"{column.name!r} is of type {column.dtype}; expected numbers, dates, or text that reads as such"
        )
    return times.alias("timestamp")


def seconds_per_unit(column: pl.Series, unit: str, time_format: str | None = None) -> float | None:
    """Return what 1 in `as_integers(column)` is in seconds; `unit` is that of numbers. None: they only order."""
    if time_format is not None:
        return 1e-6
    if not column.dtype.is_numeric() and _is_dates(column):
        return 1e-6
    size = {"s": 1.0, "ms": 1e-3, "us": 1e-6}.get(unit)
    if size is not None and _reads_as_fractions(column):
        size *= 1e-6
    return size


def better_clock(stamps: Int[np.ndarray, " interaction"], seconds_per_unit: float | None) -> str | None:
    """Return the key of `[data]` under which numbers are times of our days, if they are none as they are read now."""
    if seconds_per_unit not in (1.0, 1e-3) or not len(stamps):
        return None
    first, last = int(stamps.min()), int(stamps.max())
    if seconds_per_unit == 1.0 and _FIRST_DAY <= first and last <= _LAST_DAY:
        days = pl.Series(np.unique(stamps)).cast(pl.String).str.to_date("%Y%m%d", strict=False)
        return None if days.null_count() else 'data.time_format = "%Y%m%d"'
    for unit, size in (("ms", 1000), ("us", 1_000_000)):
        is_finer = size * seconds_per_unit > 1
        if is_finer and first >= size * _YEAR_1973 and last * seconds_per_unit >= _YEAR_5138 > last / size:
            return f'data.time_unit = "{unit}"'
    return None


def as_moment(value: str | int | float) -> Fraction:
    """Return the seconds since 1970 of a number of them or of a date, with or without a time, in UTC unless it says.

    Raises ValueError for what is neither.
    """
    try:
        if not isinstance(value, str):
            return Fraction(value)
        date = datetime.fromisoformat(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{value!r} is no date such as 2024-05-31 or 2024-05-31 12:00:00, and no time") from None
    since = (date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return Fraction(since.days * 86_400 + since.seconds) + Fraction(since.microseconds, 1_000_000)


def _is_dates(column: pl.Series) -> bool:
    return column.dtype != pl.String or not _mostly_numbers(column)


def _mostly_numbers(text: pl.Series) -> bool:
    """Tell whether at least half of the texts are numbers: a few that are damaged do not make dates of the rest."""
    return 2 * text.str.strip_chars().cast(pl.Float64, strict=False).count() >= text.count()


def _reads_as_fractions(column: pl.Series) -> bool:
    """Tell whether `as_integers` made millionths of the numbers."""
    if column.dtype.is_integer():
        return False
    column = column.str.strip_chars() if column.dtype == pl.String else column
    numbers = _finite(column.cast(pl.Float64, strict=False)).drop_nulls()
    return bool((numbers != numbers.round()).any())


def _finite(numbers: pl.Series) -> pl.Series:
    return numbers.set(numbers.is_nan() | numbers.is_infinite(), None)


def _from_floats(column: pl.Series) -> pl.Series:
    """Keep whole numbers as they are; fractions keep their order as millionths."""
    finite = _finite(column)
    return ((finite * 1e6).round() if _reads_as_fractions(finite) else finite).cast(pl.Int64, strict=False)


def _from_text(text: pl.Series) -> pl.Series:
    if _mostly_numbers(text):
        text = text.str.strip_chars()
        integers, floats = (text.cast(kind, strict=False) for kind in (pl.Int64, pl.Float64))
        return integers if integers.count() == _finite(floats).count() else _from_floats(floats)
    times = read_dates(text)[0]
    return pl.select(pl.coalesce(times, _clock_numbers(text.str.strip_chars()))).to_series()


def _clock_numbers(text: pl.Series) -> pl.Series:
    """Return the whole numbers among dates as microseconds, if they are so large that their unit is plain."""
    number = pl.col("number")
    unit = pl.when(number < _YEAR_5138).then(1_000_000).when(number < 1000 * _YEAR_5138).then(1000).otherwise(1)
    numbers = text.cast(pl.Int64, strict=False).alias("number").to_frame()
    return numbers.select(pl.when(number >= _YEAR_1973).then(number * unit)).to_series()
