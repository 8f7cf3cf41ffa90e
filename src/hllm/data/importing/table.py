"""Read any two tables: the caller says which column means what, and every other column keeps its name."""

# Proved by tests/data/importing/test_layouts.py.

from pathlib import Path

import polars as pl

from hllm.data.importing.layout import Source, Tables
from hllm.data.importing.lines import numbered
from hllm.data.tables import scan_table
from hllm.errors import DataError, nearest


def read(source: Source) -> Tables:
    """Read the tables, check the columns against the headers, and rename them to the defaults."""
    log, catalogue = _path(source, "interactions"), _path(source, "items")
    wanted = source.columns
    interactions, items = scan_table(log, name="interactions"), scan_table(catalogue, name="items")
    options = {"user_id": (wanted.user, "--user-col"), "item_id": (wanted.item, "--item-col")}
    if wanted.time:
        options["timestamp"] = (wanted.time, "--time-col")
    interactions = _renamed(interactions, options, log)
    if wanted.action:
        _require(interactions, wanted.action, "--action-col", log)
    if not wanted.time:
        interactions = numbered(interactions)
    items = _renamed(items, {"item_id": (wanted.items_item or wanted.item, "--items-item-col")}, catalogue)
    for name in wanted.text or ():
        _require(items, name, "--text-cols", catalogue)
    text = wanted.text or tuple(
        name for name, kind in items.collect_schema().items() if kind == pl.String and name != "item_id"
    )
    first = ["user_id", "item_id", "timestamp"]
    rest = [name for name in interactions.collect_schema() if name not in first]
    return Tables(
        interactions.select(*first, *rest), items, files=(log, catalogue), text_cols=text,
        time_unit="s" if wanted.time else "none", action_col=wanted.action,
        notes=() if wanted.time else ("timestamp is the row: no time column was named",),
    )  # fmt: skip


def _path(source: Source, which: str) -> Path:
    """Return the path, glob or directory that the caller named, or the one file of the folder with that name."""
    chosen = source.interactions if which == "interactions" else source.items
    if chosen is not None:
        return chosen
    found = sorted(source.folder.glob(f"{which}.*"))
    if len(found) != 1:
        raise DataError(
            f"{which}: {len(found)} files in {source.folder} are called {which}.*, expected one; "
            f"name it with --{which} FILE"
        )
    return found[0]


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
