"""Import a layout: two Parquet files with the default column names, in a directory written whole or not at all."""

# Proved by tests/data/importing/test_layouts.py.

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
from polars.exceptions import PolarsError

from hllm import artifacts
from hllm.data.ids import alike, causes
from hllm.data.importing.clock import clock_of
from hllm.data.importing.layout import Columns, Source, Tables, matching
from hllm.data.importing.layouts import layout_named
from hllm.data.reading.files import RECORDS, find_fault, find_files
from hllm.data.reading.form import FOUND, Form
from hllm.data.schema import FOLDER_TABLE
from hllm.data.texts import default_text_columns, html_share, left_out
from hllm.data.where import filtered, parse
from hllm.errors import ConfigError, DataError, HllmError, HllmWarning, first_few

KIND = "data set"


@dataclass(frozen=True)
class ImportedTables:
    """Facts about the files that an import wrote."""

    folder: Path
    num_users: int
    num_items: int
    num_interactions: int
    data: dict[str, Any]
    """The `[data]` table of a recipe that reads it; the folder's data.toml holds the same."""
    notes: tuple[str, ...]

    def toml(self) -> str:
        """Return `data` as TOML."""
        return _toml(self.data)


def import_layout(
    layout: str,
    folder: Path,
    *,
    out: Path,
    interactions: Path | None = None,
    items: Path | None = None,
    columns: Columns | None = None,
    where: str | None = None,
    time_format: str | None = None,
    match_ids: Literal["exact", "loose"] = "exact",
    forms: tuple[Form, Form] = (FOUND, FOUND),
) -> ImportedTables:
    """Read a published layout in `folder` and write interactions.parquet and items.parquet into a new directory.

    `interactions` and `items` name a file where the folder has several; `columns` is for the layouts `table` and
    `recbole`, `forms` (how interactions and items are written, if they are text) for `table`; `where` is a condition on
    the interactions that are written, `time_format` and `match_ids` are as in `[data]`. Rows without user, item or time
    are left out, which a note says.

    Raises DataError, with file and line, for what cannot be read, and then writes nothing; ConfigError if `out` exists.
    Memory holds the ids at most, not the tables.
    """
    reader = layout_named(layout)
    if where is not None:
        parse(where)  # a ConfigError before anything is read
    if columns not in (None, Columns()) and not reader.any_columns:
        raise ConfigError(
            f"the columns of {layout} are fixed; leave out the names, or import with: hllm data import table"
        )
    if forms != (FOUND, FOUND) and layout != "table":
        raise ConfigError(
            f"the form of {layout} is fixed; leave out separator, encoding, header and names of columns, or import "
            "with: hllm data import table"
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
        source = Source(folder, interactions, items, scratch, columns or Columns(), *forms)
        with _warnings_to_notes() as warned:
            tables = _explained(source, lambda: reader.read(source))
            notes = list(tables.notes) + _explained(source, lambda: _write(tables, partial, scratch, where))
        notes += warned
        shutil.rmtree(scratch)
        text_cols, text_notes = _text_columns(partial, tables)
        facts = _facts(partial, text_cols)
        num_alike, spellings = _alike(partial, facts, match_ids)
        clock: dict[str, Any] = {}
        if tables.time_unit == "s":
            clock, clock_notes = clock_of(partial / "interactions.parquet", time_format)
            notes += clock_notes
        elif time_format is not None:
            raise ConfigError(
                f"the times of {layout} are no dates here (time_unit = {tables.time_unit!r}); leave out --time-format"
            )
        table = _data_table(tables, text_cols, facts, match_ids, num_alike)
        table |= clock
        artifacts.write_text(partial / FOLDER_TABLE, _toml(table) + "\n")
        notes += [*text_notes, *_what_is_odd(facts, table, num_alike, spellings)]
        counts = {key: facts[key] for key in ("num_users", "num_items", "num_interactions")}
        details |= counts | {"files": [file.name for file in tables.files], "notes": notes}
    data = table | {name: str((out / table[name]).resolve()) for name in ("interactions", "items") if name in table}
    return ImportedTables(out, **counts, data=data, notes=tuple(notes))


@contextmanager
def _warnings_to_notes() -> Iterator[list[str]]:
    """Yield a list that holds, after the work, our warnings, each once; others are passed on."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", HllmWarning)
        yield notes
    for each in caught:
        if not issubclass(each.category, HllmWarning):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        elif str(each.message) not in notes:
            notes.append(str(each.message))


def _explained(source: Source, work: Any) -> Any:
    """Do the work; where polars fails on one of the files, say where it is broken."""
    try:
        return work()
    except HllmError:
        raise
    except (PolarsError, UnicodeDecodeError) as error:
        for file in _text_files(source):
            find_fault(file)
        raise DataError(f"{source.folder} cannot be read: {str(error).splitlines()[0]}") from None


def _text_files(source: Source) -> list[Path]:
    """Return the files that may have been read and that can be looked through."""
    named_files = [
        file for name in (source.interactions, source.items) if name for file in find_files(name, name="files")
    ]
    others = matching(source.folder, ["*", "*/*"])
    kinds = (".csv", ".tsv", *RECORDS)
    return named_files + [file for file in others if any(suffix.lower() in kinds for suffix in file.suffixes[-2:])]


def _write(tables: Tables, folder: Path, scratch: Path, where: str | None) -> list[str]:
    """Write every table a part at a time; one row for each item. Returns what a person should know."""
    notes = _write_log(tables.interactions, folder, where)
    for name, frame in tables.extra.items():
        frame.sink_parquet(folder / f"{name}.parquet", mkdir=False)
    return notes if tables.items is None else notes + _write_items(tables.items, tables.keep, folder, scratch)


def _write_log(log: pl.LazyFrame, folder: Path, where: str | None) -> list[str]:
    """Write the interactions that have user, item and time, and that fulfil the condition."""
    notes, whole = [], pl.lit(True)
    schema = log.collect_schema()
    keys = [name for name in ("user_id", "item_id", "timestamp") if name in schema]
    blanks = [pl.col(n).is_null() | (pl.col(n) == "" if schema[n] == pl.String else pl.lit(False)) for n in keys]
    row = log.select(pl.len().alias("rows"), *(b.sum().alias(n) for b, n in zip(blanks, keys, strict=True)))
    counts = row.collect(engine="streaming").row(0, named=True)
    for name, blank in zip(keys, blanks, strict=True):
        if counts[name]:
            notes.append(f"{counts[name]:,} of {counts['rows']:,} interactions have no {name} and were left out")
            whole &= ~blank
    rows = log.filter(whole) if notes else log
    if where is not None:
        rows = filtered(rows, where, table="interactions")
    rows.sink_parquet(folder / "interactions.parquet", mkdir=False)
    if where is not None:
        num_left = pl.scan_parquet(folder / "interactions.parquet", glob=False).select(pl.len()).collect().item()
        notes.append(f"{num_left:,} of {counts['rows']:,} interactions fulfil {where}")
    return notes


def _write_items(items: pl.LazyFrame, keep: Literal["first", "last"], folder: Path, scratch: Path) -> list[str]:
    columns = ["item_id", *(c for c in items.collect_schema() if c != "item_id")]
    path = scratch / "every-item.parquet"
    items.select(columns).sink_parquet(path)
    ids = pl.scan_parquet(path, glob=False).select("item_id").with_row_index("row").collect()
    blanks = ids.filter(pl.col("item_id").is_null() | (pl.col("item_id").cast(pl.String) == ""))["row"]
    representatives = ids.unique("item_id", keep=keep, maintain_order=True)["row"]
    survivors = representatives.filter(~representatives.is_in(blanks.implode()))
    notes = []
    if len(blanks):
        notes.append(f"{len(blanks):,} rows of the items have no id and were left out")
    if num_repeats := len(ids) - len(blanks) - len(survivors):
        notes.append(f"{num_repeats:,} rows repeat an item; the {keep} row of each was kept")
    rows = pl.scan_parquet(path, row_index_name="row", glob=False)
    if notes:
        rows = rows.join(survivors.to_frame().lazy(), on="row", how="semi", maintain_order="left")
    rows.drop("row").sink_parquet(folder / "items.parquet")
    return notes


def _text_columns(folder: Path, tables: Tables) -> tuple[tuple[str, ...], list[str]]:
    """Return the columns to read, and what a person should know of them."""
    if tables.items is None:
        return (), ['there is no table of items: enough for models that know items by their ids (kind = "id")']
    items = pl.scan_parquet(folder / "items.parquet", glob=False)
    columns, others = default_text_columns(items, "item_id")
    notes = []
    if tables.text_cols is not None:
        columns = tables.text_cols
    elif others:
        notes.append(f"not read as text: {left_out(others)}; --text-cols names the columns to read")
    if not columns:
        notes.append('the items have no column of words: enough for models that know items by their ids (kind = "id")')
    for name, share in html_share(items, columns).items():
        notes.append(f'{share:.1%} of {name!r} hold HTML, such as <br> or &amp;: html = "clean" in [data] takes it out')
    return columns, notes


def _facts(folder: Path, text_cols: tuple[str, ...]) -> dict[str, int]:
    """Count what was written, and what a dataset could not use; DataError if there is nothing."""
    log, items = _scans(folder)
    counts: dict[str, pl.LazyFrame] = {
        "num_users": log.select(pl.col("user_id").n_unique()),
        "num_interactions": log.select(pl.len()),
        "num_items": log.select(pl.col("item_id").n_unique()) if items is None else items.select(pl.len()),
    }
    if items is not None:
        counts["unknown"] = _unknown(log, items).select(pl.len())
    if items is not None and text_cols:
        no_text = pl.all_horizontal(pl.col(c).cast(pl.String).fill_null("").str.strip_chars() == "" for c in text_cols)
        counts["without_text"] = items.select(no_text.sum())
    facts = {"unknown": 0, "without_text": 0}
    facts |= {name: int(frame.collect(engine="streaming").item() or 0) for name, frame in counts.items()}
    for name in ("num_interactions", "num_items"):
        if not facts[name]:
            raise DataError(f"there is not one {name.removeprefix('num_')[:-1]} in these files; nothing was written")
    return facts


def _scans(folder: Path) -> tuple[pl.LazyFrame, pl.LazyFrame | None]:
    """Return the tables that were written."""
    items = folder / "items.parquet"
    return pl.scan_parquet(folder / "interactions.parquet", glob=False), (
        pl.scan_parquet(items, glob=False) if items.exists() else None
    )


def _unknown(log: pl.LazyFrame, items: pl.LazyFrame) -> pl.LazyFrame:
    """Return the item of each interaction that the items lack."""
    frames = [frame.select(pl.col("item_id").cast(pl.String)) for frame in (log, items)]
    if log.collect_schema()["item_id"] == items.collect_schema()["item_id"]:
        frames = [log.select("item_id"), items.select("item_id")]
    return frames[0].join(frames[1], on="item_id", how="anti")


def _alike(folder: Path, facts: dict[str, int], match_ids: str) -> tuple[int, str]:
    """Return how many interactions name an item that is known in another spelling, and how the spellings differ.

    Raises DataError if not one interaction names a known item.
    """
    log, items = _scans(folder)
    if items is None or not facts["unknown"]:
        return 0, ""
    counts = _unknown(log, items).group_by("item_id").agg(pl.len().alias("count"))
    unknown = counts.sort("count", "item_id", descending=[True, False]).collect(engine="streaming")
    known = items.select("item_id").collect().to_series()
    pairs = alike(known, unknown["item_id"])
    num_alike, spellings = (
        int(unknown["count"].gather(pairs["unknown"]).sum()),
        causes(pairs, known, unknown["item_id"]),
    )
    if facts["unknown"] == facts["num_interactions"] and not (num_alike and match_ids == "loose"):
        advice = (
            f"{num_alike:,} differ in spelling alone, {spellings}: import with --match-ids loose to take them for one"
            if num_alike
            else "name the columns that belong together with --item-col and --items-item-col"
        )
        raise DataError(
            f"none of the {facts['num_interactions']:,} interactions names an item of the items table: ids there look "
            f"like {first_few(known)}, in the interactions like {first_few(unknown['item_id'])}; nothing was written. "
            f"{advice[0].upper()}{advice[1:]}"
        )
    return num_alike, spellings


def _data_table(
    tables: Tables, text_cols: tuple[str, ...], facts: dict[str, int], match_ids: str, num_alike: int
) -> dict[str, Any]:
    data: dict[str, Any] = {"interactions": "interactions.parquet"}
    if tables.items is not None:
        data["items"] = "items.parquet"
    if tables.time_unit != "s":
        data["time_unit"] = tables.time_unit
    if tables.action_col:
        data["action_col"] = tables.action_col
    if tables.items is not None:
        data["text_cols"] = list(text_cols)
    if match_ids != "exact":
        data["match_ids"] = match_ids
    if facts["unknown"] > num_alike and (match_ids != "exact" or not num_alike):
        data["unknown_items"] = tables.unknown_items
    if facts["without_text"] and "items_without_text" not in tables.settings:
        data["items_without_text"] = "drop"
    return data | tables.settings


def _toml(data: dict[str, Any]) -> str:
    return "[data]\n" + "\n".join(f"{key} = {json.dumps(v, ensure_ascii=False)}" for key, v in data.items())


def _what_is_odd(facts: dict[str, int], data: dict[str, Any], num_alike: int, spellings: str) -> list[str]:
    notes = []
    if facts["unknown"]:
        settled = f": unknown_items = {json.dumps(data['unknown_items'])}" if "unknown_items" in data else ""
        notes.append(
            f"{facts['unknown']:,} of {facts['num_interactions']:,} interactions name items that the items lack"
            + (f", {num_alike:,} of them in spelling alone" if num_alike else "")
            + settled
        )
    if spellings:
        mended = "these are taken for the same" if "match_ids" in data else "--match-ids loose takes these for the same"
        notes.append(f"{spellings}: {mended}")
    if facts["without_text"]:
        notes.append(
            f"{facts['without_text']:,} of {facts['num_items']:,} items have no text: "
            f"items_without_text = {json.dumps(data['items_without_text'])}"
        )
    return notes
