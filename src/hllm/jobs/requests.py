"""Requests: a table of users or histories to recommend to, turned into indices in bounded memory."""

# Proved by tests/jobs/test_recommend_table.py.

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl

from hllm import artifacts
from hllm.config import Config
from hllm.data.dataset import Dataset, rows_of
from hllm.data.reading.files import find_files, scan_file
from hllm.data.reading.tables import explained
from hllm.errors import DataError, first_few, nearest
from hllm.jobs.growing import GrowingParquet

_NAME = "users to recommend to"
_ROWS_AT_ONCE = 8192
_SHOWN = 3


class RequestCounts(Config):
    """Counts of what a table of requests holds."""

    rows: int = 0
    histories: int = 0
    """Rows that bring a history of their own."""
    texts: int = 0
    """Rows that bring a sentence."""
    without_history: int = 0
    """Rows without a sentence, of users that are not known, or whose history has no known item."""
    unknown_items: int = 0
    """Items in the histories that the catalogue lacks; they are left out."""
    first_without_history: tuple[str, ...] = ()
    first_unknown_items: tuple[str, ...] = ()

    def require_known(self) -> None:
        """Raise DataError if anything is unknown."""
        faults = []
        if self.without_history:
            faults.append(
                f"{self.without_history:,} of {self.rows:,} rows name no known user and bring no known item"
                f"{' or text' if self.texts else ''}; first: "
                f"{first_few(self.first_without_history)}"
            )
        if self.unknown_items:
            faults.append(
                f"{self.unknown_items:,} items in the histories are not in the catalogue; first: "
                f"{first_few(self.first_unknown_items)}"
            )
        if faults:
            raise DataError(
                f'{". ".join(faults)}. Correct them, or choose what to do about them: "skip" or "popularity"'
            )


def prepare_requests(
    source: Path,
    dataset: Dataset,
    target: Path,
    *,
    user_col: str,
    history_col: str | None,
    text_col: str | None,
    separator: str,
) -> RequestCounts:
    """Write `target`, a Parquet file of user_id, user_index, items and text, a row for each row of the table `source`.

    `source` is what `read_table` reads, with at least one of three columns. A history is a list of item ids, or a
    text of them joined by `separator`, oldest first; where there is none, the user's own is meant:
    `user_index`. A column None is "history", or "text", if there is one. Without `user_col` the row's number, from 0,
    is the user_id. `items` are item indices; null where no history was given. `text` is a sentence, or null. Raises
    DataError if all columns are missing, or one that is named, if one is of another type, and if there are no rows.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = target.with_name(f".input.partial-{target.name}")  # the name of a leftover, if a kill comes
    try:
        with artifacts.filling(target), explained(source, name=_NAME):
            _select(source, user_col, history_col, text_col).sink_parquet(copy, row_group_size=_ROWS_AT_ONCE)
        if not pl.scan_parquet(copy, glob=False).select(pl.len()).collect().item():
            raise DataError(f"{source} is empty: {_NAME} need at least one row")
        with artifacts.replacing(target) as partial:
            return _write(partial, _batches(copy), dataset, separator)
    finally:
        copy.unlink(missing_ok=True)


def _select(source: Path, user_col: str, history: str | None, sentence: str | None) -> pl.LazyFrame:
    scan = pl.concat([scan_file(file) for file in find_files(source, name=_NAME)], how="vertical_relaxed")
    schema = scan.collect_schema()
    for noun, name in (("histories", history), ("sentences", sentence)):
        if name is not None and name not in schema:
            raise DataError(
                f"{source} has no column {name!r} of {noun}{nearest(name, schema)}; it has "
                f"{', '.join(map(repr, schema))}"
            )
    history_col, text_col = history or "history", sentence or "text"
    if not {user_col, history_col, text_col} & set(schema):
        raise DataError(
            f"{source} has neither a column {user_col!r} of user ids nor a column {history_col!r} of item ids nor a "
            f"column {text_col!r} of sentences; it has {', '.join(map(repr, schema))}. Rename a column, or name the "
            "histories with --history-col and the sentences with --text-col"
        )
    if history_col in schema and not isinstance(schema[history_col], pl.List | pl.String):
        raise DataError(
            f"{source}: the column {history_col!r} is of type {schema[history_col]}; expected lists of item ids, or "
            "texts"
        )
    if text_col in schema and not isinstance(schema[text_col], pl.String | pl.Null):
        raise DataError(f"{source}: the column {text_col!r} is of type {schema[text_col]}; expected sentences")
    user = pl.col(user_col) if user_col in schema else pl.int_range(pl.len(), dtype=pl.Int64)
    items = pl.col(history_col) if history_col in schema else pl.lit(None, dtype=pl.String)
    text = pl.col(text_col).cast(pl.String) if text_col in schema else pl.lit(None, dtype=pl.String)
    return scan.select(user_id=user, history=items, text=text)


def _batches(copy: Path) -> Iterator[pl.DataFrame]:
    start = 0
    while len(frame := pl.scan_parquet(copy, glob=False).slice(start, _ROWS_AT_ONCE).collect()):
        yield frame
        start += len(frame)


def _write(partial: Path, frames: Iterator[pl.DataFrame], dataset: Dataset, separator: str) -> RequestCounts:
    totals: dict[str, Any] = RequestCounts().model_dump()
    with closing(GrowingParquet(partial)) as file:
        for frame in frames:
            resolved, missing = _resolve(frame, dataset, separator)
            said = resolved["text"].is_not_null()
            nothing = resolved["user_index"].is_null() & (resolved["items"].list.len().fill_null(0) == 0) & ~said
            totals["rows"] += len(resolved)
            totals["histories"] += int(resolved["items"].is_not_null().sum())
            totals["texts"] += int(said.sum())
            totals["without_history"] += int(nothing.sum())
            totals["unknown_items"] += len(missing)
            for name, values in (
                ("first_without_history", resolved["user_id"].filter(nothing)),
                ("first_unknown_items", missing),
            ):
                totals[name] = (*totals[name], *map(str, values.head(_SHOWN)))[:_SHOWN]
            file.append(resolved)
    return RequestCounts.model_validate(totals)


def _resolve(frame: pl.DataFrame, dataset: Dataset, separator: str) -> tuple[pl.DataFrame, pl.Series]:
    """Return user_id, user_index, items and text of some rows, and the item ids that are unknown."""
    lists = frame["history"]
    if lists.dtype == pl.String:
        parts = lists.str.split(separator).list.eval(pl.element().str.strip_chars())
        lists = parts.list.eval(pl.element().filter(pl.element() != ""))
    has_list = lists.is_not_null()
    flat = pl.DataFrame({"row": pl.int_range(len(lists), eager=True), "id": lists})
    flat = flat.filter((flat["id"].list.len() > 0).fill_null(False)).explode("id")
    flat = flat.with_columns(item=rows_of(dataset.item_ids, flat["id"]))
    missing = flat.filter(pl.col("item").is_null())["id"]
    known = flat.drop_nulls("item").group_by("row", maintain_order=True).agg(items=pl.col("item").cast(pl.Int64))
    rows = pl.DataFrame({"row": pl.int_range(len(lists), eager=True), "has_list": has_list})
    items = rows.join(known, on="row", how="left", maintain_order="left").select(
        pl.when("has_list").then(pl.col("items").fill_null([]))
    )
    users = rows_of(dataset.users, frame["user_id"]).cast(pl.Int64)
    users = users.set(has_list, None)
    stripped = frame["text"].str.strip_chars()
    text = stripped.set(stripped == "", None)
    columns = {"user_id": frame["user_id"], "user_index": users, "items": items.to_series(), "text": text}
    return pl.DataFrame(columns), missing
