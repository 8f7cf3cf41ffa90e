"""Checks on the caller's tables, made once, where the data enters; each error counts the offenders and shows some."""

import polars as pl

from hllm.errors import DataError, first_few


def reject_null_ids(frame: pl.DataFrame, column: str, *, name: str) -> None:
    """Raise DataError if an id is missing."""
    missing = frame.select(pl.col(column).is_null().arg_true()).to_series()
    if len(missing):
        raise DataError(
            f"{len(missing):,} of {len(frame):,} {name} have no {column}; first in data rows "
            f"{first_few(row + 1 for row in missing)}. Fill in or remove these rows"
        )


def reject_duplicate_items(items: pl.DataFrame, item_col: str) -> None:
    """Raise DataError if an item id stands in more than one row."""
    counts = items.group_by(item_col, maintain_order=True).len().filter(pl.col("len") > 1)
    if len(counts):
        raise DataError(
            f"{len(counts):,} item ids stand in more than one row of items; first: {first_few(counts[item_col])}. "
            "Keep one row for each item"
        )


def reject_items_without_text(items: pl.DataFrame, empty: pl.Series, item_col: str, text_cols: tuple[str, ...]) -> None:
    """Raise DataError if an item has no text at all."""
    bad = items.filter(empty)
    if len(bad):
        raise DataError(
            f"{len(bad):,} of {len(items):,} items have no text in {', '.join(map(repr, text_cols))}; "
            f'first: {first_few(bad[item_col])}. Describe them, or set data.items_without_text = "drop" to leave '
            "them and their interactions out"
        )


def reject_unknown_items(unknown: pl.Series, total: int) -> None:
    """Raise DataError if interactions name items that the items table lacks; `unknown` holds their ids."""
    if len(unknown):
        raise DataError(
            f"{len(unknown):,} of {total:,} interactions name items that the items table lacks; "
            f"first: {first_few(unknown.unique(maintain_order=True))}. Add these items, or set "
            'data.unknown_items = "drop" to leave the interactions out'
        )
