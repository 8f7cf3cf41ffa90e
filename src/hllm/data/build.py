"""Build a Dataset from the caller's two tables: read, check, filter, number and sort them."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from hllm.data.checks import Fault, Policy, TableName, errors, how_to, is_missing, item_faults, refuse, without_text
from hllm.data.dataset import Dataset, rows_of
from hllm.data.events import Events, in_order, repeated, without_empty_users
from hllm.data.filters import filter_interactions
from hllm.data.ids import alike, causes, of_one_type
from hllm.data.log import MISSING, InteractionLog, read_log, texts_of_times
from hllm.data.quarantine import write_quarantine
from hllm.data.reading.files import find_files, is_text
from hllm.data.reading.tables import Table, read_table, require_columns, scan_table
from hllm.data.reading.times import better_clock
from hllm.data.schema import DataConfig
from hllm.data.texts import default_text_columns, holds_text, require_texts, without_html
from hllm.errors import DataError, HllmWarning

_LEFT_OUT = -2  # the row of an item that is in the table, but left out for want of text


@dataclass(frozen=True)
class Preparation:
    """Faults of the tables, and how much was left after each step."""

    faults: tuple[Fault, ...]
    """Every kind of fault that was looked for, those without rows included."""
    steps: tuple[dict[str, Any], ...]
    """"read", "faults" and the filter if there is one: with rows, users and items of the interactions after it."""

    def facts(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        return {"faults": [fault.facts() for fault in self.faults], "steps": list(self.steps)}


def build_dataset(interactions: Table, items: Table | None, config: DataConfig) -> Dataset:
    """Check the two tables and join them: time order within a user, ties in the order of the file.

    Without a table of items the catalogue is the ids that the interactions name, and there is no text to read.

    Users are numbered in the order of their first interactions, so that the order of the rows matters to ties alone.
    Raises one DataError that names every fault whose policy is "error", after writing the quarantine if the config
    asks for one; DataError too if nothing is left. Memory grows with the interactions, by about 60 bytes each, and
    with the distinct ids.
    """
    preparation, dataset = prepare(interactions, items, config)
    refuse(refusals(preparation))
    if clock := preparation.steps[0].get("clock"):
        warnings.warn(
            f"the times, read by data.time_unit = {config.time_unit!r}, are not those of our days; is it {clock}?",
            HllmWarning,
            stacklevel=2,
        )
    return dataset


def prepare(interactions: Table, items: Table | None, config: DataConfig) -> tuple[Preparation, Dataset]:
    """Return what is wrong with the tables and what is left of them, maybe nothing; "error" is done as "drop".

    Raises DataError for tables that cannot be read or lack a column. Writes the quarantine.
    """
    described = None if items is None else read_table(items, config.items_form, name="items")
    if described is not None:
        require_columns(described, {"item_col": config.item_col}, name="items")
    log = read_log(interactions, config)
    table = pl.DataFrame({config.item_col: log.items.sort()}) if described is None else described
    text_cols = _text_columns(table, config)
    named = "title" if "title" in table.columns and holds_text(table["title"]) else [*text_cols, config.item_col][0]
    title = config.title_col or named
    require_columns(table, {"title_col": title}, name="items")
    require_texts(table, [*text_cols, title])
    descriptions = _with_missing(table, text_cols, config)
    faults = item_faults(descriptions, config.item_col, text_cols, _policies(config))
    catalogue, names, item = _catalogue_for(descriptions, log.items, text_cols, config)
    faults += _log_faults(log, names, item, catalogue, config, interactions)
    if config.unknown_items == "keep":
        new_ids = names.filter(pl.Series(item == MISSING)).sort().alias(config.item_col)
        item[item == MISSING] = len(catalogue) + rows_of(new_ids, names.filter(pl.Series(item == MISSING))).to_numpy()
        catalogue = pl.concat([catalogue, new_ids.to_frame()], how="diagonal")

    counts = {"rows": len(log), "users": len(log.users), "items": len(log.items)}
    steps = [{"step": "read", **counts} if config.where is None else {"step": "where", "of": log.num_rows, **counts}]
    if log.date_order is not None:
        steps[0]["dates"] = log.date_order
    if clock := better_clock(log.timestamps[~log.no_time], log.seconds_per_unit):
        steps[0]["clock"] = clock
    events, users = in_order(log, item)
    repeats = repeated(events) if config.time_col else np.zeros(len(events.row), dtype=bool)
    faults.append(_duplicates(log.places(events.row[repeats]), len(log), config))
    if config.duplicate_interactions != "keep":
        events = events[~repeats]
    steps.append(_step("faults", events))
    events, survivors = _filtered(events, len(catalogue), config, steps)
    if config.items_without_interactions == "drop":
        survivors &= np.bincount(events.item, minlength=len(catalogue)) > 0
    if config.quarantine is not None:
        tables = {
            "interactions": (
                scan_table(interactions, config.interactions_form, name="interactions"),
                _is_text(interactions),
            )
        }
        if items is not None:
            tables["items"] = (table.lazy(), _is_text(items))
        write_quarantine(Path(config.quarantine), faults, tables)
    preparation = Preparation(tuple(faults), tuple(steps))
    users, offsets = without_empty_users(events, users)
    return preparation, Dataset(
        items=catalogue.filter(pl.Series(survivors, dtype=pl.Boolean)),
        users=users,
        item_col=config.item_col,
        text_cols=text_cols,
        title_col=title,
        item_index=(np.cumsum(survivors) - 1)[events.item],
        timestamps=events.timestamps,
        seconds_per_unit=log.seconds_per_unit,
        actions=events.actions,
        action_names=log.action_names,
        offsets=offsets,
        parts=events.parts if config.split_col else None,
        part_names=log.part_names,
        labels=events.labels if config.targets else None,
        label_names=tuple(target.name for target in config.targets),
        preparation=preparation.facts(),
    )


def refusals(preparation: Preparation) -> list[str]:
    """Return why these tables make no dataset: each fault whose policy is "error", else the step that left nothing."""
    messages = errors(preparation.faults)
    pairs = zip(preparation.steps, preparation.steps[1:], strict=False)
    pair = next(((before, after) for before, after in pairs if not after["rows"]), None)
    if messages or pair is None:
        return messages
    before, after = pair
    if after["step"] == "faults":
        causes = [f"{len(f.rows):,} {f.what}" for f in preparation.faults if f.table == "interactions" and len(f.rows)]
        return [f"none of the {before['rows']:,} interactions is left: {'; '.join(causes)}"]
    return [
        f"none of the {before['rows']:,} interactions of {before['users']:,} users with {before['items']:,} items is "
        f'left by data.filter = "{after["step"]}"; lower data.min_user_interactions, now {after["min_user"]}, or '
        f"data.min_item_interactions, now {after['min_item']}"
    ]


def _policies(config: DataConfig) -> dict[str, Policy]:
    return {
        "missing_item_ids": config.missing_item_ids,
        "duplicate_items": config.duplicate_items,
        "items_without_text": config.items_without_text,
    }


def _log_faults(
    log: InteractionLog,
    names: pl.Series,
    item: Int[np.ndarray, " name"],
    catalogue: pl.DataFrame,
    config: DataConfig,
    source: Table,
) -> list[Fault]:
    """Return the faults of single interactions; `item` is the catalogue's row of each of `names`."""
    unknown_ids = names.filter(pl.Series(item == MISSING, dtype=pl.Boolean))

    def fault(name: str, policy: Policy, mask: Bool[np.ndarray, " row"], what: str, advice: str) -> Fault:
        found = np.flatnonzero(mask)
        rows = log.places(found)
        values: tuple[Any, ...] = ()
        if name in ("unknown_items", "items_without_text"):
            values = tuple(names.gather(log.item[found[:3]]))
        elif name == "unreadable_times" and len(rows):
            values = texts_of_times(source, config, rows[:3])
        table: TableName = "interactions"
        return Fault(name, table, policy, len(log), rows, what, advice, values)

    places = np.append(item, 0)  # MISSING reads this entry: no fault of the item's
    return [
        fault(
            "missing_user_ids",
            config.missing_user_ids,
            log.user == MISSING,
            f"have no {config.user_col}",
            how_to("Fill it in", "missing_user_ids"),
        ),
        fault(
            "missing_item_ids",
            config.missing_item_ids,
            log.item == MISSING,
            f"have no {config.item_col}",
            how_to("Fill it in", "missing_item_ids"),
        ),
        fault(
            "unknown_items",
            config.unknown_items,
            (places == MISSING)[log.item],
            "name items that the items table lacks",
            _how_to_know(unknown_ids, catalogue[config.item_col]),
        ),
        fault(
            "items_without_text",
            "keep" if config.items_without_text == "keep" else "drop",
            (places == _LEFT_OUT)[log.item],
            "name items without text, which are left out",
            "Describe these items",
        ),
        fault(
            "unreadable_times",
            config.unreadable_times,
            log.no_time,
            f"have no readable time in {config.time_col!r}",
            how_to("Give a number, or a date such as 2024-05-31 12:00:00", "unreadable_times"),
        ),
    ]


def _how_to_know(unknown: pl.Series, known: pl.Series) -> str:
    """Return what to do about unknown ids: not to drop them, where some are known ones in another spelling."""
    pairs = alike(known, unknown) if len(unknown) else None
    if pairs is None or not len(pairs):
        return how_to("Add these items", "unknown_items", "leave the interactions out")
    return (
        f"Some are written in another way: {causes(pairs, known, unknown)}. Correct one of the tables, or set "
        'data.match_ids = "loose" to take these ids for the same'
    )


def _duplicates(rows: Int[np.ndarray, " row"], total: int, config: DataConfig) -> Fault:
    return Fault(
        name="duplicate_interactions",
        table="interactions",
        policy=config.duplicate_interactions,
        total=total,
        rows=np.sort(rows),
        what="have the user, item, time and action of an earlier one",
        advice=how_to("Remove them", "duplicate_interactions"),
    )


def _text_columns(items: pl.DataFrame, config: DataConfig) -> tuple[str, ...]:
    if config.text_cols is None:
        return default_text_columns(items.lazy(), config.item_col)[0]
    if len(set(config.text_cols)) < len(config.text_cols):
        raise DataError(f"data.text_cols names each column once; found {list(config.text_cols)}")
    require_columns(items, {f"text_cols[{i}]": name for i, name in enumerate(config.text_cols)}, name="items")
    return config.text_cols


def _with_missing(items: pl.DataFrame, text_cols: tuple[str, ...], config: DataConfig) -> pl.DataFrame:
    """Return the items with "" in every text cell that is empty or reads as missing, if the config asks for it."""
    if config.html == "clean":
        items = items.with_columns(without_html(items[name]) for name in text_cols)
    if not config.missing and config.items_without_text != "keep" and config.unknown_items != "keep":
        return items
    texts = {name: pl.col(name).cast(pl.String).fill_null("") for name in text_cols}
    return items.with_columns(
        **{name: pl.when(text.is_in(config.missing)).then(pl.lit("")).otherwise(text) for name, text in texts.items()}
    )


def _catalogue_for(
    descriptions: pl.DataFrame, names: pl.Series, text_cols: tuple[str, ...], config: DataConfig
) -> tuple[pl.DataFrame, pl.Series, Int[np.ndarray, " name"]]:
    """Return the catalogue without rows at fault, the log's item ids in its type, and the row of each of them.

    The row of an item that is left out for want of text is _LEFT_OUT, that of one that the table lacks MISSING.
    """
    ids = descriptions[config.item_col]
    descriptions = descriptions.filter(ids.is_first_distinct() & ~is_missing(ids))
    ids, names = of_one_type(descriptions[config.item_col], names)
    descriptions = descriptions.with_columns(ids.alias(config.item_col))
    rows = rows_of(ids, names).fill_null(MISSING).to_numpy(writable=True)
    if config.match_ids == "loose":
        unknown = np.flatnonzero(rows == MISSING)
        pairs = alike(ids, names.gather(unknown))
        rows[unknown[pairs["unknown"]]] = pairs["known"]
    if config.items_without_text == "keep":
        return descriptions, names, rows
    empty = without_text(descriptions, text_cols).to_numpy()
    places = np.append(np.where(empty, _LEFT_OUT, np.cumsum(~empty) - 1), MISSING)  # MISSING reads the last entry
    return descriptions.filter(pl.Series(~empty)), names, places[rows]


def _filtered(
    events: Events, num_items: int, config: DataConfig, steps: list[dict[str, Any]]
) -> tuple[Events, Bool[np.ndarray, " item"]]:
    """Apply the least numbers of interactions; return what is left, and which items stay in the catalogue."""
    if not config.min_user_interactions and not config.min_item_interactions:
        return events, np.ones(num_items, dtype=bool)
    mask, survivors, rounds = filter_interactions(
        events.user,
        events.item,
        kind=config.filter,
        min_user=config.min_user_interactions,
        min_item=config.min_item_interactions,
        num_items=num_items,
    )
    events = events[mask]
    bounds = {"min_user": config.min_user_interactions, "min_item": config.min_item_interactions}
    steps.append(_step(config.filter, events) | bounds | {"rounds": rounds})
    return events, survivors


def _step(name: str, events: Events) -> dict[str, Any]:
    users = int((np.diff(events.user) != 0).sum()) + 1 if len(events.user) else 0
    items = int((np.bincount(events.item) > 0).sum())
    return {"step": name, "rows": len(events.row), "users": users, "items": items}


def _is_text(source: Table) -> bool:
    return isinstance(source, str | Path) and all(map(is_text, find_files(source, name="files")))
