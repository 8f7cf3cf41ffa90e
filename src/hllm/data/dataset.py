"""The Dataset: a catalogue of described items and each user's history in time order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import polars as pl
from jaxtyping import Int
from polars.exceptions import PolarsError

from hllm import artifacts
from hllm.data import checks
from hllm.data.schema import DataConfig
from hllm.data.tables import Table, read_table, require_columns
from hllm.data.times import as_integers, seconds_per_unit
from hllm.errors import DataError, first_few

KIND = "dataset"


@dataclass(frozen=True)
class Dataset:
    """Items and histories. `item_index` is a row of `items`; `user_index` is a row of `users`."""

    items: pl.DataFrame
    """The catalogue: the caller's columns, one row for each item, in the caller's order."""
    users: pl.Series
    """The caller's user ids, in order of first appearance."""
    item_col: str
    text_cols: tuple[str, ...]
    title_col: str
    item_index: Int[np.ndarray, " interaction"]
    """Every interaction's item; each user's interactions stand together, oldest first."""
    timestamps: Int[np.ndarray, " interaction"]
    """As `data.times.as_integers` makes them; never decreasing within a user."""
    seconds_per_unit: float | None
    """What one unit of `timestamps` is in seconds since 1970; None if they only order."""
    actions: Int[np.ndarray, " interaction"]
    """Every interaction's action, a position in `action_names`; 0 where there is no action column."""
    action_names: tuple[str, ...]
    offsets: Int[np.ndarray, " users_plus_one"]
    """Where each user's interactions start, and the end of the last one's."""
    parts: Int[np.ndarray, " interaction"] | None = None
    """Every interaction's part in the caller's own split, a position in `part_names`; None without such a column."""
    part_names: tuple[str, ...] = ()

    @property
    def num_items(self) -> int:
        """Return the size of the catalogue, items without interactions included."""
        return len(self.items)

    @property
    def num_users(self) -> int:
        """Return how many users have at least one interaction."""
        return len(self.users)

    @property
    def num_interactions(self) -> int:
        """Return how many interactions there are."""
        return len(self.item_index)

    @property
    def item_ids(self) -> pl.Series:
        """Return the caller's item ids; row = item_index."""
        return self.items[self.item_col]

    @property
    def titles(self) -> pl.Series:
        """Return what to show a person for each item; the id where the title is empty."""
        title = self.items[self.title_col].cast(pl.String)
        return title.zip_with(title.fill_null("").str.strip_chars() != "", self.item_ids.cast(pl.String))

    @cached_property
    def seconds(self) -> Int[np.ndarray, " interaction"]:
        """Return the interactions' times in whole seconds since 1970; DataError if they only order."""
        if self.seconds_per_unit is None:
            raise DataError(
                "this model reads when things happened, but the interactions' times only order them; give a time_col "
                "with dates or seconds, or switch off what reads times (model.inputs.timestamp, model.user.time_bias)"
            )
        return np.floor(self.timestamps * self.seconds_per_unit).astype(np.int64)

    @cached_property
    def seconds_or_zero(self) -> Int[np.ndarray, " interaction"]:
        """Return `seconds`, or 0 for every interaction if the times only order them."""
        return self.seconds if self.seconds_per_unit is not None else np.zeros_like(self.timestamps)

    def history(self, user_index: SupportsIndex) -> Int[np.ndarray, " position"]:
        """Return all items of one user, oldest first."""
        user = index(user_index)
        return self.item_index[self.offsets[user] : self.offsets[user + 1]]

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of ids, texts, order and times: equal data gives equal hashes, wherever it came from."""
        text = self.items.select(self.item_col, *self.text_cols).write_csv()
        columns = (self.item_index, self.timestamps, self.offsets, self.actions)
        arrays = [a.astype(np.int64).tobytes().hex() for a in columns]
        values = [text, self.users.cast(pl.String).to_list(), arrays, self.action_names, self.seconds_per_unit]
        if self.parts is not None:
            values += [self.parts.astype(np.int64).tobytes().hex(), self.part_names]
        return artifacts.fingerprint(values)

    def item_rows(self, item_ids: Sequence[Any] | pl.Series) -> Int[np.ndarray, " item"]:
        """Return the item_index of each id; DataError counts the unknown ones and shows the first."""
        return _lookup(self.item_ids, item_ids, noun="items", where="the catalogue")

    def user_rows(self, user_ids: Sequence[Any] | pl.Series) -> Int[np.ndarray, " user"]:
        """Return the user_index of each id; DataError counts the unknown ones and shows the first."""
        return _lookup(self.users, user_ids, noun="users", where="the interactions")

    def extended(self, items: Table) -> "Dataset":
        """Return the dataset with more items at the end of its catalogue, which no one has interacted with.

        Columns that only the catalogue has are null for them. Raises DataError for missing columns, ids that are
        known already, and items without text.
        """
        wanted = {"item_col": self.item_col} | {f"text_cols[{i}]": name for i, name in enumerate(self.text_cols)}
        new = read_table(items, name="items")
        require_columns(new, wanted, name="items")
        columns = [(pl.col(name) if name in new.columns else pl.lit(None)) for name in self.items.columns]
        try:
            new = new.select(c.cast(t).alias(n) for c, (n, t) in zip(columns, self.items.schema.items(), strict=True))
        except PolarsError as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"the new items' columns do not have the catalogue's types: {reason}") from None
        checks.reject_null_ids(new, self.item_col, name="items")
        checks.reject_items_without_text(new, _without_text(new, self.text_cols), self.item_col, self.text_cols)
        catalogue = pl.concat([self.items, new])
        checks.reject_duplicate_items(catalogue, self.item_col)
        return replace(self, items=catalogue)

    def save(self, path: Path) -> None:
        """Write the dataset as a directory with a manifest."""
        details = {
            "item_col": self.item_col,
            "text_cols": list(self.text_cols),
            "title_col": self.title_col,
            "seconds_per_unit": self.seconds_per_unit,
            "action_names": list(self.action_names),
            "part_names": list(self.part_names),
            "fingerprint": self.fingerprint,
            "num_users": self.num_users,
            "num_items": self.num_items,
            "num_interactions": self.num_interactions,
        }
        with artifacts.writing(path, KIND, details) as folder:
            self.items.write_parquet(folder / "items.parquet")
            pl.DataFrame({"user_id": self.users, "end": self.offsets[1:]}).write_parquet(folder / "users.parquet")
            columns = {"item_index": self.item_index, "timestamp": self.timestamps, "action": self.actions}
            if self.parts is not None:
                columns["part"] = self.parts
            pl.DataFrame(columns).write_parquet(folder / "interactions.parquet")

    @classmethod
    def load(cls, path: Path) -> "Dataset":
        """Read a directory written by `save`, after checking every byte; CheckpointError if it is damaged."""
        details = artifacts.verify(path, KIND).details
        users = pl.read_parquet(path / "users.parquet")
        events = pl.read_parquet(path / "interactions.parquet")
        return cls(
            items=pl.read_parquet(path / "items.parquet"),
            users=users["user_id"],
            item_col=details["item_col"],
            text_cols=tuple(details["text_cols"]),
            title_col=details["title_col"],
            item_index=events["item_index"].to_numpy(),
            timestamps=events["timestamp"].to_numpy(),
            seconds_per_unit=details["seconds_per_unit"],
            actions=events["action"].to_numpy(),
            action_names=tuple(details["action_names"]),
            offsets=np.concatenate([[0], users["end"].to_numpy()]),
            parts=events["part"].to_numpy() if "part" in events.columns else None,
            part_names=tuple(details.get("part_names", ())),
        )


def build_dataset(interactions: Table, items: Table, config: DataConfig) -> Dataset:
    """Check the two tables and join them: time order within a user, ties in the order of the file.

    Raises DataError for missing columns or ids, duplicate items, unknown items, items without text.
    """
    catalogue = read_table(items, name="items")
    given = read_table(interactions, name="interactions")
    require_columns(catalogue, {"item_col": config.item_col}, name="items")
    wanted = {"user_col": config.user_col, "item_col": config.item_col}
    if config.time_col:
        wanted["time_col"] = config.time_col
    if config.action_col:
        wanted["action_col"] = config.action_col
    if config.split_col:
        wanted["split_col"] = config.split_col
    require_columns(given, wanted, name="interactions")
    checks.reject_null_ids(catalogue, config.item_col, name="items")
    checks.reject_null_ids(given, config.item_col, name="interactions")
    checks.reject_null_ids(given, config.user_col, name="interactions")
    actions, action_names = _numbered(given, config.action_col)
    parts, part_names = _numbered(given, config.split_col)
    # Names of our own from here on: the caller's table may have any columns.
    log = pl.DataFrame(
        {
            "user": given[config.user_col],
            "item": given[config.item_col],
            "timestamp": as_integers(given[config.time_col]) if config.time_col else np.zeros(len(given), np.int64),
            "action": actions,
            "part": parts,
        }
    )
    catalogue, log = _agree_on_ids(catalogue, config.item_col, log)
    checks.reject_duplicate_items(catalogue, config.item_col)
    text_cols = _text_columns(catalogue, config)
    title = config.title_col or ("title" if "title" in catalogue.columns else text_cols[0])
    require_columns(catalogue, {"title_col": title}, name="items")
    catalogue = _with_missing(catalogue, text_cols, config)
    catalogue, dropped = _drop_items_without_text(catalogue, text_cols, config)
    if config.unknown_items == "keep":
        catalogue = _with_unknown_items(catalogue, log["item"].filter(~log["item"].is_in(dropped.implode())), config)
    if config.items_without_interactions == "drop":
        catalogue = catalogue.filter(catalogue[config.item_col].is_in(log["item"].implode()))

    numbered = pl.DataFrame({"item": catalogue[config.item_col], "item_index": np.arange(len(catalogue))})
    log = log.join(numbered, on="item", how="left", maintain_order="left")
    unknown = log.filter(pl.col("item_index").is_null())["item"]
    if config.unknown_items == "error":
        checks.reject_unknown_items(unknown.filter(~unknown.is_in(dropped.implode())), len(given))
    log = log.filter(pl.col("item_index").is_not_null())
    if log.is_empty():
        raise DataError(f"none of the {len(given):,} interactions is left: no item in them is in the items table")

    users = log["user"].unique(maintain_order=True)
    numbered = pl.DataFrame({"user": users, "user_index": np.arange(len(users))})
    log = log.join(numbered, on="user", how="left", maintain_order="left")
    log = log.sort("user_index", "timestamp", maintain_order=True)  # stable: ties keep the file's order
    lengths = np.bincount(log["user_index"].to_numpy(), minlength=len(users))
    return Dataset(
        items=catalogue,
        users=users,
        item_col=config.item_col,
        text_cols=text_cols,
        title_col=title,
        item_index=log["item_index"].to_numpy(),
        timestamps=log["timestamp"].to_numpy(),
        seconds_per_unit=seconds_per_unit(given[config.time_col], config.time_unit) if config.time_col else None,
        actions=log["action"].to_numpy(),
        action_names=action_names,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        parts=log["part"].to_numpy() if config.split_col else None,
        part_names=part_names,
    )


def _numbered(given: pl.DataFrame, column: str | None) -> tuple[Int[np.ndarray, " interaction"], tuple[str, ...]]:
    """Number a column's values, such as actions, in alphabetical order; a missing one is a value of its own, ""."""
    if not column:
        return np.zeros(len(given), dtype=np.int64), ()
    values = given[column].cast(pl.String).fill_null("")
    names = values.unique().sort()
    return names.search_sorted(values).cast(pl.Int64).to_numpy(), tuple(names)


def _agree_on_ids(catalogue: pl.DataFrame, item_col: str, log: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Give the item ids of both tables one type: the catalogue's if every id in the log fits it, else text."""
    wanted = catalogue.schema[item_col]
    if wanted == log.schema["item"]:
        return catalogue, log
    if wanted.is_integer() and log.schema["item"].is_numeric():
        cast = log["item"].cast(wanted, strict=False)
        if (cast.cast(pl.Float64) == log["item"].cast(pl.Float64)).all() and not cast.null_count():
            return catalogue, log.with_columns(cast)
    return catalogue.with_columns(pl.col(item_col).cast(pl.String)), log.with_columns(pl.col("item").cast(pl.String))


def _text_columns(items: pl.DataFrame, config: DataConfig) -> tuple[str, ...]:
    if config.text_cols is not None:
        if not config.text_cols or len(set(config.text_cols)) < len(config.text_cols):
            raise DataError(f"data.text_cols names each column once, and at least one; found {list(config.text_cols)}")
        require_columns(items, {f"text_cols[{i}]": name for i, name in enumerate(config.text_cols)}, name="items")
        return config.text_cols
    found = tuple(c for c, kind in items.schema.items() if kind == pl.String and c != config.item_col)
    if not found:
        raise DataError(
            f"items have no text column besides the id {config.item_col!r}; they have "
            f"{', '.join(map(repr, items.columns))}. Add one, such as a title, or name columns with data.text_cols"
        )
    return found


def _with_missing(items: pl.DataFrame, text_cols: tuple[str, ...], config: DataConfig) -> pl.DataFrame:
    """Return the items with "" in every text cell that is empty or reads as missing, if the config asks for it."""
    if not config.missing and config.items_without_text != "keep" and config.unknown_items != "keep":
        return items
    texts = {name: pl.col(name).cast(pl.String).fill_null("") for name in text_cols}
    return items.with_columns(
        **{name: pl.when(text.is_in(config.missing)).then(pl.lit("")).otherwise(text) for name, text in texts.items()}
    )


def _with_unknown_items(items: pl.DataFrame, used: pl.Series, config: DataConfig) -> pl.DataFrame:
    """Add a row of nulls for each item that is used and has none."""
    known = items[config.item_col]
    unknown = used.filter(~used.is_in(known.implode())).unique(maintain_order=True).alias(config.item_col)
    return pl.concat([items, unknown.to_frame()], how="diagonal")


def _drop_items_without_text(
    items: pl.DataFrame, text_cols: tuple[str, ...], config: DataConfig
) -> tuple[pl.DataFrame, pl.Series]:
    """Return the items that have text, and the ids of the others (empty unless the config allows it)."""
    empty = _without_text(items, text_cols)
    if config.items_without_text == "error":
        checks.reject_items_without_text(items, empty, config.item_col, text_cols)
    if config.items_without_text == "keep":
        return items, items[config.item_col].clear()
    return items.filter(~empty), items.filter(empty)[config.item_col]


def _without_text(items: pl.DataFrame, text_cols: tuple[str, ...]) -> pl.Series:
    """Return True for each item whose text columns are all empty."""
    texts = [pl.col(name).cast(pl.String).fill_null("").str.strip_chars() == "" for name in text_cols]
    return items.select(pl.all_horizontal(texts)).to_series()


def _lookup(known: pl.Series, wanted: Sequence[Any] | pl.Series, *, noun: str, where: str) -> Int[np.ndarray, " row"]:
    given = wanted if isinstance(wanted, pl.Series) else pl.Series(list(wanted), dtype=None, strict=False)
    table = pl.DataFrame({"id": known, "row": np.arange(len(known))})
    rows = (
        given.alias("id")
        .cast(known.dtype, strict=False)
        .to_frame()
        .join(table, on="id", how="left", maintain_order="left")["row"]
    )
    bad = given.filter(rows.is_null())
    if len(bad):
        raise DataError(
            f"{len(bad):,} of {len(given):,} {noun} asked for are not in {where}; first: {first_few(bad)}. "
            f"Known ids look like {first_few(known)}"
        )
    return rows.to_numpy(writable=True)
