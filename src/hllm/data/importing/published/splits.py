"""Published splits are files of one table: they are joined, and a column "split" says which one a row is from."""

# Proved by tests/data/importing/test_published.py.

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

import polars as pl

from hllm.data.importing.layout import Source, matching
from hllm.data.reading.files import find_files
from hllm.errors import DataError

SPLIT_NOTE = 'column "split" says which file an interaction is from; split.kind = "column" divides by it'
_PARTS = ("train", "valid", "test")


def published_splits(source: Source, pattern: str, whole: Sequence[str], *, but_not: Sequence[str]) -> dict[str, Path]:
    """Return the one file of each part whose name fits "*.{}.csv" with train, valid and test; nothing without them.

    A file, or a pattern of parts, that the caller has chosen comes first, then one of the whole table, whose name fits
    `whole`. Raises DataError if a part is missing, or there are several sets.
    """
    names = [pattern.format(part) for part in _PARTS]
    if source.interactions is not None and not source.interactions.is_file():
        chosen = find_files(source.interactions, name="interactions")
        fitting = {part: [each for each in chosen if fnmatch(each.name, pattern.format(part))] for part in _PARTS}
        is_one_set = fitting["train"] and all(len(paths) < 2 for paths in fitting.values())
        if is_one_set and sum(map(len, fitting.values())) == len(chosen):
            return {part: paths[0] for part, paths in fitting.items() if paths}
    if source.interactions is not None or matching(source.folder, whole, but_not=[*names, *but_not]):
        return {}
    files = {part: matching(source.folder, [pattern.format(part)]) for part in _PARTS}
    if not files["train"] or sum(map(len, files.values())) < 2:
        return {}
    for part, paths in files.items():
        if len(paths) != 1:
            raise DataError(
                f"interactions: {len(paths)} files in {source.folder} are called {pattern.format(part)}, expected one "
                "beside those of the other parts; put each set into a folder of its own"
            )
    return {part: paths[0] for part, paths in files.items()}


def joined_splits(parts: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    """Return the rows of all parts, each with the name of its part."""
    return pl.concat([rows.with_columns(split=pl.lit(part)) for part, rows in parts.items()])
