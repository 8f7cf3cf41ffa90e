"""Add new interactions and new items to a dataset: every item and user that was there keeps its row."""

import warnings
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from hllm.data import checks
from hllm.data.build import prepare, refusals
from hllm.data.dataset import Dataset, in_columns_of, rows_of
from hllm.data.reading.tables import Table, read_table, require_columns
from hllm.data.schema import DataConfig
from hllm.data.texts import without_html
from hllm.errors import DataError, HllmWarning, first_few

KnownItems = Literal["error", "keep", "update"]
_ITEM_POLICIES = ("missing_item_ids", "duplicate_items", "items_without_text")


@dataclass(frozen=True)
class Grown:
    """Result of adding rows to a dataset."""

    dataset: Dataset
    positions: Int[np.ndarray, " old_interaction"]
    """Position of each old interaction in the grown dataset."""
    updated: Int[np.ndarray, " item"]
    """Rows of the old items that have another text now."""
    counts: dict[str, int]
    """interactions, known_interactions (given again, and left out), late_interactions (older than the latest that was
    known of their user), users, items (new ones), updated_items, conflicting_items (that keep their old text)."""


def grow(
    old: Dataset, interactions: Table, items: Table | None, config: DataConfig, *, known_items: KnownItems
) -> Grown:
    """Return `old` with the rows of two tables added; the new tables may hold what is known already.

    `config` names the columns and the policies for faults of the new tables; least numbers of interactions are not
    asked of them. An interaction of the same user, item, time and action as an old one is left out, if there is a
    time_col. New items and users come behind the old ones. `known_items` says what to do with an old item that comes
    with another text: refuse, keep the old text, or take the new one; an item that had no text gets it in any case.
    Raises one DataError for every fault that the policies do not allow, for conflicting items, for other types of
    columns, and if there is nothing new.
    """
    catalogue, updates, num_conflicts = _catalogue(old, items, config, known_items)
    new = _read(old, interactions, catalogue, config)
    users, user = _users(old, new)
    old_time, time, unit = _times(old, new)
    action_names, action = _names(old.action_names, new.action_names, new.actions)
    user_of_old = np.repeat(np.arange(old.num_users), np.diff(old.offsets))
    log = {"user": user_of_old, "item": old.item_index, "time": old_time, "action": old.actions}
    additions = {"user": user, "item": new.item_index, "time": time, "action": action}
    fresh = ~_among(log, additions) if config.time_col else np.ones(new.num_interactions, dtype=bool)
    if not fresh.any():
        raise DataError(
            f"all of the {len(fresh):,} interactions are in the run's data already; there is nothing to learn from"
        )
    latest = np.append(old_time[old.offsets[1:] - 1], np.full(len(users) - old.num_users, np.iinfo(np.int64).min))
    counts = {
        "interactions": int(fresh.sum()),
        "known_interactions": int((~fresh).sum()),
        "late_interactions": int((time < latest[user])[fresh].sum()),
        "users": len(users) - old.num_users,
        "items": len(new.items) - old.num_items,
        "updated_items": len(updates),
        "conflicting_items": num_conflicts,
    }
    log = {name: np.concatenate([column, additions[name][fresh]]) for name, column in log.items()}
    order = np.lexsort((log["time"], log["user"]))  # stable: what was there comes first at the same moment
    record = {"counts": counts, "faults": new.preparation["faults"]}
    dataset = replace(
        old,
        items=new.items,
        users=users,
        item_index=log["item"][order],
        timestamps=log["time"][order],
        seconds_per_unit=unit,
        actions=log["action"][order],
        action_names=action_names,
        offsets=np.concatenate([[0], np.cumsum(np.bincount(log["user"], minlength=len(users)))]),
        preparation=old.preparation | {"added": [*old.preparation.get("added", []), record]},
        **_optional_columns(old, new, fresh, order),
    )
    return Grown(dataset, np.argsort(order)[: old.num_interactions], updates, counts)


def _optional_columns(
    old: Dataset, new: Dataset, fresh: Bool[np.ndarray, " interaction"], order: Int[np.ndarray, " grown_interaction"]
) -> dict[str, Any]:
    """Return the columns of the grown dataset that its old interactions and the new ones have, with their names."""
    columns: dict[str, Any] = {}
    if old.parts is not None and new.parts is not None:
        columns["part_names"], parts = _names(old.part_names, new.part_names, new.parts)
        columns["parts"] = np.concatenate([old.parts, parts[fresh]])[order]
    if old.labels is not None and new.labels is not None:
        columns["labels"] = np.concatenate([old.labels, new.labels[fresh]])[order]
    return columns


def _catalogue(
    old: Dataset, source: Table | None, config: DataConfig, known_items: KnownItems
) -> tuple[pl.DataFrame, Int[np.ndarray, " item"], int]:
    """Return old items, then new ones; which old ones have another text now; how many keep one that conflicts."""
    if source is None:
        return old.items, np.zeros(0, dtype=np.int64), 0
    new = _new_rows(old, source, config)
    place = rows_of(old.item_ids, new[old.item_col])
    repeats = checks.rows_where(place.is_not_null())
    rows = place.drop_nulls().to_numpy()
    old_texts, new_texts = (_as_one_text(table, old.text_cols, config) for table in (old.items[rows], new[repeats]))
    changes = (old_texts != new_texts).to_numpy()
    blanks = checks.without_text(old.items[rows], old.text_cols).to_numpy()
    conflicts = np.flatnonzero(changes & ~blanks)
    if known_items == "error" and len(conflicts):
        first = int(conflicts[0])
        raise DataError(
            f"{len(conflicts):,} of {len(new):,} items are in the run's catalogue with another text; first: "
            f"{first_few(new[old.item_col].gather(repeats[conflicts]))} ({old_texts[first]!r} is "
            f"{new_texts[first]!r} now). Set "
            'parent.known_items = "update" to take the new texts, or "keep" to leave the old ones'
        )
    updates = changes if known_items == "update" else changes & blanks
    order = np.arange(old.num_items)
    order[rows[updates]] = old.num_items + repeats[updates]
    additions = checks.rows_where(place.is_null())
    order = np.concatenate([order, old.num_items + additions])
    num_conflicts = 0 if known_items == "update" else len(conflicts)
    return pl.concat([old.items, new])[order], np.sort(rows[updates]), num_conflicts


def _new_rows(old: Dataset, source: Table, config: DataConfig) -> pl.DataFrame:
    """Read a table of items into the catalogue's columns, without the rows that the policies drop."""
    table = read_table(source, config.items_form, name="items")
    columns = {"item_col": old.item_col} | {f"text_cols[{i}]": name for i, name in enumerate(old.text_cols)}
    require_columns(table, columns, name="items")
    if extra_columns := [name for name in table.columns if name not in old.items.columns]:
        warnings.warn(
            f"the new items' columns {first_few(extra_columns, len(extra_columns))} are left out: the run's catalogue "
            "has none such",
            HllmWarning,
            stacklevel=2,
        )
    new = in_columns_of(old.items, table)
    if config.html == "clean":
        new = new.with_columns(without_html(new[name]) for name in old.text_cols)
    policies: dict[str, checks.Policy] = {name: getattr(config, name) for name in _ITEM_POLICIES}
    faults = checks.item_faults(new, old.item_col, old.text_cols, policies)
    checks.refuse(checks.errors(faults))
    faulty_rows = [fault.rows for fault in faults if fault.policy == "drop"]
    return new[np.setdiff1d(np.arange(len(new)), np.concatenate([np.zeros(0, dtype=np.int64), *faulty_rows]))]


def _read(old: Dataset, interactions: Table, catalogue: pl.DataFrame, config: DataConfig) -> Dataset:
    """Read the new interactions over the whole catalogue; ids of items have the type of before."""
    policies = {"min_user_interactions": 0, "min_item_interactions": 0, "items_without_interactions": "keep",
                 "items_without_text": "keep", "quarantine": None, "html": "keep"}  # fmt: skip
    names = {"item_col": old.item_col, "text_cols": old.text_cols, "title_col": old.title_col}
    preparation, new = prepare(interactions, catalogue, config.model_copy(update=policies | names))
    checks.refuse(refusals(preparation))
    ids = _cast(new.item_ids, old.item_ids, "item")
    additions = new.items[len(catalogue) :].with_columns(ids[len(catalogue) :])  # under unknown_items = "keep"
    return replace(new, items=pl.concat([catalogue, in_columns_of(catalogue, additions)]))


def _users(old: Dataset, new: Dataset) -> tuple[pl.Series, Int[np.ndarray, " interaction"]]:
    """Return the old users' ids, then the new ones', and the row of each new interaction's user."""
    ids = _cast(new.users, old.users, "user")
    places = rows_of(old.users, ids)
    new_ids = ids.filter(places.is_null())
    rows = places.cast(pl.Int64).fill_null(-1).to_numpy(writable=True)
    rows[rows < 0] = old.num_users + np.arange(len(new_ids))
    users = pl.concat([old.users, new_ids.alias(old.users.name)])
    return users, np.repeat(rows, np.diff(new.offsets))


def _times(
    old: Dataset, new: Dataset
) -> tuple[Int[np.ndarray, " old_interaction"], Int[np.ndarray, " interaction"], float | None]:
    """Return both datasets' times in the finer of their units, and that unit in seconds."""
    old_unit, new_unit = old.seconds_per_unit, new.seconds_per_unit
    if old_unit == new_unit:
        return old.timestamps, new.timestamps, old_unit
    if old_unit is None or new_unit is None:
        meanings = ["only order", "are those of a clock"]
        raise DataError(
            f"the times of the run's interactions {meanings[old_unit is not None]}, those of the new ones "
            f"{meanings[new_unit is not None]}: they cannot be put in one order; see data.time_unit"
        )
    unit = min(old_unit, new_unit)
    scales = [round(Fraction(each).limit_denominator(10**12) / Fraction(unit).limit_denominator(10**12))
              for each in (old_unit, new_unit)]  # fmt: skip
    return old.timestamps * scales[0], new.timestamps * scales[1], unit


def _names(
    old: tuple[str, ...], new: tuple[str, ...], values: Int[np.ndarray, " interaction"]
) -> tuple[tuple[str, ...], Int[np.ndarray, " interaction"]]:
    """Return the old names, then new ones, and `values`, positions in `new`, as positions among them."""
    names = (*old, *(name for name in new if name not in old))
    place = np.array([names.index(name) for name in new], dtype=np.int64)
    return names, place[values] if len(new) else values


def _among(
    log: dict[str, Int[np.ndarray, " old_interaction"]], additions: dict[str, Int[np.ndarray, " interaction"]]
) -> Bool[np.ndarray, " interaction"]:
    """Return True for each row of `more` that equals some row of `log` in every column."""
    old, new = (
        pl.DataFrame({name: column.astype(np.int64) for name, column in columns.items()})
        for columns in (log, additions)
    )
    rows = new.with_row_index("row").join(old.unique(), on=old.columns, how="semi")["row"]
    mask = np.zeros(len(new), dtype=bool)
    mask[rows.to_numpy()] = True
    return mask


def _as_one_text(items: pl.DataFrame, text_cols: tuple[str, ...], config: DataConfig) -> pl.Series:
    """Return what is written about each item, as one text."""
    if not text_cols:
        return pl.repeat("", len(items), eager=True)
    texts = [pl.col(name).cast(pl.String).fill_null("").str.strip_chars() for name in text_cols]
    parts = [pl.when(text.is_in(config.missing)).then(pl.lit("")).otherwise(text) for text in texts]
    return items.select(pl.concat_str(parts, separator=" | ")).to_series()


def _cast(ids: pl.Series, like: pl.Series, noun: str) -> pl.Series:
    cast = ids.cast(like.dtype, strict=False)
    if cast.null_count() or cast.n_unique() < len(ids):  # text that is no number; "7" and "07"
        raise DataError(
            f"the new {noun} ids are of type {ids.dtype}, such as {first_few(ids)}, and cannot be read as the run's, "
            f"which are of type {like.dtype}, such as {first_few(like)}"
        )
    return cast
