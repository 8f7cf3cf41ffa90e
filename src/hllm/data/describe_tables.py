"""Describe two tables as they were given: what building a dataset would stop at is counted here instead."""

import polars as pl
from polars.exceptions import ComputeError

from hllm.data.dataset import Dataset, build_dataset
from hllm.data.describe import EXAMPLES, TokenCounter, columns, describe, item_roles, without_text
from hllm.data.description import Description, Fault
from hllm.data.notes import notes
from hllm.data.prompt import PromptConfig
from hllm.data.schema import DataConfig
from hllm.data.split import SplitConfig, split_dataset
from hllm.data.tables import Table, read_table, require_columns
from hllm.errors import DataError

_FILL_IN = "fill in or remove these rows"


def describe_tables(
    interactions: Table,
    items: Table,
    config: DataConfig,
    *,
    split: SplitConfig | None = None,
    prompt: PromptConfig | None = None,
    counter: TokenCounter | None = None,
) -> Description:
    """Describe the tables; rows that cannot be used are counted and left out of all other numbers.

    Items without text stay, and interactions with unknown items go, unless the config says otherwise. A split that
    the data do not allow is left out, and a note says why. Raises DataError where no dataset can be made at all:
    missing columns, unreadable files, no usable interaction.
    """
    given, catalogue = read_table(interactions, name="interactions"), read_table(items, name="items")
    roles = {config.user_col: "user", config.item_col: "item"}
    wanted = {"user_col": config.user_col, "item_col": config.item_col}
    for key, role in (("time_col", "time"), ("action_col", "action")):
        if column := getattr(config, key):
            wanted[key] = column
            roles[column] = role
    require_columns(given, wanted, name="interactions")
    require_columns(catalogue, {"item_col": config.item_col}, name="items")

    log, faults = _usable_interactions(given, config)
    known, item_faults = _usable_items(catalogue, config)
    faults += [_unknown_items(log, known, config), *item_faults]
    dataset = build_dataset(log, known, _forgiving(config))
    faults.append(_items_without_text(known, dataset, config))

    parts, refused = None, []
    if split is not None:
        try:
            parts = split_dataset(dataset, split)
        except DataError as error:
            refused.append(f"{str(error)[0].upper()}{str(error)[1:]}.")
    described = describe(dataset, parts, prompt=prompt, counter=counter).model_copy(
        update={
            "interaction_columns": columns(given, roles),
            "item_columns": columns(catalogue, item_roles(dataset)),
            "faults": tuple(faults),
        }
    )
    return described.model_copy(update={"notes": (*notes(described), *refused)})


def _forgiving(config: DataConfig) -> DataConfig:
    """Return the config with policies that never stop; those that somebody has chosen stay."""
    unknown = "drop" if config.unknown_items == "error" else config.unknown_items
    without = "keep" if config.items_without_text == "error" else config.items_without_text
    return config.model_copy(update={"unknown_items": unknown, "items_without_text": without})


def _usable_interactions(given: pl.DataFrame, config: DataConfig) -> tuple[pl.DataFrame, list[Fault]]:
    """Return the interactions that have ids and a readable time, and what was wrong with the others."""
    total, faults = len(given), []
    for noun, column in (("user", config.user_col), ("item", config.item_col)):
        missing = given[column].null_count()
        faults.append(
            Fault(rows="interactions", what=f"have no {noun} id", count=missing, total=total, advice=_FILL_IN)
        )
    log = given.drop_nulls([config.user_col, config.item_col])
    if config.time_col:
        bad = _unreadable(given[config.time_col])
        faults.append(
            Fault(
                rows="interactions",
                what=f"have no readable time in {config.time_col!r}",
                count=int(bad.sum()),
                total=total,
                examples=_most_frequent(given[config.time_col].filter(bad)),
                advice="give numbers, or dates such as 2024-05-31 12:00:00, or remove these rows",
            )
        )
        log = given.filter(~bad).drop_nulls([config.user_col, config.item_col])
    if log.is_empty():
        raise DataError(
            f"none of the {total:,} interactions has a user id, an item id and a readable time; "
            "are user_col, item_col and time_col the right columns?"
        )
    return log, faults


def _usable_items(catalogue: pl.DataFrame, config: DataConfig) -> tuple[pl.DataFrame, list[Fault]]:
    """Return the first row of each item that has an id, and what was wrong with the other rows."""
    with_id = catalogue.drop_nulls(config.item_col)
    if with_id.is_empty():
        raise DataError(f"none of the {len(catalogue):,} items has an id in {config.item_col!r}")
    first = with_id.unique(config.item_col, keep="first", maintain_order=True)
    again = with_id[config.item_col].filter(~with_id[config.item_col].is_first_distinct())
    total = len(catalogue)
    return first, [
        Fault(rows="items", what="have no id", count=total - len(with_id), total=total, advice=_FILL_IN),
        Fault(
            rows="items",
            what="have the id of an earlier row",
            count=len(again),
            total=total,
            examples=_most_frequent(again),
            advice="keep one row for each item",
        ),
    ]


def _unknown_items(log: pl.DataFrame, catalogue: pl.DataFrame, config: DataConfig) -> Fault:
    """Count the interactions with items that the table lacks; ids are compared as text, once for each item."""
    used = log[config.item_col].value_counts(name="count").rename({config.item_col: "id"})
    known = _as_text(catalogue[config.item_col])
    unknown = used.with_columns(_as_text(used["id"])).filter(~pl.col("id").is_in(known.implode()))
    return Fault(
        rows="interactions",
        what="name items that the items table lacks",
        count=int(unknown["count"].sum()),
        total=len(log),
        examples=tuple(unknown.sort("count", "id", descending=[True, False])["id"].head(EXAMPLES)),
        advice='add these items, or set data.unknown_items to "drop" or "keep"',
    )


def _items_without_text(catalogue: pl.DataFrame, dataset: Dataset, config: DataConfig) -> Fault:
    empty = without_text(catalogue, dataset.text_cols, config.missing)
    return Fault(
        rows="items",
        what=f"have no text in {', '.join(map(repr, dataset.text_cols))}",
        count=int(empty.sum()),
        total=len(catalogue),
        examples=tuple(catalogue[config.item_col].filter(empty).cast(pl.String).sort().head(EXAMPLES)),
        advice='describe them, or set data.items_without_text to "drop" or "keep"',
    )


def _unreadable(column: pl.Series) -> pl.Series:
    """Return which values are no time, by the reading, as numbers or as dates, that most values allow."""
    if column.dtype.is_float():
        return column.is_null() | ~column.is_finite().fill_null(False)
    if column.dtype != pl.String:
        return column.is_null()
    numbers = column.cast(pl.Float64, strict=False)
    readings = [numbers.is_null() | ~numbers.is_finite().fill_null(False)]
    try:
        readings.append(column.str.to_datetime(strict=False, time_unit="us").is_null())
    except ComputeError:  # not even one value looks like a date
        pass
    return min(readings, key=lambda bad: int(bad.sum()))


def _as_text(ids: pl.Series) -> pl.Series:
    """Return ids as text; whole numbers that came as fractions, as beside missing values in pandas, without ".0"."""
    if ids.dtype.is_float():
        whole = ids.cast(pl.Int64, strict=False)
        ids = whole if (whole == ids).all() and not whole.null_count() else ids
    return ids.cast(pl.String)


def _most_frequent(values: pl.Series) -> tuple[str, ...]:
    """Return the most frequent values that are not null, ties in alphabetical order."""
    counts = values.drop_nulls().cast(pl.String).alias("value").value_counts(name="count")
    return tuple(counts.sort("count", "value", descending=[True, False])["value"].head(EXAMPLES))
