"""Read the table of interactions as integers, in one streaming pass; an id of any length takes four bytes a row."""

# Proved by tests/data/reading/test_tables.py.

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from hllm.data.checks import is_missing
from hllm.data.ids import whole
from hllm.data.labels import read_labels
from hllm.data.reading.dates import date_order
from hllm.data.reading.tables import Table, explained, require_columns, scan_table
from hllm.data.reading.times import as_integers, seconds_per_unit
from hllm.data.schema import DataConfig
from hllm.data.where import filtered
from hllm.errors import DataError

MISSING = -1
_NAME = "interactions"
_ROW = "row of the table"


@dataclass(frozen=True)
class InteractionLog:
    """Every row of the table, in its order."""

    user: Int[np.ndarray, " interaction"]
    """A row of `users`; MISSING where there is none."""
    item: Int[np.ndarray, " interaction"]
    """A row of `items`; MISSING where there is none."""
    users: pl.Series
    items: pl.Series
    """The caller's ids, each once, in no order."""
    timestamps: Int[np.ndarray, " interaction"]
    """Times from `times.as_integers`; 0 where `no_time`."""
    no_time: Bool[np.ndarray, " interaction"]
    """True where the time is missing or cannot be read."""
    seconds_per_unit: float | None
    actions: Int[np.ndarray, " interaction"]
    """A position in `action_names`."""
    action_names: tuple[str, ...]
    parts: Int[np.ndarray, " interaction"]
    """A position in `part_names`: of the caller's own split."""
    part_names: tuple[str, ...]
    labels: Int[np.ndarray, "interaction target"]
    """Labels of each of the config's targets; see `data.labels`."""
    rows: Int[np.ndarray, " interaction"] | None = None
    """Row of each in the table, if `data.where` left some out; else they are all of its rows."""
    date_order: str | None = None
    """Which part of dates such as 11/10/2020 was taken to come first."""
    num_rows: int = 0
    """Number of rows of the table, those that were left out included."""

    def places(self, interactions: Int[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
        """Return the rows of the table where some of the interactions stand."""
        return interactions if self.rows is None else self.rows[interactions]

    def __len__(self) -> int:
        return len(self.user)


def read_log(source: Table, config: DataConfig) -> InteractionLog:
    """Read the columns that the config names, and no others.

    Needs 4 bytes a row for each id and 8 for the time, besides the distinct ids. If some time is no integer, the
    times are read once more, as text. Raises DataError for a source that is missing, empty or unreadable, or lacks
    a column.
    """
    table = scan_table(source, config.interactions_form, name=_NAME)
    columns = {"user_col": config.user_col, "item_col": config.item_col}
    columns |= {"time_col": config.time_col} if config.time_col else {}
    columns |= {"action_col": config.action_col} if config.action_col else {}
    columns |= {"split_col": config.split_col} if config.split_col else {}
    columns |= {f"targets.{number}.column": target.column for number, target in enumerate(config.targets)}
    place = str(source) if isinstance(source, str | Path) else "the interactions frame"
    with explained(source, config.interactions_form, name=_NAME):
        schema = table.collect_schema()
        require_columns(schema.to_frame(), columns, name=_NAME)
        num_rows = 0
        if config.where is not None:
            num_rows = int(table.select(pl.len()).collect(engine="streaming").item())
            table = filtered(table.with_row_index(_ROW), config.where, table=_NAME)
        cells = _collect(table, config)
        if cells.is_empty() and num_rows:
            raise DataError(f"data.where = {config.where!r} leaves none of the {num_rows:,} interactions")
        if cells.is_empty():
            raise DataError(
                f"{place} is empty: it has {len(schema)} columns and no rows; interactions need at least one row"
            )
        times = _times(table, cells, config)
    user, users = _numbered(cells["user"])
    item, items = _numbered(cells["item"])
    actions, action_names = _values(cells, "action")
    parts, part_names = _values(cells, "part")
    unit = seconds_per_unit(times, config.time_unit, config.time_format) if config.time_col else None
    stamps = as_integers(times, config.time_format) if config.time_col else times
    return InteractionLog(
        user=user,
        item=item,
        users=whole(users),
        items=items,
        timestamps=stamps.fill_null(0).to_numpy(),
        no_time=stamps.is_null().to_numpy(),
        seconds_per_unit=unit,
        actions=actions,
        action_names=action_names,
        parts=parts,
        part_names=part_names,
        labels=read_labels(cells, _label_columns(config), config.targets),
        rows=cells[_ROW].to_numpy().astype(np.int64) if config.where is not None else None,
        date_order=date_order(times) if times.dtype == pl.String and config.time_format is None else None,
        num_rows=num_rows or len(cells),
    )


def texts_of_times(source: Table, config: DataConfig, rows: Int[np.ndarray, " row"]) -> tuple[str | None, ...]:
    """Return what the time column says in some rows."""
    table = scan_table(source, config.interactions_form, name=_NAME).select(
        time=pl.col(config.time_col).cast(pl.String)
    )
    return tuple(table.with_row_index("row").filter(pl.col("row").is_in(rows.tolist())).collect()["time"])


def _collect(table: pl.LazyFrame, config: DataConfig) -> pl.DataFrame:
    """Read the columns under names of our own; texts become numbers while they are read."""
    schema = table.collect_schema()

    def as_category(name: str) -> pl.Expr:
        # Categories of their own, so that a column's numbers start at 0.
        return pl.col(name).cast(pl.String).cast(pl.Categorical(pl.Categories.random()))

    def id_column(name: str) -> pl.Expr:
        kind = schema[name]
        return as_category(name) if isinstance(kind, pl.String | pl.Categorical | pl.Enum) else pl.col(name)

    columns = {"user": id_column(config.user_col), "item": id_column(config.item_col)}
    if config.time_col:
        is_text = schema[config.time_col] == pl.String and config.time_format is None
        columns["time"] = pl.col(config.time_col).cast(pl.Int64, strict=False) if is_text else pl.col(config.time_col)
    if config.action_col:
        columns["action"] = as_category(config.action_col)
    if config.split_col:
        columns["part"] = as_category(config.split_col)
    for name, target in zip(_label_columns(config), config.targets, strict=True):
        columns[name] = pl.col(target.column)
    if config.where is not None:
        columns[_ROW] = pl.col(_ROW)
    return table.select(**columns).collect(engine="streaming")


def _label_columns(config: DataConfig) -> list[str]:
    return [f"label {number}" for number in range(len(config.targets))]


def _times(table: pl.LazyFrame, cells: pl.DataFrame, config: DataConfig) -> pl.Series:
    """Return the time column: as read, or once more as text if that was not all integers."""
    if not config.time_col:
        return pl.Series(np.zeros(len(cells), dtype=np.int64))
    if cells["time"].null_count():
        return table.select(config.time_col).collect(engine="streaming").to_series()
    return cells["time"].alias(config.time_col)


def _numbered(ids: pl.Series) -> tuple[Int[np.ndarray, " row"], pl.Series]:
    """Return a number for each id, MISSING where there is none, and the ids by number."""
    if isinstance(ids.dtype, pl.Categorical):
        categories = pl.DataFrame({"id": ids.unique().drop_nulls()}).sort(pl.col("id").to_physical()).to_series()
        assert len(categories) == 0 or categories.to_physical()[-1] == len(categories) - 1, (
            "categories of one column are dense"
        )
        numbers = ids.to_physical().cast(pl.Int32).fill_null(MISSING).to_numpy(writable=True)
        names = categories.cast(pl.String)
        for empty in np.flatnonzero(is_missing(names).to_numpy()):  # at most one
            numbers[numbers == empty] = MISSING
            numbers[numbers > empty] -= 1
        return numbers, names.filter(~is_missing(names))
    names = ids.filter(~is_missing(ids)).unique()
    table = pl.DataFrame({"id": names, "number": np.arange(len(names), dtype=np.int32)})
    pairs = ids.alias("id").to_frame().join(table, on="id", how="left", maintain_order="left")
    return pairs["number"].fill_null(MISSING).to_numpy(), names


def _values(cells: pl.DataFrame, column: str) -> tuple[Int[np.ndarray, " interaction"], tuple[str, ...]]:
    """Number a column's values, such as actions, in alphabetical order; a missing one is a value of its own, ""."""
    if column not in cells.columns:
        return np.zeros(len(cells), dtype=np.int64), ()
    numbers, names = _numbered(cells[column])
    values = sorted({*names, ""} if (numbers == MISSING).any() else {*names} - {""})
    rank = {name: position for position, name in enumerate(values)}
    by_number = np.array([*(rank.get(name, 0) for name in names), rank.get("", 0)], dtype=np.int64)
    return by_number[numbers], tuple(values)  # MISSING reads the last entry
