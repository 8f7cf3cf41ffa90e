"""Decode the lines of a text file: UTF-8, or what its mark or the caller says; odd bytes are Western European."""

# Proved by tests/data/reading/test_delimited.py.

import codecs
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hllm.data.reading.opening import open_bytes
from hllm.errors import DataError, HllmWarning

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BLOCK_BYTES = 1 << 20
_NO_TEXT = {
    b"PAR1": "a Parquet file: end its name with .parquet",
    b"PK\x03\x04": "a .zip archive, or a spreadsheet: end its name with .zip or .xlsx",
    b"\x89HDF": "an HDF5 file: write its table as Parquet or CSV",
    b"SQLite format 3": "a database of SQLite: write its table as Parquet or CSV",
    b"version https://git-lfs": "not the table, but a pointer of Git LFS to it: git lfs pull",
    b"<!doctype html": "a web page, perhaps one that asks to log in: download the table again",
    b"<html": "a web page, perhaps one that asks to log in: download the table again",
}


@dataclass(frozen=True)
class Spelling:
    """The way in which characters and ends of lines are spelt in a file."""

    encoding: str | None
    """None: UTF-8, and Western European where that cannot be."""
    mark: bytes = b""
    """Bytes at the beginning that are no text."""
    end: str = "\n"
    """End of a line: "\\r" if there is no other."""

    @property
    def is_plain(self) -> bool:
        """Return whether bytes of ASCII mean themselves, so that the file can be looked through as bytes."""
        return self.encoding is None and self.end == "\n"


def spelling_of(path: Path, encoding: str | None) -> Spelling:
    """Find the spelling in the first block; `encoding` is the caller's, for a file that is not UTF-8."""
    with open_bytes(path) as file:
        block = file.read(_BLOCK_BYTES)
    for magic, what in _NO_TEXT.items():
        if block[:64].lower().lstrip().startswith(magic.lower()):
            raise DataError(f"{path} is {what}")
    for mark, name in _MARKS:
        if block.startswith(mark):
            text = block[len(mark) :].decode(name, errors="replace")
            return Spelling(None if name == "utf-8" else name, mark, _end(text))
    wide = encoding if encoding is not None and not _keeps_ascii(encoding) else _wide(block)
    if wide is not None and b"\0" not in block and re.fullmatch(r"(?i)u(tf)?[-_]?(16|32).*", wide):
        wide = None
    if wide is None and encoding is not None and not _is_utf8(path):
        wide = encoding
    return Spelling(wide, b"", _end(block.decode(wide or "latin-1", errors="replace")))


class DecodedLines:
    """Iterates over the lines of a file, and counts what had to be read in another way."""

    def __init__(self, path: Path, spelling: Spelling) -> None:
        self.path = path
        self.spelling = spelling
        self.num_odd = self.num_nul = 0
        self.first_odd = self.first_nul = ""

    def read(self, file: io.BufferedIOBase, *, in_pieces: bool = False) -> Iterator[str]:
        """Yield decoded lines with their ends, or pieces of them; DataError for bytes that are not of the encoding."""
        encoding = self.spelling.encoding
        file.read(len(self.spelling.mark))
        if encoding is not None and not _keeps_ascii(encoding):
            yield from self._wide_lines(file, encoding)
            return
        split = _pieces(file) if in_pieces else _split(file, self.spelling.end.encode())
        for number, raw in enumerate(split, start=1):
            line = self._without_nul(raw, number)
            try:
                yield line.decode(encoding or "utf-8")
            except UnicodeDecodeError as error:
                place = f"line {number}, byte 0x{line[error.start]:02x} at position {error.start + 1}"
                if encoding is not None:
                    raise DataError(
                        f"{self.path}, {place}: not {encoding}; name another encoding with data.encoding (--encoding)"
                    ) from None
                self.num_odd += 1
                self.first_odd = self.first_odd or place
                text = line.decode(errors="surrogateescape")
                yield re.sub("[\udc80-\udcff]+", lambda odd: _western(odd[0]), text)

    def warn(self) -> None:
        """Warn of what had to be read in another way."""
        if self.num_odd:
            warnings.warn(
                f"{self.path}: {self.num_odd:,} {'line is' if self.num_odd == 1 else 'lines are'} not UTF-8 and read "
                f"as Western European (cp1252); first: {self.first_odd}. Name another encoding with data.encoding "
                "(--encoding)",
                HllmWarning,
                stacklevel=2,
            )
        if self.num_nul:
            warnings.warn(
                f"{self.path}: {self.num_nul:,} NUL characters are left out; first: {self.first_nul}",
                HllmWarning,
                stacklevel=2,
            )

    def _wide_lines(self, file: Any, encoding: str) -> Iterator[str]:
        count = 0
        end = self.spelling.end
        try:
            with io.TextIOWrapper(file, encoding=encoding, newline=end) as text:
                for line in text:
                    count += 1
                    yield (line if end == "\n" else line.replace(end, "\n")).replace("\0", "")
        except UnicodeError as error:
            raise DataError(
                f"{self.path}, after line {count}: not {encoding}: {error}; name another encoding with data.encoding "
                "(--encoding)"
            ) from None

    def _without_nul(self, line: bytes, number: int) -> bytes:
        if b"\0" not in line:
            return line
        self.num_nul += line.count(b"\0")
        self.first_nul = self.first_nul or f"line {number}, position {line.index(0) + 1}"
        return line.replace(b"\0", b"")


def _split(file: io.BufferedIOBase, end: bytes) -> Iterator[bytes]:
    if end == b"\n":
        yield from file
        return
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        *lines, rest = (rest + block).split(end)
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest


def _pieces(file: io.BufferedIOBase) -> Iterator[bytes]:
    """Yield lines; of one that is very long, pieces that end between two characters."""
    while piece := file.readline(_BLOCK_BYTES):
        while piece[-1] >= 0x80 and (more := file.read(1)):
            piece += more
        yield piece


def _western(odd: str) -> str:
    return odd.encode(errors="surrogateescape").decode("cp1252", errors="replace")


def _end(text: str) -> str:
    return "\r" if "\r" in text and "\n" not in text else "\n"


def _keeps_ascii(encoding: str) -> bool:
    """Tell whether bytes of ASCII, and those alone, mean themselves."""
    try:
        beyond = "あ".encode(encoding, errors="ignore")
        return b"a,1\n".decode(encoding) == "a,1\n" and not (beyond and beyond.isascii())
    except UnicodeError:
        return False


def _wide(block: bytes) -> str | None:
    """Return the UTF-16 that a block without a mark is, if every second byte is 0 in most places."""
    sample = block[:4096]
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(sample) >= 4 and sample[start::2].count(0) > 0.8 * (len(sample) // 2) > sample[1 - start :: 2].count(0):
            return name
    return None


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_bytes(path) as file:
        try:
            while block := file.read(_BLOCK_BYTES):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True
