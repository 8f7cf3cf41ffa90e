"""Read any two tables: the caller says which column means what, and every other column keeps its name."""

# Proved by tests/data/importing/test_layouts.py.

from pathlib import Path
from typing import Literal

import polars as pl

from hllm.data.importing.layout import Columns, Source, Tables
from hllm.data.reading.form import Form
from hllm.data.reading.lines import numbered
from hllm.data.reading.tables import scan_table
from hllm.errors import DataError, nearest


def read(source: Source) -> Tables:
    """Read the tables, check the columns against the headers, and rename them to the defaults."""
    log, catalogue = _path(source, "interactions"), _path(source, "items")
    assert log is not None
    names = source.columns
    interactions = scan_table(log, source.interactions_form, name="interactions")
    options = {"user_id": (names.user, "--user-col"), "item_id": (names.item, "--item-col")}
    if names.time:
        options["timestamp"] = (names.time, "--time-col")
    interactions = _renamed(interactions, options, log)
    if names.action:
        _require(interactions, names.action, "--action-col", log)
    if not names.time:
        interactions = numbered(interactions)
    items = None if catalogue is None else _items(catalogue, names, source.items_form)
    key_columns = ["user_id", "item_id", "timestamp"]
    other_columns = [name for name in interactions.collect_schema() if name not in key_columns]
    return Tables(
        interactions.select(*key_columns, *other_columns), items,
        files=tuple(filter(None, (log, catalogue))), text_cols=names.text,
        time_unit="s" if names.time else "none", action_col=names.action,
        notes=() if names.time else ("timestamp is the row: no time column was named",),
    )  # fmt: skip


def _items(path: Path, names: Columns, form: Form) -> pl.LazyFrame:
    """Read the items; a column of ids that are titles stays, under its own name, to be read as text."""
    items, ids = scan_table(path, form, name="items"), names.items_item or names.item
    titles = _renamed(items, {"item_id": (ids, "--items-item-col")}, path)
    for name in names.text or ():
        _require(items, name, "--text-cols", path)
    if ids != "item_id" and (ids in (names.text or ()) or _are_titles(items.select(pl.col(ids).cast(pl.String)))):
        titles = titles.select("item_id", pl.col("item_id").alias(ids), pl.exclude("item_id"))
    return titles


def _are_titles(ids: pl.LazyFrame) -> bool:
    """Tell whether at least half of the ids are several words."""
    share = ids.select(pl.all().str.contains(r"\p{L}.*\s+\S*[\p{L}\d]").mean()).collect(engine="streaming").item()
    return share is not None and share >= 0.5


def _path(source: Source, which: Literal["interactions", "items"]) -> Path | None:
    """Return the path, glob or directory that the caller named, or the one file of the folder with that name."""
    path = source.interactions if which == "interactions" else source.items
    if path is not None:
        return path
    files = sorted(source.folder.glob(f"{which}.*"))
    if len(files) > 1 or (which == "interactions" and not files):
        raise DataError(
            f"{which}: {len(files)} files in {source.folder} are called {which}.*, expected one; "
            f"name it with --{which} FILE"
        )
    return files[0] if files else None


def _renamed(frame: pl.LazyFrame, options: dict[str, tuple[str, str]], path: Path) -> pl.LazyFrame:
    for default, (name, option) in options.items():
        _require(frame, name, option, path)
        if name != default and default in frame.collect_schema():
            raise DataError(
                f"{path} has both {name!r}, named with {option}, and a column {default!r}, the name it would get; "
                f"rename the column {default!r} in the file"
            )
    return frame.rename({name: default for default, (name, _) in options.items()})


def _require(frame: pl.LazyFrame, name: str, option: str, path: Path) -> None:
    columns = frame.collect_schema().names()
    if name not in columns:
        raise DataError(
            f"{path} has no column {name!r}{nearest(name, columns)}; it has {', '.join(map(repr, columns))}. "
            f"Name the right one with {option}"
        )
