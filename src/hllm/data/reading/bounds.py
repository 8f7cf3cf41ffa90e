"""Bounds keep a table that nobody means, such as a small archive of one huge field, from filling the memory."""

import io
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from hllm.errors import DataError

MAX_COLUMNS = 4096
MAX_LINE_BYTES = 64 << 20
_BLOCK_BYTES = 4 << 20

Opener = Callable[[Path], io.BufferedIOBase]
"""Opens a file for reading, decompressed."""


def require_few_columns(names: list[str], *, name: str) -> None:
    """Raise DataError for more columns than a table of interactions or items has."""
    if len(names) > MAX_COLUMNS:
        raise DataError(
            f"{name} have {len(names):,} columns, such as {names[0][:40]!r}; at most {MAX_COLUMNS:,} are read. Write a "
            "table with the columns that are needed, or look whether its rows and columns are the wrong way round"
        )


def require_short_lines(path: Path, opened: Opener) -> None:
    """Raise DataError if a line of a text file, decompressed, is longer than any row of a table.

    A file is read once for it, and not again while it stays as it is. An array of JSON may stand in one line.
    """
    found = path.stat()
    _scan(path, opened, (found.st_size, found.st_mtime_ns, found.st_ino))


@lru_cache(maxsize=256)
def _scan(path: Path, opened: Opener, state: tuple[int, ...]) -> None:
    line, length = 1, 0
    with suppress(EOFError, OSError, zlib.error), opened(path) as file:  # damaged: the reader says where
        while block := file.read(_BLOCK_BYTES):
            if line == 1 and not length and block.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
                return
            ends = [place for end in (b"\n", b"\r") if (place := block.find(end)) >= 0]
            if length + (min(ends) if ends else len(block)) > MAX_LINE_BYTES:
                raise DataError(
                    f"{path}, line {line:,}: it is longer than {MAX_LINE_BYTES >> 20} MB, and no row of a table is; "
                    "the file is damaged, or is no table"
                )
            length += len(block)
            if ends:
                length = len(block) - 1 - max(block.rfind(end) for end in (b"\n", b"\r"))
                line += block.count(b"\n")
