"""PixelRec, MicroLens, and pairs of Parquet files: interactions of a user, an item and a time, and a table of items.

Formats: PixelRec, https://github.com/westlake-repl/PixelRec (an interactions CSV item_id,user_id,timestamp, and
item_info.csv); MicroLens, https://github.com/westlake-repl/MicroLens (NAME_pairs.csv user,item,timestamp in ms, or
NAME_pairs.tsv user<TAB>items in order, and a title CSV, with or without a header).
"""

# Proved by tests/data/importing/test_layouts.py.

from pathlib import Path
from typing import Literal

import polars as pl

from hllm.data.importing.layout import Source, Tables, find, matching
from hllm.data.reading.delimited import scan_text
from hllm.data.reading.form import Form
from hllm.data.reading.lines import first_line, scan_delimited, typed
from hllm.data.reading.tables import scan_table
from hllm.data.texts import default_text_columns
from hllm.errors import DataError

_KINDS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
_MILLISECONDS_FROM = 100_000_000_000  # as seconds this is the year 5138, as milliseconds 1973


def read_pixelrec(source: Source) -> Tables:
    """Read the interactions and item_info.csv; the counts of views and likes stay columns, but are no text."""
    info = find(source, "items", ["*item_info*.csv*", "items.csv*"])
    log = find(source, "interactions", ["*.csv*"], but_not=["*item*"])
    interactions, items = scan_table(log, name="interactions"), scan_table(info, name="items")
    _require(log, interactions, ("item_id", "user_id", "timestamp"))
    _require(info, items, ("item_id", "title"))
    interactions = typed(interactions, _KINDS, path=log).select(*_KINDS)
    columns = items.collect_schema()
    text = tuple(name for name in ("title", "title_en", "tag", "description") if name in columns)
    return Tables(interactions, items, files=(log, info), text_cols=text, time_unit=unit_of(interactions))


def read_microlens(source: Source) -> Tables:
    """Read the pairs and the titles; where both kinds of pairs are there, the CSV, which has times."""
    pairs = [] if source.interactions else matching(source.folder, ["*_pairs.csv"])
    log = pairs[0] if len(pairs) == 1 else find(source, "interactions", ["*_pairs.csv", "*_pairs.tsv"])
    titles = find(source, "items", ["*title*.csv"])
    items = _titles(titles)
    if log.suffix == ".tsv":
        rows = scan_delimited(log, "\t", ["user_id", "items"], scratch=source.scratch, header=False)
        events = rows.select("user_id", item_id=pl.col("items").str.split(" ")).with_columns(
            timestamp=pl.int_ranges(pl.col("item_id").list.len(), dtype=pl.Int64)
        )
        interactions = events.explode("item_id", "timestamp")
        return Tables(
            interactions, items, files=(log, titles), text_cols=("title",), time_unit="none",
            notes=("timestamp is the position in the user's history: the file has no times",),
        )  # fmt: skip
    interactions = scan_table(log, name="interactions")
    _require(log, interactions, ("user", "item", "timestamp"))
    interactions = interactions.rename({"user": "user_id", "item": "item_id"})
    interactions = typed(interactions, _KINDS, path=log).select(*_KINDS)
    return Tables(interactions, items, files=(log, titles), text_cols=("title",), time_unit=unit_of(interactions))


def read_two_parquet(source: Source) -> Tables:
    """Read interactions.parquet and items.parquet; positions in place of times are recognised."""
    log, catalogue = find(source, "interactions", ["interactions.parquet"]), find(source, "items", ["items.parquet"])
    interactions, items = scan_table(log, name="interactions"), scan_table(catalogue, name="items")
    _require(log, interactions, tuple(_KINDS))
    _require(catalogue, items, ("item_id",))
    schema = items.collect_schema()
    text = sorted(default_text_columns(items, "item_id")[0], key=lambda name: name != "title")
    notes, settings = [], {}
    positions = _only_positions(interactions)
    if positions:
        notes.append("timestamp is the position in the user's history, not a time")
    if schema.get("in_interactions") == pl.Boolean:
        settings["items_without_interactions"] = "drop"
        notes.append("column in_interactions marks the candidate set: items without interactions are left out of it")
    return Tables(
        interactions, items, files=(log, catalogue), text_cols=tuple(text),
        time_unit="none" if positions else unit_of(interactions), settings=settings, notes=tuple(notes),
    )  # fmt: skip


def unit_of(interactions: pl.LazyFrame) -> Literal["s", "ms", "us"]:
    """Tell seconds from milliseconds and microseconds by the latest time."""
    latest = (
        interactions.select(pl.col("timestamp").cast(pl.Int64, strict=False).max()).collect(engine="streaming").item()
    )
    if latest is None or latest < _MILLISECONDS_FROM:
        return "s"
    return "ms" if latest < 1000 * _MILLISECONDS_FROM else "us"


def _only_positions(interactions: pl.LazyFrame) -> bool:
    """Tell whether every user's times are 0, 1, 2 … without a gap."""
    if not interactions.collect_schema()["timestamp"].is_integer():
        return False
    time = pl.col("timestamp")
    gapless = (time.min() == 0) & (time.max() == pl.len() - 1) & (time.n_unique() == pl.len())
    users = interactions.group_by("user_id").agg(gapless=gapless)
    return bool(users.select(pl.col("gapless").all()).collect(engine="streaming").item())


def _titles(path: Path) -> pl.LazyFrame:
    """Read item,title rows; some of the published files have a header, some have none."""
    first_cell = first_line(path).split(",")[0].strip('"')
    has_header = not first_cell.isdigit()
    frame = scan_text(path, Form(",", header=has_header))
    columns = frame.collect_schema().names()
    if len(columns) != 2:
        raise DataError(f"{path}, line 1: found {len(columns)} columns, expected 2: item and title")
    return frame.rename(dict(zip(columns, ("item_id", "title"), strict=True)))


def _require(path: Path, frame: pl.LazyFrame, names: tuple[str, ...]) -> None:
    columns = frame.collect_schema().names()
    if missing := [name for name in names if name not in columns]:
        raise DataError(
            f"{path}, line 1: no column {missing[0]!r}; expected {', '.join(names)}, found {', '.join(columns)}"
        )
