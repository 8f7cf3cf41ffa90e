"""Check the caller's tables: each fault knows its rows and its policy, and one error names them all."""

# Proved by tests/data/test_build.py.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from jaxtyping import Int

from hllm.errors import DataError

TableName = Literal["interactions", "items"]
Policy = Literal["error", "drop", "keep"]
_SHOWN = 3


@dataclass(frozen=True)
class Fault:
    """Rows of one table with one fault."""

    name: str
    """The key of the `[data]` table that says what to do about it; "repeated_texts" has none."""
    table: TableName
    policy: Policy
    total: int
    """Number of rows in the table."""
    rows: Int[np.ndarray, " row"]
    """The faulty rows, counted from 0 in the table as it was read."""
    what: str
    """Goes on after "3 of 10 interactions …"."""
    advice: str
    values: tuple[Any, ...] = ()
    """Values of the first few rows, where they say more than the rows' numbers."""

    @property
    def first_rows(self) -> list[int]:
        """Return the numbers of the first few faulty rows, counted from 1, the header not counted."""
        return [int(row) + 1 for row in self.rows[:_SHOWN]]

    @property
    def first(self) -> str:
        """Return the first few rows and what stands in them, for people."""
        values = [f" ({value!r})" for value in self.values] or [""] * len(self.first_rows)
        return ", ".join(f"{row}{value}" for row, value in zip(self.first_rows, values, strict=True))

    def __str__(self) -> str:
        return (
            f"{len(self.rows):,} of {self.total:,} {self.table} {self.what}; first in data rows {self.first}. "
            f"{self.advice}"
        )

    def facts(self) -> dict[str, Any]:
        """Return the fault as JSON-able values."""
        return {
            "fault": self.name,
            "table": self.table,
            "policy": self.policy,
            "rows": len(self.rows),
            "of": self.total,
            "first_rows": self.first_rows,
            "first_values": [str(value) for value in self.values],
        }


def errors(faults: Sequence[Fault]) -> list[str]:
    """Return a sentence for each fault whose policy is "error"."""
    return [str(fault) for fault in faults if fault.policy == "error" and len(fault.rows)]


def refuse(reasons: Sequence[str]) -> None:
    """Raise one DataError that gives all reasons, if there are any."""
    if len(reasons) == 1:
        raise DataError(reasons[0])
    if reasons:
        raise DataError("\n".join([f"the tables are wrong in {len(reasons)} ways:", *(f"- {r}" for r in reasons)]))


def rows_where(mask: pl.Series) -> Int[np.ndarray, " row"]:
    """Return the positions of True."""
    return np.flatnonzero(mask.to_numpy())


def is_missing(ids: pl.Series) -> pl.Series:
    """Return True for each id that is null, not a number, or an empty text."""
    if ids.dtype == pl.String:
        return ids.is_null() | (ids == "").fill_null(False)
    if ids.dtype.is_float():
        return ids.is_null() | ids.is_nan().fill_null(False)
    return ids.is_null()


def without_text(items: pl.DataFrame, text_cols: tuple[str, ...]) -> pl.Series:
    """Return True for each item whose text columns are all empty; False throughout if there are no such columns."""
    if not text_cols:
        return pl.repeat(False, len(items), eager=True)
    return items.select(pl.all_horizontal([text == "" for text in _texts(text_cols)])).to_series()


def item_faults(
    items: pl.DataFrame, item_col: str, text_cols: tuple[str, ...], policies: Mapping[str, Policy]
) -> list[Fault]:
    """Return the faults of a table of items, those that no row has included; without text columns none of texts."""
    ids = items[item_col]
    missing, empty = is_missing(ids), without_text(items, text_cols)
    again = ~ids.is_first_distinct() & ~missing
    repeated = pl.repeat(False, len(items), eager=True)
    if text_cols:
        first = items.select(pl.struct(_texts(text_cols)).is_first_distinct()).to_series()
        repeated = ~first & ~empty & ~missing & ~again

    def fault(name: str, mask: pl.Series, what: str, advice: str, shown: pl.Series | None = None) -> Fault:
        rows = rows_where(mask)
        values = () if shown is None else tuple(shown.gather(rows[:_SHOWN]))
        return Fault(name, "items", policies.get(name, "keep"), len(items), rows, what, advice, values)

    columns = ", ".join(map(repr, text_cols))
    return [
        fault("missing_item_ids", missing, f"have no {item_col}", how_to("Fill it in", "missing_item_ids")),
        fault(
            "duplicate_items",
            again,
            f"repeat the {item_col} of an earlier row",
            how_to("Keep one row for each item", "duplicate_items", "keep the first"),
            ids,
        ),
        fault(
            "items_without_text",
            empty,
            f"have no text in {columns}",
            how_to("Describe them", "items_without_text", "leave them and their interactions out"),
            ids,
        ),
        fault("repeated_texts", repeated, f"have the same text in {columns} as an earlier row", "No harm is done", ids),
    ]


def how_to(instead: str, key: str, effect: str = "leave these rows out") -> str:
    """Return what a person can do about a fault."""
    return f'{instead}, or set data.{key} = "drop" to {effect}'


def _texts(text_cols: tuple[str, ...]) -> list[pl.Expr]:
    return [pl.col(name).cast(pl.String).fill_null("").str.strip_chars() for name in text_cols]
