"""RecBole's atomic files: NAME.inter and NAME.item, tab separated, with a header of field:type.

Format: https://recbole.io/docs/user_guide/data/atomic_files.html. Types: token and token_seq become text (a token_seq's
words stay separated by blanks), float becomes a number; float_seq stays text.
"""

# Proved by tests/data/importing/test_layouts.py.

from pathlib import Path

import polars as pl

from hllm.data.importing.fields import keys_first
from hllm.data.importing.layout import Source, Tables, find, matching
from hllm.data.importing.published.pairs import unit_of
from hllm.data.importing.published.splits import SPLIT_NOTE, joined_splits, published_splits
from hllm.data.reading.lines import first_line, numbered, scan_delimited, typed
from hllm.errors import DataError, nearest

_TYPES = ("token", "token_seq", "float", "float_seq")
_MISSING = ("", "none", "nan", "na", "null")
_SPLITS = ["*.train.inter", "*.valid.inter", "*.test.inter"]


def read(source: Source) -> Tables:
    """Read interactions, of one file or of the published parts, and the items if there are any.

    Without a field for the time, the file's order is the order.
    """
    names = source.columns
    splits = published_splits(source, "*.{}.inter", ["*.inter"], but_not=[])
    files = splits or {"": find(source, "interactions", ["*.inter"], but_not=_SPLITS)}
    parts = {part: _read(path, source.scratch) for part, path in files.items()}
    log, (interactions, fields, notes) = next(iter(files.values())), next(iter(parts.values()))
    for part, (_, others, _) in parts.items():
        if list(others) != list(fields):
            raise DataError(f"{files[part]}, line 1: the fields differ from those of {log}")
    if lists := [name for name in fields if name.endswith("_list")]:
        raise DataError(
            f"{log}, line 1: the field {lists[0]!r} holds whole histories, so each interaction stands in many rows; "
            "import the file with one interaction a row"
        )
    if splits:
        interactions = joined_splits({part: rows for part, (rows, _, _) in parts.items()})
        notes = (SPLIT_NOTE, *notes)
    _require(log, fields, {names.user: "user", names.item: "item"})
    new_names = {names.user: "user_id", names.item: "item_id"}
    has_times = bool(names.time) and names.time in fields
    if has_times:
        interactions = interactions.rename(new_names | {names.time: "timestamp"})
    else:
        interactions = numbered(interactions.rename(new_names))
        notes = (*notes, f"{log.name} has no field {names.time!r}: timestamp is the row")
    kinds = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64}
    interactions = _whole_times(keys_first(typed(interactions, kinds, path=log)))
    items = None
    if source.items is not None or matching(source.folder, ["*.item"]):
        catalogue, item_name = find(source, "items", ["*.item"]), names.items_item or names.item
        items, item_fields, more = _read(catalogue, source.scratch)
        _require(catalogue, item_fields, {item_name: "items-item"})
        items = items.rename({item_name: "item_id"})
        files, notes = files | {"items": catalogue}, (*notes, *more)
    return Tables(
        interactions, items, files=tuple(files.values()), text_cols=names.text, action_col=names.action,
        time_unit=unit_of(interactions) if has_times else "none", notes=notes,
        settings={"split_col": "split"} if splits else {},
    )  # fmt: skip


def _require(path: Path, fields: dict[str, str], wanted: dict[str, str]) -> None:
    for name, option in wanted.items():
        if name not in fields:
            raise DataError(
                f"{path}, line 1: no field {name!r}{nearest(name, fields)}; it has {', '.join(fields)}. "
                f"Name the right one with --{option}-col"
            )


def _read(path: Path, scratch: Path) -> tuple[pl.LazyFrame, dict[str, str], tuple[str, ...]]:
    """Return the table, each field's type, and a note on numbers that are missing."""
    fields = {}
    for column in first_line(path).split("\t"):
        name, colon, kind = column.rpartition(":")
        if not colon or kind not in _TYPES:
            raise DataError(
                f"{path}, line 1: {column!r} is not a field and a type, such as user_id:token; "
                f"types: {', '.join(_TYPES)}"
            )
        fields[name] = kind
    frame = scan_delimited(path, "\t", list(fields), scratch=scratch, header=True)
    numbers = [name for name, kind in fields.items() if kind == "float"]
    is_missing = {n: pl.col(n).str.to_lowercase().is_in(_MISSING if n in numbers else ("",)) for n in fields}
    counts = frame.select(is_missing[name].sum() for name in numbers).collect(engine="streaming")
    frame = frame.with_columns(pl.when(~missing).then(pl.col(name)).alias(name) for name, missing in is_missing.items())
    pairs = zip(numbers, counts.row(0), strict=True) if numbers else ()
    notes = [f"{count:,} rows of {path.name} have no {name}" for name, count in pairs if count]
    return typed(frame, dict.fromkeys(numbers, pl.Float64), path=path), fields, tuple(notes)


def _whole_times(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Times are floats in these files; they become integers unless some have fractions."""
    whole = pl.col("timestamp") == pl.col("timestamp").round()
    if not frame.select(whole.all()).collect(engine="streaming").item():
        return frame
    return frame.with_columns(pl.col("timestamp").cast(pl.Int64))
