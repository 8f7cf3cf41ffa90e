"""A reader of a layout takes a Source and returns Tables."""

# Proved by tests/data/importing/test_layouts.py.

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from hllm.data.reading.form import FOUND, Form
from hllm.errors import DataError


@dataclass(frozen=True)
class Columns:
    """The caller's column names, for layouts that do not fix them."""

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    """ "": the file's order is the order."""
    action: str | None = None
    items_item: str | None = None
    """Item column of the items table, if it is not `item`."""
    text: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Source:
    """Files to import, and the columns to read."""

    folder: Path
    interactions: Path | None
    """A file of `folder` or elsewhere, where the caller has chosen one."""
    items: Path | None
    scratch: Path
    """An empty directory for intermediate files; it is removed after the import."""
    columns: Columns = field(default_factory=Columns)
    interactions_form: Form = FOUND
    items_form: Form = FOUND
    """How text tables are written, for layouts that do not fix it."""


@dataclass(frozen=True)
class Tables:
    """Tables that a reader makes of a source."""

    interactions: pl.LazyFrame
    """Columns user_id, item_id, timestamp, and what else the layout knows of an interaction."""
    items: pl.LazyFrame | None
    """Column item_id, and what describes the item; an id may stand more than once. None: the layout has no such."""
    files: tuple[Path, ...]
    """The files that were read."""
    text_cols: tuple[str, ...] | None = None
    """Columns of `items` worth reading, the most telling first. None: every column of words."""
    time_unit: Literal["s", "ms", "us", "none"] = "s"
    action_col: str | None = None
    unknown_items: Literal["drop", "keep"] = "drop"
    """Policy to suggest where interactions name items that `items` lacks."""
    keep: Literal["first", "last"] = "first"
    """The row that counts, of several of one item."""
    settings: dict[str, Any] = field(default_factory=dict)
    """More keys of a recipe's `[data]` table that suit this layout."""
    extra: dict[str, pl.LazyFrame] = field(default_factory=dict)
    """More tables to write, by name."""
    notes: tuple[str, ...] = ()
    """Notes for a person: what was assumed, left out or looks odd."""


def find(
    source: Source, which: Literal["interactions", "items"], patterns: Sequence[str], *, but_not: Sequence[str] = ()
) -> Path:
    """Return the one file of the folder whose name fits a pattern, or the one that the caller has chosen.

    Raises DataError if there is none, or more than one.
    """
    file = source.interactions if which == "interactions" else source.items
    if file is not None:
        if not file.is_file():
            raise DataError(f"{which}: there is no file {file}")
        return file
    files = matching(source.folder, patterns, but_not=but_not)
    names = " or ".join(patterns)
    if not files:
        contents = sorted(p.name for p in source.folder.glob("[!.]*"))
        remark = (
            f"it holds {', '.join(contents[:6])}{' …' if len(contents) > 6 else ''}"
            if contents
            else "it is empty or not there"
        )
        raise DataError(f"{which}: no file in {source.folder} is called {names}; {remark}. Name it with --{which} FILE")
    if len(files) > 1:
        choices = ", ".join(str(p.relative_to(source.folder)) for p in files)
        raise DataError(
            f"{which}: {len(files)} files in {source.folder} could be meant: {choices}. Name one with --{which} FILE"
        )
    return files[0]


def matching(folder: Path, patterns: Sequence[str], *, but_not: Sequence[str] = ()) -> list[Path]:
    """Return the files of the folder whose names fit one of `patterns` and none of `but_not`, sorted."""
    files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    hidden_files = {p for p in files if any(part.startswith(".") for part in p.relative_to(folder).parts)}
    return sorted(
        p for p in files - hidden_files if not any(fnmatch.fnmatchcase(p.name, pattern) for pattern in but_not)
    )
