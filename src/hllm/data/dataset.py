"""A Dataset holds a catalogue of described items and each user's history in time order."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
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
from hllm.data.arguments import as_ids
from hllm.data.ids import exactly
from hllm.data.reading.form import FOUND, Form
from hllm.data.reading.tables import Table, read_table, require_columns
from hllm.errors import DataError, first_few

KIND = "dataset"


@dataclass(frozen=True)
class Dataset:
    """Items and histories. `item_index` is a row of `items`; `user_index` is a row of `users`."""

    items: pl.DataFrame
    """The catalogue: the caller's columns, one row for each item, in the caller's order."""
    users: pl.Series
    """The caller's user ids, in the order of their first interactions; those of one moment in the file's order."""
    item_col: str
    text_cols: tuple[str, ...]
    title_col: str
    item_index: Int[np.ndarray, " interaction"]
    """Every interaction's item; each user's interactions stand together, oldest first."""
    timestamps: Int[np.ndarray, " interaction"]
    """Times from `data.reading.times.as_integers`; they never decrease within a user."""
    seconds_per_unit: float | None
    """Seconds in one unit of `timestamps`, which count from 1970; None if the times only order."""
    actions: Int[np.ndarray, " interaction"]
    """Every interaction's action, a position in `action_names`; 0 where there is no action column."""
    action_names: tuple[str, ...]
    offsets: Int[np.ndarray, " users_plus_one"]
    """Start of each user's interactions, and the end of the last user's."""
    parts: Int[np.ndarray, " interaction"] | None = None
    """Every interaction's part in the caller's own split, a position in `part_names`; None without such a column."""
    part_names: tuple[str, ...] = ()
    labels: Int[np.ndarray, "interaction target"] | None = None
    """Every interaction's label of each target: 1, 0, or -1 where it is not known; None without targets."""
    label_names: tuple[str, ...] = ()
    preparation: dict[str, Any] = field(default_factory=dict)
    """Faults of the tables and what was left out, from `data.build.Preparation.facts`."""

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
        """Return a hash of all data: equal data gives equal hashes, wherever it came from."""
        if self.labels is None:
            return self.log_fingerprint
        return artifacts.fingerprint(
            [self.log_fingerprint, artifacts.digest_of_integers(self.labels), self.label_names]
        )

    @cached_property
    def log_fingerprint(self) -> str:
        """Return a hash of ids, texts, order and times, without labels: retrieval does not depend on them."""
        text = _digest_of_table(self.items.select(self.item_col, *self.text_cols))
        users = _digest_of_table(self.users.cast(pl.String).alias("user").to_frame())
        columns = (self.item_index, self.timestamps, self.offsets, self.actions)
        arrays = [artifacts.digest_of_integers(column) for column in columns]
        values = [text, users, arrays, self.action_names, self.seconds_per_unit]
        if self.parts is not None:
            values += [artifacts.digest_of_integers(self.parts), self.part_names]
        return artifacts.fingerprint(values)

    def label_columns(self, targets: tuple[str, ...]) -> list[int]:
        """Return where the labels of these targets stand among `label_names`; DataError if there are none."""
        missing = [name for name in targets if name not in self.label_names]
        if missing:
            raise DataError(
                f"the data have no label {missing[0]!r}, which model.ranking.targets names; they have: "
                f"{', '.join(self.label_names) or 'none'}. Add a [[data.targets]] table"
            )
        return [self.label_names.index(name) for name in targets]

    def item_rows(self, item_ids: Iterable[Any]) -> Int[np.ndarray, " item"]:
        """Return the item_index of each id; DataError counts the unknown ones and shows the first."""
        return _lookup(self.item_ids, item_ids, noun="items", where="the catalogue")

    def user_rows(self, user_ids: Iterable[Any]) -> Int[np.ndarray, " user"]:
        """Return the user_index of each id; DataError counts the unknown ones and shows the first."""
        return _lookup(self.users, user_ids, noun="users", where="the interactions")

    def extended(self, items: Table, form: Form = FOUND) -> "Dataset":
        """Return the dataset with more items at the end of its catalogue, which no one has interacted with.

        Columns that only the catalogue has are null for them. Raises DataError for missing columns, ids that are
        known already, and items without text.
        """
        columns = {"item_col": self.item_col} | {f"text_cols[{i}]": name for i, name in enumerate(self.text_cols)}
        new = read_table(items, form, name="items")
        require_columns(new, columns, name="items")
        new = in_columns_of(self.items, new)
        policies: dict[str, checks.Policy] = {
            name: "error" for name in ("missing_item_ids", "duplicate_items", "items_without_text")
        }
        repeats = checks.rows_where(new[self.item_col].is_in(self.item_ids.implode()))
        in_catalogue = checks.Fault(
            name="known_items",
            table="items",
            policy="error",
            total=len(new),
            rows=repeats,
            what="are in the catalogue already",
            advice="Give new items only",
            values=tuple(new[self.item_col].gather(repeats[:3])),
        )
        faults = [*checks.item_faults(new, self.item_col, self.text_cols, policies), in_catalogue]
        checks.refuse(checks.errors(faults))
        return replace(self, items=pl.concat([self.items, new]))

    def save(self, path: Path) -> None:
        """Write the dataset as a directory with a manifest."""
        details = {
            "item_col": self.item_col,
            "text_cols": list(self.text_cols),
            "title_col": self.title_col,
            "seconds_per_unit": self.seconds_per_unit,
            "action_names": list(self.action_names),
            "part_names": list(self.part_names),
            "label_names": list(self.label_names),
            "fingerprint": self.fingerprint,
            "num_users": self.num_users,
            "num_items": self.num_items,
            "num_interactions": self.num_interactions,
            "preparation": self.preparation,
        }
        with artifacts.writing(path, KIND, details) as folder:
            self.items.write_parquet(folder / "items.parquet")
            pl.DataFrame({"user_id": self.users, "end": self.offsets[1:]}).write_parquet(folder / "users.parquet")
            columns = {"item_index": self.item_index, "timestamp": self.timestamps, "action": self.actions}
            if self.parts is not None:
                columns["part"] = self.parts
            if self.labels is not None:
                columns |= {f"label_{number}": column for number, column in enumerate(self.labels.T)}
            pl.DataFrame(columns).write_parquet(folder / "interactions.parquet")

    @classmethod
    def load(cls, path: Path) -> "Dataset":
        """Read a directory written by `save`, after checking every byte; CheckpointError if it is damaged."""
        return artifacts.reading(path, KIND, cls._read)

    @classmethod
    def _read(cls, folder: Path, manifest: artifacts.Manifest) -> "Dataset":
        details = manifest.details
        users = pl.read_parquet(folder / "users.parquet", glob=False)
        events = pl.read_parquet(folder / "interactions.parquet", glob=False)
        items = pl.read_parquet(folder / "items.parquet", glob=False)
        for column in (details["item_col"], details["title_col"], *details["text_cols"]):
            items.get_column(column)  # it is there
        names = details.get("label_names", [])
        labels = [events[f"label_{number}"].to_numpy() for number in range(len(names))]
        return cls(
            items=items,
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
            labels=np.stack(labels, axis=1) if labels else None,
            label_names=tuple(names),
            preparation=details.get("preparation", {}),
        )


def _digest_of_table(table: pl.DataFrame) -> str:
    """Return the SHA-256 of a table as CSV, made part by part."""
    digest = hashlib.sha256()
    for part in table.iter_slices(100_000):
        digest.update(part.write_csv().encode())
    return digest.hexdigest()


def in_columns_of(catalogue: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Return new items in the catalogue's columns and types, null where they lack one; DataError for other types."""
    columns = [(pl.col(name) if name in new.columns else pl.lit(None)) for name in catalogue.columns]
    for name in new.columns:
        kind = catalogue.schema.get(name)
        if kind is not None and kind.is_integer():
            lost = new[name].is_not_null() & exactly(new[name], kind).is_null()
            if len(cells := new[name].filter(lost)):
                raise DataError(
                    f"the new items' columns do not have the catalogue's types: {name!r} holds {first_few(cells)}, "
                    f"which is not of type {kind}"
                )
    try:
        return new.select(c.cast(t).alias(n) for c, (n, t) in zip(columns, catalogue.schema.items(), strict=True))
    except PolarsError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"the new items' columns do not have the catalogue's types: {reason}") from None


def rows_of(known: pl.Series, wanted: pl.Series) -> pl.Series:
    """Return where in `known`, whose values are distinct, each wanted value stands, or null.

    The wanted may be of another type, such as texts of numbers; what would change on the way is not known.
    """
    table = pl.DataFrame({"id": known, "row": np.arange(len(known))})
    ids = exactly(wanted, known.dtype).alias("id")
    return ids.to_frame().join(table, on="id", how="left", maintain_order="left")["row"]


def _lookup(ids: pl.Series, values: Iterable[Any], *, noun: str, where: str) -> Int[np.ndarray, " row"]:
    series = as_ids(values, name=noun)
    rows = rows_of(ids, series)
    unknown_ids = series.filter(rows.is_null())
    if len(unknown_ids):
        raise DataError(
            f"{len(unknown_ids):,} of {len(series):,} {noun} asked for are not in {where}; first: "
            f"{first_few(unknown_ids)}. Known ids look like {first_few(ids)}"
        )
    return rows.to_numpy(writable=True)
