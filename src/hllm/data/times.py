"""Whatever orders interactions, as integers that sort the same way."""

from datetime import UTC, datetime
from fractions import Fraction

import polars as pl
from polars.exceptions import ComputeError

from hllm.errors import DataError, first_few


def as_integers(column: pl.Series) -> pl.Series:
    """Return numbers or dates as Int64 in their order: microseconds for dates, millionths for fractions.

    Text is read as integers, else as decimal numbers, else as dates. Raises DataError for what is none of these.
    """
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        times = column.cast(pl.Datetime("us")).cast(pl.Int64)
    elif column.dtype.is_integer():
        times = column.cast(pl.Int64, strict=False)
    elif column.dtype.is_float():
        times = _from_floats(column)
    elif column.dtype == pl.String:
        times = _first_that_reads(column)
    else:
        raise DataError(
            f"{column.name!r} is of type {column.dtype}; expected numbers, dates, or text that reads as such"
        )
    bad = column.filter(times.is_null())
    if len(bad):
        raise DataError(
            f"{len(bad):,} of {len(column):,} interactions have no readable time in {column.name!r}; first: "
            f"{first_few(bad)}. Expected a number, or a date such as 2024-05-31 12:00:00"
        )
    return times.alias("timestamp")


def seconds_per_unit(column: pl.Series, unit: str) -> float | None:
    """Return what 1 in `as_integers(column)` is in seconds; `unit` is that of numbers. None: they only order."""
    if not column.dtype.is_numeric() and _is_dates(column):
        return 1e-6
    size = {"s": 1.0, "ms": 1e-3, "us": 1e-6}.get(unit)
    if size is not None and _reads_as_fractions(column):
        size *= 1e-6
    return size


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
    return column.dtype != pl.String or column.cast(pl.Float64, strict=False).null_count() > column.null_count()


def _reads_as_fractions(column: pl.Series) -> bool:
    """Tell whether `as_integers` made millionths of the numbers."""
    if column.dtype.is_integer():
        return False
    numbers = column.cast(pl.Float64, strict=False).drop_nulls()
    return bool((numbers != numbers.round()).any())


def _from_floats(column: pl.Series) -> pl.Series:
    """Keep whole numbers as they are; fractions keep their order as millionths."""
    finite = column.set(column.is_nan() | column.is_infinite(), None)
    whole = (finite.drop_nulls() == finite.drop_nulls().round()).all()
    return (finite if whole else (finite * 1e6).round()).cast(pl.Int64, strict=False)


def _first_that_reads(text: pl.Series) -> pl.Series:
    integers = text.cast(pl.Int64, strict=False)
    if integers.null_count() == text.null_count():
        return integers
    floats = text.cast(pl.Float64, strict=False)
    if floats.null_count() == text.null_count():
        return _from_floats(floats)
    try:
        return text.str.to_datetime(strict=False, time_unit="us").cast(pl.Int64)
    except ComputeError:  # not even one value looks like a date
        return pl.Series([None] * len(text), dtype=pl.Int64)
