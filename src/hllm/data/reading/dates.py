"""Dates in text are read in every usual form; the whole column decides whether the day or the month comes first."""

# Proved by tests/data/reading/test_dates.py.

from typing import Literal

import polars as pl
from polars.exceptions import PolarsError

from hllm.errors import ConfigError, DataError, first_few

Order = Literal["day/month/year", "month/day/year"]
_CLOCK = r"(?P<h>\d{1,2}):(?P<mi>\d{2})(?::(?P<s>\d{2})(?:[.,](?P<f>\d{1,9}))?)?\s*(?P<half>[AaPp]\.?[Mm]\.?)?"
_ZONE = r"\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2})?"
_TIME = rf"(?:(?:,|T|\s)\s*{_CLOCK}{_ZONE})?$"
_WEEKDAY = r"^(?:[A-Za-z]{3,9},?\s+)?"
_NAME = r"(?P<name>[A-Za-z]{3,9})\.?"
_FORMS = (
    rf"^(?P<y>\d{{4}})[-/.](?P<m>\d{{1,2}})[-/.](?P<d>\d{{1,2}}){_TIME}",  # 2020-01-02T10:11:12.5+01:00
    rf"^(?P<d>\d{{1,2}})\.(?P<m>\d{{1,2}})\.(?P<y>\d{{4}}|\d{{2}}){_TIME}",  # 2.1.2020 10:11
    rf"{_WEEKDAY}{_NAME}\s+(?P<d>\d{{1,2}})\s+{_CLOCK}{_ZONE}\s+(?P<y>\d{{4}})$",  # Mon Mar 02 14:05:30 +0000 2015
    rf"{_WEEKDAY}{_NAME}\s+(?P<d>\d{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<y>\d{{4}}){_TIME}",  # March 17, 2012 8:55 PM
    rf"{_WEEKDAY}(?P<d>\d{{1,2}})(?:st|nd|rd|th)?[-\s/.]{_NAME},?[-\s/.](?P<y>\d{{4}}|\d{{2}}){_TIME}",  # 07-Mar-2001
    r"^(?P<m>\d{1,2})\s+(?P<d>\d{1,2}),\s*(?P<y>\d{4})$",  # 03 7, 2012
)
_EITHER = rf"^(?P<a>\d{{1,2}})[-/](?P<b>\d{{1,2}})[-/](?P<y>\d{{4}}|\d{{2}}){_TIME}"  # 11/10/2020 7:15
EITHER_DATE = r"^(\d{1,2}[-/]\d{1,2}[-/](?:\d{4}|\d{2}))(?:\D|$)"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_GROUPS = ("y", "m", "d", "h", "mi", "s", "f", "half", "zone", "name")


def read_dates(text: pl.Series) -> tuple[pl.Series, Order | None]:
    """Return dates as microseconds since 1970, in UTC unless they say otherwise, and which order of parts was taken.

    What is no date is null. 11/10/2020 is read month first or day first, whichever reads more of the column's dates of
    this kind. Raises DataError if both read as many and differ.
    """
    stripped = text.str.strip_chars()
    times = _fast(stripped)
    for form in _FORMS:
        times = _filled(times, stripped, form)
    rest = stripped.filter(times.is_null() & stripped.str.contains(_EITHER))
    if not len(rest):
        return times, None
    forms: dict[Order, str] = {
        "day/month/year": _EITHER.replace("<a>", "<d>").replace("<b>", "<m>"),
        "month/day/year": _EITHER.replace("<a>", "<m>").replace("<b>", "<d>"),
    }
    readings = {order: _moments(rest, form) for order, form in forms.items()}
    day, month = readings.values()
    if day.count() == month.count() and not day.equals(month):
        sample = rest.filter(day.ne_missing(month)).head(3)
        clock = " %H:%M" if sample.str.contains(":").any() else ""
        separator = "/" if "/" in str(sample[0]) else "-"
        formats = ["%" + f"{separator}%".join(parts) + clock for parts in (("m", "d", "Y"), ("d", "m", "Y"))]
        how = "read month first and day first alike"
        if day.null_count() or month.null_count():
            how = "are partly month first and partly day first"
        raise DataError(
            f"{text.name!r} holds dates such as {first_few(sample)}, which {how}; set "
            f"data.time_format (--time-format), such as {formats[0]!r} or {formats[1]!r}"
        )
    order: Order = "day/month/year" if day.count() >= month.count() else "month/day/year"
    return _filled(times, stripped, forms[order]), order


def date_order(text: pl.Series) -> Order | None:
    """Return which part of dates such as 11/10/2020 comes first in a column; None if it has none such."""
    days = text.str.strip_chars().str.extract(EITHER_DATE, 1).drop_nulls().unique()
    return read_dates(days)[1] if len(days) else None


def read_format(column: pl.Series, time_format: str) -> pl.Series:
    """Return texts or whole numbers of a format, such as "%m/%d/%Y", as microseconds since 1970; null if they differ.

    Raises ConfigError for a format that cannot be right.
    """
    text = column.cast(pl.Int64, strict=False) if column.dtype.is_float() else column
    try:
        dates = text.cast(pl.String).str.strip_chars().str.to_datetime(time_format, strict=False, time_unit="us")
    except PolarsError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"data.time_format is {time_format!r}, which cannot be read: {reason}") from None
    return dates.cast(pl.Int64)


def _fast(text: pl.Series) -> pl.Series:
    """Return what polars reads by itself, if the column begins with a year; else nothing."""
    first = text.drop_nulls().head(1)
    if len(first) and first.str.contains(r"^\d{4}-\d\d-\d\d").item():
        try:
            return text.str.to_datetime(strict=False, time_unit="us").cast(pl.Int64)
        except PolarsError:  # not one value has the form that it looks for
            pass
    return pl.Series([None] * len(text), dtype=pl.Int64)


def _filled(times: pl.Series, text: pl.Series, form: str) -> pl.Series:
    """Return the times, with those that are not known yet and have this form."""
    rows = (times.is_null() & text.str.contains(form).fill_null(False)).arg_true()
    return times.scatter(rows, _moments(text.gather(rows), form)) if len(rows) else times


def _moments(text: pl.Series, form: str) -> pl.Series:
    """Return dates of one form as microseconds; null for a day or a month that there is not."""
    found = text.to_frame("text").select(pl.col("text").str.extract_groups(form)).unnest("text")
    found = found.with_columns(
        pl.lit(None, dtype=pl.String).alias(name) for name in _GROUPS if name not in found.columns
    )
    year = pl.col("y").cast(pl.Int64)
    year = pl.when(pl.col("y").str.len_chars() == 4).then(year).when(year < 70).then(2000 + year).otherwise(1900 + year)
    name = pl.col("name").str.head(3).str.to_lowercase().replace_strict(
        _MONTHS, range(1, 13), default=None, return_dtype=pl.Int64
    )  # fmt: skip
    month = pl.coalesce(pl.col("m").cast(pl.Int64), name)
    half = pl.col("half").str.to_lowercase().str.head(1)
    hour = pl.col("h").cast(pl.Int64).fill_null(0)
    hour = pl.when(half.is_null()).then(hour).when((hour < 1) | (hour > 12)).then(99).otherwise(
        hour % 12 + pl.when(half == "p").then(12).otherwise(0)
    )  # fmt: skip
    parts = (year, month, pl.col("d"), hour, pl.col("mi").fill_null("0"), pl.col("s").fill_null("0"))
    spelt = pl.concat_str(*(part.cast(pl.String).str.zfill(2) for part in parts), separator="-")
    whole = spelt.str.to_datetime("%Y-%m-%d-%H-%M-%S", strict=False, time_unit="us").cast(pl.Int64)
    fraction = pl.col("f").str.pad_end(6, "0").str.head(6).cast(pl.Int64).fill_null(0)
    zone = pl.col("zone").str.replace(":", "")
    minutes = zone.str.slice(1, 2).cast(pl.Int64, strict=False) * 60 + zone.str.slice(3, 2).cast(pl.Int64, strict=False)
    offset = (minutes * pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)).fill_null(0)
    return found.select(whole + fraction - offset * 60_000_000).to_series()
