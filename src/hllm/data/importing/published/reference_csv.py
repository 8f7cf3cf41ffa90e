"""The CSV pair of the HLLM authors' code: interactions by position, item text by name; its traps are reported.

Format: https://github.com/bytedance/HLLM, README and code/REC/data/dataload.py; files of that kind:
https://huggingface.co/ByteDance/HLLM (Interactions/NAME.csv and ItemInformation/NAME.csv). That code takes the three
columns as item_id, user_id, timestamp whatever the header says, loses a first line that is data, gives items
without a row an empty text, and lets the last of several rows of an item win.
"""

# Proved by tests/data/importing/test_layouts.py.

from pathlib import Path

import polars as pl

from hllm.data.importing.layout import Source, Tables, find, matching
from hllm.data.importing.published.pairs import unit_of
from hllm.data.reading.delimited import first_rows
from hllm.data.reading.form import FOUND
from hllm.data.reading.lines import typed
from hllm.data.reading.tables import scan_table
from hllm.errors import DataError

_POSITIONS = ("item_id", "user_id", "timestamp")
_KINDS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
_USUAL = ("title", "tag", "description")


def read(source: Source) -> Tables:
    """Read the pair from dataset/ and information/, or Interactions/ and ItemInformation/, or one folder."""
    log = find(source, "interactions", ["dataset/*.csv", "Interactions/*.csv", "interactions.csv"])
    information = [f"{folder}/{log.name}" for folder in ("information", "ItemInformation")]
    pair_folder = source.folder if matching(source.folder, information) else None
    items_path = find(
        source, "items", information if pair_folder else ["information/*.csv", "ItemInformation/*.csv", "items.csv"]
    )
    log_frame, notes = _interactions(log)
    items = scan_table(items_path, name="items")
    columns = items.collect_schema().names()
    if "item_id" not in columns:
        raise DataError(f"{items_path}, line 1: no column 'item_id'; it has {', '.join(columns)}")
    interactions = typed(log_frame, _KINDS, path=log).select(*_KINDS)
    unit = unit_of(interactions)
    if unit == "ms":
        notes.append("timestamps are milliseconds; the reference takes them for seconds")
    text = tuple(name for name in _USUAL if name in columns) or tuple(name for name in columns if name != "item_id")
    return Tables(
        interactions, items, files=(log, items_path), text_cols=text, time_unit=unit, unknown_items="keep",
        keep="last", settings={"items_without_text": "keep"}, notes=tuple(notes),
    )  # fmt: skip


def _interactions(path: Path) -> tuple[pl.LazyFrame, list[str]]:
    """Name the columns by position, as the reference does, unless the header contradicts that."""
    names = first_rows(path, FOUND)[0]
    header = ", ".join(names)
    if len(names) != 3:
        raise DataError(
            f"{path}, line 1: found {len(names)} columns, {header}; the reference reads exactly three, by position: "
            "item_id, user_id, timestamp. For another table: hllm data import table"
        )
    if names[2].strip().lstrip("-").isdigit():
        raise DataError(
            f"{path}, line 1: {header} looks like data, not a header; the reference would lose this interaction. "
            "Add a first line: item_id,user_id,timestamp"
        )
    frame = scan_table(path, name="interactions")
    positions = [n for n, name in enumerate(names) if name in _POSITIONS and name != _POSITIONS[n]]
    if positions:
        raise DataError(
            f"{path}, line 1: the header says {header}, but the reference reads by position item_id, user_id, "
            "timestamp: it would mix up the columns. Reorder them, or read them by name: hllm data import table"
        )
    notes = [] if tuple(names) == _POSITIONS else [f"columns {header} were read by position: {', '.join(_POSITIONS)}"]
    return frame.rename(dict(zip(names, _POSITIONS, strict=True))), notes
