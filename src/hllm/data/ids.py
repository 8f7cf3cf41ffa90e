"""Ids of two tables are brought together: of one type, and alike but for what spreadsheets do to them."""

from typing import Any

import polars as pl

EXACT_IN_FLOATS = 2**53
"""Beyond this, neighbouring integers are one float."""

_STRIPPED = " \t\r\n\u00a0\u200b\ufeff'\"`"
_CAUSES = {"zeros in front": r"^(-?)0+(\d)", ".0 at the end": r"\.0+$"}


def whole(ids: pl.Series) -> pl.Series:
    """Return ids that are floats only for want of integers, such as 7.0 beside a missing one, as integers."""
    if not ids.dtype.is_float():
        return ids
    as_integers = ids.cast(pl.Int64, strict=False)
    return as_integers if (as_integers.cast(pl.Float64) == ids.cast(pl.Float64)).all() else ids


def exactly(ids: pl.Series, kind: Any) -> pl.Series:
    """Return ids as another type, null where they would not be the same.

    7.0 is 7; 1.7, True, "007", dates, and floats that stand for several integers are not.
    """
    if ids.dtype == kind:
        return ids
    if not (ids.dtype.is_numeric() or ids.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        return ids.clear(len(ids)).cast(kind, strict=False)
    if ids.dtype in (pl.Categorical, pl.Enum):
        ids = ids.cast(pl.String)
    if ids.dtype == pl.String and kind.is_integer():
        numbers = ids.cast(kind, strict=False)
        return numbers.set((numbers.cast(pl.String) != ids).fill_null(False), None)
    if ids.dtype.is_float() or ids.dtype.is_decimal():
        integers = ids.cast(pl.Int64, strict=False)
        if kind == pl.String or kind.is_integer():
            same = (integers.cast(ids.dtype) == ids).fill_null(False)
            if ids.dtype.is_float():
                same &= (ids.cast(pl.Float64).abs() < EXACT_IN_FLOATS).fill_null(False)
            texts = integers.cast(pl.String).zip_with(same, ids.cast(pl.String))
            ids = texts if kind == pl.String else integers.set(~same, None)
    return ids.cast(kind, strict=False)


def of_one_type(known: pl.Series, named: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return both ids as integers if all of them are, else as text; without missing ones."""
    known, named = whole(known), whole(named)
    if known.dtype == named.dtype:
        return known, named
    if known.dtype.is_integer() and named.dtype.is_integer():
        cast = named.cast(known.dtype, strict=False)
        if not cast.null_count():
            return known, cast
    return known.cast(pl.String), named.cast(pl.String)


def alike(known: pl.Series, unknown: pl.Series) -> pl.DataFrame:
    """Return which of `unknown` are a known id but for blanks, quotes, zeros in front or .0 at the end.

    The columns are `unknown` and `known`, positions in the two, and `cause`. An id that is like several known ones is
    like none. Both may be of any type; it is the same which of the two tables has lost its zeros.
    """
    forms = pl.DataFrame({"form": _form(known.cast(pl.String)), "known": range(len(known))})
    forms = forms.filter(pl.col("form").is_unique() & (pl.col("form") != ""))
    wanted = pl.DataFrame({"form": _form(unknown.cast(pl.String)), "unknown": range(len(unknown))})
    pairs = wanted.join(forms, on="form", how="inner", maintain_order="left")
    ours, theirs = unknown.cast(pl.String).gather(pairs["unknown"]), known.cast(pl.String).gather(pairs["known"])
    cause: Any = pl
    for name, pattern in _CAUSES.items():
        cause = cause.when(pl.col("ours").str.contains(pattern) != pl.col("theirs").str.contains(pattern)).then(
            pl.lit(name)
        )
    table = pl.DataFrame({"ours": _stripped(ours), "theirs": _stripped(theirs)})
    return pairs.select("unknown", "known").with_columns(
        table.select(cause.otherwise(pl.lit("blanks or quotes around")).alias("cause")).to_series()
    )


def causes(pairs: pl.DataFrame, known: pl.Series, unknown: pl.Series) -> str:
    """Return what keeps the ids apart, for people, with an example of each cause; "" if nothing does."""
    parts = []
    for cause, group in pairs.group_by("cause", maintain_order=True):
        first = group.row(0, named=True)
        ours, theirs = str(unknown[first["unknown"]]), str(known[first["known"]])
        parts.append(f"{ours!r} is {theirs!r} in the items ({len(group):,} differ by {cause[0]})")
    return ", ".join(parts)


def _stripped(ids: pl.Series) -> pl.Series:
    return ids.str.strip_chars(_STRIPPED)


def _form(ids: pl.Series) -> pl.Series:
    """Return what is left of an id without all that may have been lost or added."""
    return _stripped(ids).str.replace(r"^(-?\d+)\.0+$", "$1").str.replace(r"^(-?)0+(\d+)$", "$1$2")
