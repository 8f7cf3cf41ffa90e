"""Import a layout: two Parquet files with the default column names, in a directory written whole or not at all."""

# Proved by tests/data/importing/test_layouts.py.

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from hllm import artifacts
from hllm.data.importing.layout import Columns, Source, Tables, matching
from hllm.data.importing.layouts import layout_named
from hllm.data.reading.files import KINDS, find_fault, find_files
from hllm.errors import ConfigError, DataError, HllmError

KIND = "data set"


@dataclass(frozen=True)
class ImportedTables:
    """Facts about the files that an import wrote."""

    folder: Path
    num_users: int
    num_items: int
    num_interactions: int
    data: dict[str, Any]
    """The `[data]` table of a recipe that reads it."""
    notes: tuple[str, ...]

    def toml(self) -> str:
        """Return `data` as TOML."""
        return "[data]\n" + "\n".join(f"{key} = {json.dumps(v, ensure_ascii=False)}" for key, v in self.data.items())


def import_layout(
    layout: str,
    folder: Path,
    *,
    out: Path,
    interactions: Path | None = None,
    items: Path | None = None,
    columns: Columns | None = None,
) -> ImportedTables:
    """Read a published layout in `folder` and write interactions.parquet and items.parquet into a new directory.

    `interactions` and `items` name a file where the folder has several; `columns` is for the layouts `table` and
    `recbole`. Raises DataError, with file and line, for what cannot be read, and then writes nothing; ConfigError if
    `out` exists. Memory holds the ids at most, not the tables.
    """
    reader = layout_named(layout)
    if columns not in (None, Columns()) and not reader.any_columns:
        raise ConfigError(
            f"the columns of {layout} are fixed; leave out the names, or import with: hllm data import table"
        )
    if out.exists():
        raise ConfigError(f"{out} exists already; name a new directory, or remove it")
    if not folder.is_dir() and (interactions is None or items is None):
        raise DataError(f"{folder} is not a directory; name the one with {reader.about}, or both files with "
                        "--interactions and --items")  # fmt: skip
    details: dict[str, Any] = {"layout": layout}
    with artifacts.writing(out, KIND, details) as partial:
        scratch = partial / "scratch"
        scratch.mkdir()
        source = Source(folder, interactions, items, scratch, columns or Columns())
        tables = _explained(source, lambda: reader.read(source))
        notes = list(tables.notes) + _explained(source, lambda: _write(tables, partial, scratch))
        shutil.rmtree(scratch)
        facts = _facts(partial, tables.text_cols)
        data = _data_table(tables, facts, out)
        notes += _what_is_odd(facts, data)
        counts = {key: facts[key] for key in ("num_users", "num_items", "num_interactions")}
        details |= counts | {"files": [file.name for file in tables.files], "notes": notes}
    return ImportedTables(out, **counts, data=data, notes=tuple(notes))


def _explained(source: Source, work: Any) -> Any:
    """Do the work; where polars fails on one of the files, say where it is broken."""
    try:
        return work()
    except HllmError:
        raise
    except (PolarsError, UnicodeDecodeError) as error:
        for file in _text_files(source):
            if fault := find_fault(file):
                raise DataError(f"{file}, {fault}") from None
        raise DataError(f"{source.folder} cannot be read: {str(error).splitlines()[0]}") from None


def _text_files(source: Source) -> list[Path]:
    """Return the files that may have been read and that can be looked through."""
    named_files = [
        file for name in (source.interactions, source.items) if name for file in find_files(name, name="files")
    ]
    files = [*named_files, *matching(source.folder, ["*", "*/*"])]
    return [file for file in files if any(suffix.lower() in KINDS for suffix in file.suffixes[-2:])]


def _write(tables: Tables, folder: Path, scratch: Path) -> list[str]:
    """Write every table a part at a time; one row for each item. Returns what a person should know."""
    for name, frame in {"interactions": tables.interactions, **tables.extra}.items():
        frame.sink_parquet(folder / f"{name}.parquet", mkdir=False)
    columns = ["item_id", *(c for c in tables.items.collect_schema() if c != "item_id")]
    path = scratch / "every-item.parquet"
    tables.items.select(columns).sink_parquet(path)
    ids = pl.scan_parquet(path, glob=False).select("item_id").with_row_index("row").collect()
    blanks = ids.filter(pl.col("item_id").is_null() | (pl.col("item_id").cast(pl.String) == ""))["row"]
    representatives = ids.unique("item_id", keep=tables.keep, maintain_order=True)["row"]
    survivors = representatives.filter(~representatives.is_in(blanks.implode()))
    notes = []
    if len(blanks):
        notes.append(f"{len(blanks):,} rows of the items have no id and were left out")
    if num_repeats := len(ids) - len(blanks) - len(survivors):
        notes.append(f"{num_repeats:,} rows repeat an item; the {tables.keep} row of each was kept")
    rows = pl.scan_parquet(path, row_index_name="row", glob=False)
    if notes:
        rows = rows.join(survivors.to_frame().lazy(), on="row", how="semi", maintain_order="left")
    rows.drop("row").sink_parquet(folder / "items.parquet")
    return notes


def _facts(folder: Path, text_cols: tuple[str, ...]) -> dict[str, int]:
    """Count what was written, and what a dataset could not use; DataError if there is nothing."""
    log, items = (pl.scan_parquet(folder / f"{name}.parquet", glob=False) for name in ("interactions", "items"))
    no_text = pl.all_horizontal(pl.col(c).cast(pl.String).fill_null("").str.strip_chars() == "" for c in text_cols)
    id_types = [frame.collect_schema()["item_id"] for frame in (log, items)]
    log_ids, item_ids = log.select("item_id"), items.select("item_id")
    if id_types[0] != id_types[1]:
        log_ids, item_ids = (frame.select(pl.col("item_id").cast(pl.String)) for frame in (log_ids, item_ids))
    counts: dict[str, pl.LazyFrame] = {
        "num_users": log.select(pl.col("user_id").n_unique()),
        "num_interactions": log.select(pl.len()),
        "num_items": items.select(pl.len()),
        "unknown": log_ids.join(item_ids, on="item_id", how="anti").select(pl.len()),
        "without_text": items.select(no_text.sum()) if text_cols else items.select(pl.len()),
    }
    facts = {name: int(frame.collect(engine="streaming").item() or 0) for name, frame in counts.items()}
    for name in ("num_interactions", "num_items"):
        if not facts[name]:
            raise DataError(f"there is not one {name.removeprefix('num_')[:-1]} in these files; nothing was written")
    return facts


def _data_table(tables: Tables, facts: dict[str, int], out: Path) -> dict[str, Any]:
    data: dict[str, Any] = {name: str((out / f"{name}.parquet").resolve()) for name in ("interactions", "items")}
    if tables.time_unit != "s":
        data["time_unit"] = tables.time_unit
    if tables.action_col:
        data["action_col"] = tables.action_col
    data["text_cols"] = list(tables.text_cols)
    if facts["unknown"]:
        data["unknown_items"] = tables.unknown_items
    if facts["without_text"] and "items_without_text" not in tables.settings:
        data["items_without_text"] = "drop"
    return data | tables.settings


def _what_is_odd(facts: dict[str, int], data: dict[str, Any]) -> list[str]:
    notes = []
    if facts["unknown"]:
        notes.append(
            f"{facts['unknown']:,} of {facts['num_interactions']:,} interactions name items that the items lack: "
            f"unknown_items = {json.dumps(data['unknown_items'])}"
        )
    if facts["without_text"]:
        notes.append(
            f"{facts['without_text']:,} of {facts['num_items']:,} items have no text: "
            f"items_without_text = {json.dumps(data['items_without_text'])}"
        )
    return notes
