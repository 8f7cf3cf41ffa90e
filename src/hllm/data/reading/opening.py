"""Open a file for reading, decompressed as its first bytes say, whatever its name ends with."""

# Proved by tests/data/reading/test_delimited.py.

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hllm.errors import DataError

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
DAMAGE = (EOFError, OSError, zlib.error, zipfile.BadZipFile, lzma.LZMAError)
"""Errors of compressed data that are cut or changed."""


def open_bytes(path: Path) -> io.BufferedIOBase:
    """Open a file for reading, decompressed."""
    match _compression(path):
        case "gzip":
            return gzip.open(path)
        case "zstd":
            import pyarrow as pa

            return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
        case "bzip2":
            return bz2.open(path)
        case "xz":
            return lzma.open(path)
        case "zip":
            return io.BufferedReader(zipfile.ZipFile(path).open(member(path)))  # type: ignore[type-var]
    return path.open("rb")


def decompressed(raw: Any, path: Path) -> Any:
    """Return what an opened file holds, decompressed; `raw` tells how far that has been read."""
    match _compression(path):
        case "gzip":
            return gzip.GzipFile(fileobj=raw)
        case "zstd":
            import pyarrow as pa

            return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw), "zstd"))
        case "bzip2":
            return bz2.BZ2File(raw)
        case "xz":
            return lzma.LZMAFile(raw)
        case "zip":
            return zipfile.ZipFile(raw).open(member(path))
    return raw


def polars_opens(path: Path) -> bool:
    """Tell whether polars reads a file of this compression, if it has one."""
    return _compression(path) in (None, "gzip", "zstd")


def line_blocks(file: io.BufferedIOBase, size: int) -> Iterator[bytes]:
    """Yield whole lines, about `size` bytes of them at once."""
    while block := file.read(size):
        yield block + file.readline()


def is_compressed(path: Path) -> bool:
    """Tell whether the first bytes are those of compressed data."""
    return _compression(path) is not None


def member(path: Path) -> str:
    """Return the one file of a .zip archive; DataError if there are none or several, or if it needs a password."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [each for each in archive.infolist() if not each.is_dir() and _is_table(each.filename)]
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}, the compressed data is damaged: {error}. Copy or download the file again") from None
    if len(entries) != 1:
        names = ", ".join(each.filename for each in entries[:6])
        raise DataError(
            f"{path} holds {len(entries)} files{f', {names}' if names else ''}; expected one table. Unpack it, and "
            "name the file"
        )
    if entries[0].flag_bits & 1:
        raise DataError(f"{path} is locked with a password; unpack it, and name the file")
    return entries[0].filename


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Turn the errors of damaged compressed data into DataError."""
    try:
        yield
    except DAMAGE as error:
        if not is_compressed(path):
            raise
        reason = "it ends in the middle" if isinstance(error, EOFError) else str(error)
        raise DataError(f"{path}, the compressed data is damaged: {reason}. Copy or download the file again") from None


def _is_table(name: str) -> bool:
    return not name.startswith("__MACOSX/") and not name.rpartition("/")[2].startswith(".")


def _compression(path: Path) -> str | None:
    with path.open("rb") as file:
        block = file.read(6)
    found = next((name for magic, name in _MAGIC.items() if block.startswith(magic)), None)
    return None if found == "zip" and path.suffix.lower() != ".zip" else found
