"""RecBole's atomic files: NAME.inter and NAME.item, tab separated, with a header of field:type.

Format: https://recbole.io/docs/user_guide/data/atomic_files.html. Types: token and token_seq become text (a token_seq's
words stay separated by blanks), float becomes a number; float_seq stays text.
"""

# Proved by tests/data/importing/test_layouts.py.

from pathlib import Path

import polars as pl

from hllm.data.importing.layout import Source, Tables, find
from hllm.data.reading.lines import first_line, numbered, scan_delimited, typed
from hllm.errors import DataError, nearest

_TYPES = ("token", "token_seq", "float", "float_seq")
_SPLITS = ["*.train.inter", "*.valid.inter", "*.test.inter"]


def read(source: Source) -> Tables:
    """Read the two files; without a field for the time, the file's order is the order."""
    names = source.columns
    log = find(source, "interactions", ["*.inter"], but_not=_SPLITS)
    catalogue = find(source, "items", ["*.item"])
    interactions, fields = _read(log, source.scratch)
    items, item_fields = _read(catalogue, source.scratch)
    item_name = names.items_item or names.item
    pairs = [(log, fields, names.user, "user"), (log, fields, names.item, "item")]
    for path, header, name, option in [*pairs, (catalogue, item_fields, item_name, "items-item")]:
        if name not in header:
            raise DataError(
                f"{path}, line 1: no field {name!r}{nearest(name, header)}; it has {', '.join(header)}. "
                f"Name the right one with --{option}-col"
            )
    new_names = {names.user: "user_id", names.item: "item_id"}
    has_times = bool(names.time) and names.time in fields
    if has_times:
        interactions = interactions.rename(new_names | {names.time: "timestamp"})
    else:
        interactions = numbered(interactions.rename(new_names))
    kinds = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64}
    interactions = _whole_times(typed(interactions, kinds, path=log))
    other_columns = [name for name in interactions.collect_schema() if name not in kinds]
    text = names.text or tuple(
        name for name, kind in item_fields.items() if kind in ("token", "token_seq") and name != item_name
    )
    return Tables(
        interactions.select(*kinds, *other_columns), items.rename({item_name: "item_id"}), files=(log, catalogue),
        text_cols=text, time_unit="s" if has_times else "none", action_col=names.action,
        notes=() if has_times else (f"{log.name} has no field {names.time!r}: timestamp is the row",),
    )  # fmt: skip


def _read(path: Path, scratch: Path) -> tuple[pl.LazyFrame, dict[str, str]]:
    """Return the table and each field's type."""
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
    frame = frame.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in fields)
    try:
        numbers = [pl.col(name).cast(pl.Float64) for name, kind in fields.items() if kind == "float"]
        frame.select(numbers).select(pl.all().max()).collect(engine="streaming")
    except pl.exceptions.InvalidOperationError as error:
        raise DataError(f"{path}: a field of type float holds no number: {str(error).splitlines()[0]}") from None
    return frame.with_columns(numbers), fields


def _whole_times(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Times are floats in these files; they become integers unless some have fractions."""
    whole = pl.col("timestamp") == pl.col("timestamp").round()
    if not frame.select(whole.all()).collect(engine="streaming").item():
        return frame
    return frame.with_columns(pl.col("timestamp").cast(pl.Int64))
