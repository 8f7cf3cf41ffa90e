"""Read tables of fields between separators: directly where polars reads them rightly, else by a copy that it does."""

# Proved by tests/data/reading/test_delimited.py.

import csv
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from hllm.data.reading.bounds import MAX_LINE_BYTES, require_few_columns
from hllm.data.reading.decoding import DecodedLines, Spelling, spelling_of
from hllm.data.reading.form import Form
from hllm.data.reading.opening import line_blocks, open_bytes, polars_opens, undamaged
from hllm.data.reading.scratch import scratch_file, state_of
from hllm.errors import DataError, HllmWarning, first_few

_BLOCK_BYTES = 8 << 20
_PREFERRED = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}
_SEPARATORS = ("\t", "::", ";", "|", ",")
_NO_TEXT = " \t\r\n\x1a"  # the last is how DOS ends a file
_SAMPLE_LINES = 50
_SAMPLE_ROWS = 1000
_HEADER_WORDS = frozenset(
    "id ids idx index user item visitor session customer product movie book sku title name text description time "
    "timestamp date rating ratings score label price category genre genres event action count value".split()
)
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
_SAYS_SEPARATOR = re.compile(r'"?sep=(.)"?\s*$')  # the first line that Excel writes, and reads
_DATE = re.compile(r"\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([ T,].*)?")


@dataclass(frozen=True)
class FoundForm:
    """Facts that were found out about one text file."""

    spelling: Spelling
    separator: str
    quotes: bool
    """True if quotes around a field are no part of it."""
    is_plain: bool
    """True if polars reads the file as it is."""
    names: tuple[str, ...]


def scan_text(path: Path, form: Form) -> pl.LazyFrame:
    """Return the file as columns of text under the names of its header, or those that the form gives.

    Lines that are blank, or hold separators alone, are no rows. Quotes within a field are part of it. What polars does
    not read so, it reads from a copy. Raises DataError with file and line for what cannot be right.
    """
    layout = layout_of(path, form)
    if not layout.is_plain:
        copy = _copy(path, form, state_of(path))
        return pl.scan_csv(copy, infer_schema=False, new_columns=layout.names, glob=False)
    return pl.scan_csv(
        path, infer_schema=False, separator=layout.separator, quote_char='"' if layout.quotes else None,
        has_header=form.has_header, new_columns=layout.names, glob=False
    )  # fmt: skip


def layout_of(path: Path, form: Form) -> FoundForm:
    """Find out separator, quotes and names; it is done once while the file stays as it is."""
    with undamaged(path):
        return _layout(path, form, state_of(path))


def rows_of_file(path: Path, form: Form) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the line where it starts, the header included; slow, but it names what is broken."""
    layout = layout_of(path, form)
    lines = DecodedLines(path, layout.spelling)
    with undamaged(path), open_bytes(path) as file:
        yield from _rows(path, lines.read(file), layout.separator, layout.quotes)
    lines.warn()


def first_rows(path: Path, form: Form) -> list[list[str]]:
    """Return the first few rows, the header included."""
    with undamaged(path):
        spelling = spelling_of(path, form.encoding)
        separator = _separator(path, spelling, form)
        return _first_rows(path, spelling, separator, _reads_quotes(path, spelling, separator))


@lru_cache(maxsize=256)
def _layout(path: Path, form: Form, _state: tuple[int, ...]) -> FoundForm:
    spelling = spelling_of(path, form.encoding)
    separator = _separator(path, spelling, form)
    quotes = _reads_quotes(path, spelling, separator)
    rows = _first_rows(path, spelling, separator, quotes)
    if not rows:
        raise DataError(f"{path} is empty: it holds blank lines alone")
    if form.columns is not None:
        names = list(form.columns)
        if len(names) != len(rows[0]):
            raise DataError(
                f"{path}, line 1: found {len(rows[0])} fields, {first_few(rows[0])}, but {len(names)} names of "
                f"columns: {', '.join(names)}"
            )
    elif form.has_header:
        names = rows[0]
        require_few_columns(names, name=f"the rows of {path}")
        _check_header(path, rows)
    else:
        names = [f"column_{number}" for number in range(1, len(rows[0]) + 1)]
    require_few_columns(names, name=f"the rows of {path}")
    if form.has_header and len(rows) > 2 and all(len(row) == len(names) + 1 and row[-1].strip() for row in rows[1:]):
        raise DataError(
            f"{path}, line 1: the header has {len(names)} names, but every row has {len(names) + 1} fields, as where R "
            "writes the names of rows; name all columns, or leave out the names of rows (row.names = FALSE)"
        )
    is_plain = (
        spelling.is_plain
        and len(separator) == 1
        and separator != " "
        and separator.isascii()
        and polars_opens(path)
        and all(len(row) <= len(names) for row in rows)
        and _is_plain(path, separator, quotes, again=tuple(names) if form.has_header else ())
    )
    return FoundForm(spelling, separator, quotes, is_plain, tuple(names))


@lru_cache(maxsize=256)
def _copy(path: Path, form: Form, _state: tuple[int, ...]) -> Path:
    """Write the table as polars reads it."""
    names = layout_of(path, form).names
    copy = scratch_file(".csv")
    rows = rows_of_file(path, form)
    repeats: list[int] = []
    if form.has_header:
        next(rows)
    with copy.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for line, cells in rows:
            if form.has_header and len(names) > 1 and tuple(cells) == names:
                repeats.append(line)
                continue
            if any(cell.strip() for cell in cells[len(names) :]):
                raise DataError(f"{path}, {_too_wide(line, cells, len(names), layout_of(path, form).separator)}")
            writer.writerow(cells[: len(names)] + [""] * (len(names) - len(cells)))
    if repeats:
        warnings.warn(
            f"{path}: {len(repeats):,} lines repeat the header and are left out; first: line {repeats[0]}",
            HllmWarning,
            stacklevel=2,
        )
    return copy


def find_fault_of_rows(path: Path, form: Form) -> None:
    """Raise DataError, with the line, for the first row that is wider than the header."""
    layout = layout_of(path, form)
    for line, cells in rows_of_file(path, form):
        if len(cells) > len(layout.names):
            raise DataError(f"{path}, {_too_wide(line, cells, len(layout.names), layout.separator)}")


def _too_wide(line: int, cells: list[str], expected: int, separator: str) -> str:
    advice = {",": "Quote fields that hold a comma", "\t": "Take tabs out of the texts"}
    return (
        f"line {line}: found {len(cells)} fields, expected {expected}, as in the header. "
        f"{advice.get(separator, f'Quote fields that hold {separator!r}')}; field {expected + 1} is "
        f"{cells[expected][:40]!r}"
    )


def _rows(path: Path, lines: Iterator[str], separator: str, quotes: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, with the line where each starts."""
    if not quotes:
        for number, line in enumerate(lines, start=1):
            text = line.rstrip("\r\n")
            if text.replace('"', "").strip(separator).strip(_NO_TEXT) and not (
                number == 1 and _SAYS_SEPARATOR.match(text)
            ):
                yield number, text.split() if separator == " " else text.split(separator)
        return
    pending: list[str] = []

    def watched() -> Iterator[str]:
        for number, line in enumerate(lines):
            if number == 0 and _SAYS_SEPARATOR.match(line):
                line = "\n"
            if "\r" in line[:-2]:
                line = re.sub(r"\r(?!\n?$)", " ", line)
            if '\\"' in line:
                line = re.sub(r'(?<!\\)((?:\\\\)*)\\"', r'\1""', line)
            pending.append(line)
            yield line

    rows = _csv_rows(watched(), separator)
    start = 0
    try:
        for row in rows:
            if len(pending) > 1 or '"' in pending[0]:
                _require_closed(path, pending, separator, start + 1)
            if any(cell.strip(_NO_TEXT) for cell in row):
                yield start + 1, row
            start = rows.line_num
            pending.clear()
    except csv.Error as error:
        raise DataError(
            f"{path}, line {start + 1}: {error}. A quoted field may start there and never end: close it, or double the "
            "quote"
        ) from None


def _csv_rows(lines: Iterable[str], separator: str, *, strict: bool = False) -> Any:
    csv.field_size_limit(MAX_LINE_BYTES)
    return csv.reader(lines, delimiter=separator, strict=strict)


def _require_closed(path: Path, lines: list[str], separator: str, start: int) -> None:
    """Raise DataError for a quote that reaches over lines, or to the end, without being closed before a separator."""
    try:
        list(_csv_rows(lines, separator, strict=True))
    except csv.Error as error:
        if len(lines) > 1 or "unexpected end" in str(error):
            raise DataError(
                f"{path}, line {start}: a quoted field may start there and never end: close it, or double the quote"
            ) from None


def _first_rows(path: Path, spelling: Spelling, separator: str, quotes: bool) -> list[list[str]]:
    lines = DecodedLines(path, spelling)
    with open_bytes(path) as file:
        return [row for _, row in islice(_rows(path, lines.read(file), separator, quotes), _SAMPLE_ROWS)]


def _separator(path: Path, spelling: Spelling, form: Form) -> str:
    """Return the text between fields: the form's if the first line has it, else what divides the lines most evenly."""
    with open_bytes(path) as file:
        sample = list(islice((line for line in DecodedLines(path, spelling).read(file) if line.strip()), _SAMPLE_LINES))
    if not sample:
        return ","
    if said := _SAYS_SEPARATOR.match(sample[0]):
        return said[1]
    if form.separator is not None and form.separator in sample[0]:
        return form.separator
    preferred = next((_PREFERRED[each] for each in map(str.lower, path.suffixes[::-1]) if each in _PREFERRED), None)
    order = [*([preferred] if preferred else []), *(each for each in _SEPARATORS if each != preferred)]
    shares = {each: _share(sample, each) for each in order}
    best = max(order, key=lambda each: shares[each])  # the first of equals
    if shares[best]:
        return best
    widths = {len(line.split()) for line in sample}
    return " " if preferred is None and len(widths) == 1 and max(widths) > 1 else preferred or ","


def _share(sample: list[str], separator: str) -> float:
    """Return which share of the lines has as many fields as the first, if that has several; else 0."""
    widths = [_width(line, separator) for line in sample]
    return sum(width == widths[0] for width in widths) / len(widths) if widths[0] > 1 else 0.0


def _width(line: str, separator: str) -> int:
    if len(separator) > 1:
        return line.count(separator) + 1
    return len(next(_csv_rows([line.replace("\r", " ")], separator), []))


def _reads_quotes(path: Path, spelling: Spelling, separator: str) -> bool:
    """Tell whether quotes around a field are no part of it: between tabs only if some can be nothing else."""
    if separator != "\t":
        return separator != " " and len(separator) == 1
    if spelling.encoding is None and not _holds(path, b'"'):
        return False
    is_needed = is_open = False
    with open_bytes(path) as file:
        for number, line in enumerate(DecodedLines(path, spelling).read(file)):
            if not is_open and '"' not in line:
                continue
            cells = line.rstrip("\r\n").split("\t")
            is_needed |= number == 0 and all(re.fullmatch('".+"', cell) for cell in cells)
            for cell in cells:
                bare = cell.replace('""', "")
                marks = bare.count('"')
                is_needed |= is_open or (marks > 0 and bare != cell)
                if is_open:
                    if marks > 1 or (marks and not bare.endswith('"')):
                        return False
                    is_open = not marks
                elif marks:
                    if marks > 2 or bare[0] != '"' or (marks == 2 and bare[-1] != '"'):
                        return False
                    is_open = marks == 1
                elif bare != cell != '""':
                    return False
    return is_needed and not is_open


def _holds(path: Path, sign: bytes) -> bool:
    with open_bytes(path) as file:
        return any(sign in block for block in iter(lambda: file.read(_BLOCK_BYTES), b""))


def _is_plain(path: Path, separator: str, quotes: bool, *, again: tuple[str, ...]) -> bool:
    """Tell whether polars reads the bytes as we do: no other encoding, no blank rows, no quotes where none belong.

    `again` is a header that would be no row if it came again.
    """
    header = b"\n" + separator.join(again).encode() if len(again) > 1 else b"\n\n"
    mark = re.escape(separator.encode())
    no_row = rb"[ \t\"" + mark + rb"]"
    blank = re.compile(rb"(?:\A|\n)(?:" + no_row + rb"*\r?\n|" + no_row + rb"+\Z)")
    begins = [b"\n" + bytes([sign]) for sign in b'\n\r \t"' + separator.encode()]  # as a line without a cell does
    inside = first = False
    with open_bytes(path) as file:
        for block in line_blocks(file, _BLOCK_BYTES):
            if not first:
                block, first = block.removeprefix(b"\xef\xbb\xbf"), True
                if block.startswith((b"sep=", b'"sep=')):
                    return False
            if block[:1] in b'\n\r \t"' + separator.encode() or any(each in block for each in begins):
                if blank.search(block):
                    return False
            if b"\0" in block or b"\x1a" in block or header in block:
                return False
            if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
                return False
            try:
                block.decode()
            except UnicodeDecodeError:
                return False
            if quotes and b'"' in block:
                closed = _quotes_are_closed(block, separator.encode(), inside)
                if closed is None:
                    return False
                inside = closed
    return not inside


def _quotes_are_closed(block: bytes, separator: bytes, inside: bool) -> bool | None:
    """Return whether the end of a block is inside quotes; None if a quote stands where none belongs."""
    before, after = separator + b"\n", separator + b"\r\n"
    place = -1
    while (place := block.find(b'"', place + 1)) >= 0:
        if not inside:
            if place and block[place - 1] not in before:
                return None
            inside = True
        elif block[place + 1 : place + 2] == b'"':
            place += 1
        else:
            if place + 1 < len(block) and block[place + 1] not in after:
                return None
            inside = False
    return inside


def _check_header(path: Path, rows: list[list[str]]) -> None:
    names = rows[0]
    widths = [len(row) for row in rows[1:]]
    if len(names) == 1 and len(widths) > 1 and len(set(widths)) == 1 and widths[0] > 1:
        raise DataError(
            f"{path}, line 1: {names[0][:60]!r} is one field, but the lines below have {widths[0]}; remove what stands "
            "before the header"
        )
    if _looks_like_data(rows):
        raise DataError(
            f"{path}, line 1: {', '.join(names)} looks like data, not a header. Add a line with the names of the "
            "columns; or set data.header = false (--no-header), and name them in order with data.columns (--columns), "
            "or data.items_columns (--items-columns)"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"{path}, line 1: the header names {first_few(twice)} more than once; give each column a name of its own"
        )


def _looks_like_data(rows: list[list[str]]) -> bool:
    """Tell whether the first row is like those below it: a number or a date among such, or a cell of the column."""
    names, below = rows[0], [row for row in rows[1:] if row != rows[0]]
    if any(map(_is_usual, names)):
        return False
    if names in ([str(n) for n in range(len(names))], [str(n) for n in range(1, len(names) + 1)]) and len(names) > 2:
        return False
    for place, name in enumerate(names):
        column = [row[place] for row in below if place < len(row) and row[place].strip()]
        if any(kind.fullmatch(name) and all(map(kind.fullmatch, column)) for kind in (_NUMBER, _DATE)):
            return True
        if name.strip() and name in column and len(names) > 1:
            return True
    return False


def _is_usual(name: str) -> bool:
    """Tell whether a name is made of a few words, with one that is usual in headers."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    return len(words) <= 3 and not re.search(r"\d", name) and any(word.lower() in _HEADER_WORDS for word in words)
