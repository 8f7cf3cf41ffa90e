"""Read JSON records: one a line, or lists and pretty-printed ones; with NaN, halves of emoji and other oddities."""

# Proved by tests/data/reading/test_records.py.

import ast
import glob
import io
import json
import math
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from hllm.data.reading.bounds import MAX_LINE_BYTES
from hllm.data.reading.decoding import DecodedLines, Spelling, spelling_of
from hllm.data.reading.form import FOUND, Form
from hllm.data.reading.opening import line_blocks, open_bytes, polars_opens, undamaged
from hllm.data.reading.scratch import scratch_file, state_of
from hllm.errors import DataError, first_few

Record = dict[str, Any]
_BLOCK_BYTES = 32 << 20
_CHUNK = 1 << 16
_NEAR = 32  # characters before the end where a value may go on in the next line
_HALF = re.compile("[\ud800-\udfff]")
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F]"
_HALF_WRITTEN = re.compile(rb"\\u0000|" + _HIGH + rb"(?!" + _LOW + rb")|(?<!" + _HIGH + rb")" + _LOW)
_NOT_NUMBERS = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}


def scan_records(path: Path, form: Form) -> pl.LazyFrame:
    """Return the records as a table, every field with the type that all its values fit; text where there is none.

    NaN and infinite numbers are missing, halves of emoji are U+FFFD. Polars reads a copy where it would do otherwise.
    """
    with undamaged(path):
        _require_rows(path, form)
        file, schema = _table_of(path, form, state_of(path))
    return pl.scan_ndjson(glob.escape(str(file)), schema=schema)  # it has no option `glob`


def _require_rows(path: Path, form: Form) -> None:
    """Raise DataError if the first record holds whole columns by their rows, or a list of records, and nothing else."""
    with open_bytes(path) as file:
        number, first = next(read_values(path, file, form), (0, {}))
    if not number:
        raise DataError(f"{path} is empty: it holds no record")
    record = require_record(first, path, number)
    if record and all(map(_is_of_objects, record.values())):
        raise DataError(
            f"{path}, line {number}: its fields, {first_few(record)}, hold objects alone, as where one value is the "
            "whole table; expected one object a row, as of pandas: to_json(FILE, orient='records', lines=True)"
        )


def _is_of_objects(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, dict) for each in value)
    return isinstance(value, dict)


def read_values(path: Path, file: Any, form: Form = FOUND, *, literals: bool = False) -> Iterator[tuple[int, Any]]:
    """Yield each value of an opened file with the line where it starts: one a line, in a list, or one after another.

    `literals` reads Python literals too, nothing in which is ever run. Raises DataError, with line and position, for
    what is neither.
    """
    lines = DecodedLines(path, spelling_of(path, form.encoding))
    if _is_list(path, lines.spelling):
        yield from _flowing(path, lines.read(file, in_pieces=True), is_list=True)
        lines.warn()
        return
    read = lines.read(file)
    skipped, first = "", ""
    for first in read:
        if first.strip():
            break
        skipped += first
    if not first.strip():
        return
    if _is_alone(first, literals=literals):
        for number, line in enumerate(chain([first], read), start=1 + skipped.count("\n")):
            if line.strip():
                yield number, parse(line, path, number, literals=literals)
    else:
        yield from _flowing(path, chain([skipped + first], read), is_list=False)
    lines.warn()


def parse(text: str, path: Path, number: int, *, literals: bool = False) -> Any:
    """Return the value that a line of JSON spells, or one of Python; DataError with the place if it spells none."""
    try:
        value = json.loads(text, parse_constant=_NOT_NUMBERS.__getitem__)
    except json.JSONDecodeError as error:
        if not literals:
            raise DataError(
                f"{path}, line {number}: not JSON: {error.msg} at position {error.pos + 1}. Correct or remove the line"
            ) from None
        try:
            value = _literal(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise DataError(
                f"{path}, line {number}: neither JSON ({error.msg} at position {error.pos + 1}) nor a Python literal: "
                f"{text.strip()[:60]!r}. Correct or remove the line"
            ) from None
    except RecursionError:
        raise DataError(f"{path}, line {number}: nested too deeply. Correct or remove the line") from None
    return _mended(value) if "\\u" in text or "\\U" in text else value


def require_record(value: Any, path: Path, number: int) -> Record:
    """Return the value if it is an object; DataError if not."""
    if not isinstance(value, dict):
        raise DataError(f"{path}, line {number}: expected one JSON object a line, found {json.dumps(value)[:40]!r}")
    return value


def _literal(text: str) -> Any:
    with warnings.catch_warnings():
        for category in (SyntaxWarning, DeprecationWarning):  # escapes such as "\d"
            warnings.simplefilter("ignore", category)
        return ast.literal_eval(text.strip())


def _is_list(path: Path, spelling: Spelling) -> bool:
    """Tell whether a file begins with a list, which may be all in one line."""
    with open_bytes(path) as file:
        block = file.read(1 << 16)[len(spelling.mark) :]
    return block.decode(spelling.encoding or "utf-8", errors="ignore").lstrip().startswith("[")


def _is_alone(line: str, *, literals: bool) -> bool:
    """Tell whether the first line holds one value: then every line does."""
    try:
        json.loads(line)
    except json.JSONDecodeError:
        try:
            return literals and isinstance(_literal(line), dict)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return False
    except RecursionError:
        pass
    return True


def _flowing(path: Path, pieces: Iterator[str], *, is_list: bool) -> Iterator[tuple[int, Any]]:
    """Yield the values of a text in which they are not one a line: in a list, or one after another."""
    decoder = json.JSONDecoder(parse_constant=_NOT_NUMBERS.__getitem__)
    gap = re.compile(r"[\s,\]]*" if is_list else r"[\s,]*")
    text = next(pieces)
    place = len(text) - len(text.lstrip()) + is_list
    line, column = _behind(text, 0, place, 1, 0)
    chunk, is_closed = _CHUNK, not is_list
    while True:
        between = gap.match(text, place)
        assert between is not None, "it matches nothing too"
        is_closed |= "]" in between[0]
        line, column = _behind(text, place, between.end(), line, column)
        place = between.end()
        try:
            value, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            may_go_on = len(text) - error.pos < _NEAR or "Unterminated" in error.msg
            more = _take(pieces, chunk) if may_go_on else ""
            if place == len(text) and not more:
                if not is_closed:
                    raise DataError(f"{path}, line {line}: the list is not closed: the file was cut") from None
                return
            if not more or len(text) - place > MAX_LINE_BYTES:
                line, column = _behind(text, place, error.pos, line, column)
                raise DataError(f"{path}, line {line}: not JSON: {error.msg} at position {column + 1}") from None
            text, place, chunk = text[place:] + more, 0, 2 * chunk
        except RecursionError:
            raise DataError(f"{path}, line {line}: nested too deeply. Correct or remove the value") from None
        else:
            yield line, _mended(value) if text.find("\\u", place, end) >= 0 else value
            line, column = _behind(text, place, end, line, column)
            place, chunk = end, _CHUNK


def _behind(text: str, start: int, end: int, line: int, column: int) -> tuple[int, int]:
    """Return the line, and how many of its characters come before, behind a part of a text that starts at a place."""
    newline = text.rfind("\n", start, end)
    return line + text.count("\n", start, end), column + end - start if newline < 0 else end - newline - 1


def _take(lines: Iterator[str], size: int) -> str:
    parts: list[str] = []
    length = 0
    for line in lines:
        parts.append(line)
        length += len(line)
        if length >= size:
            break
    return "".join(parts)


def _mended(value: Any) -> Any:
    """Return a value whose texts have no half of an emoji, which no file can hold, and no NUL."""
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value).replace("\0", "")
    if isinstance(value, dict):
        return {_mended(key): _mended(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(inner) for inner in value]
    return value


@lru_cache(maxsize=64)
def _table_of(path: Path, form: Form, _state: tuple[int, ...]) -> tuple[Any, dict[str, Any]]:
    """Return what polars is to scan, the file itself or a copy of it, and the columns."""
    if _is_plain(path, form):
        try:
            return path, _schema(path)
        except PolarsError:
            pass
    copy = scratch_file(".jsonl")
    kinds: dict[str, set[str]] = {}
    _write_copy(path, form, copy, kinds, as_text=frozenset())
    try:
        return copy, _schema(copy)
    except PolarsError:
        mixed = frozenset(name for name, found in kinds.items() if "nested" in found or len(found) > 1)
        _write_copy(path, form, copy, {}, as_text=mixed)
        return copy, _schema(copy)


def _write_copy(path: Path, form: Form, copy: Path, kinds: dict[str, set[str]], *, as_text: frozenset[str]) -> None:
    """Write one record a line, as strict JSON; notes the kinds of each field's values."""
    with open_bytes(path) as file, copy.open("w", encoding="utf-8") as out:
        for number, value in read_values(path, file, form):
            record = require_record(value, path, number)
            for name, cell in record.items():
                if cell is not None:
                    kinds.setdefault(name, set()).add(_kind(cell))
                if name in as_text and cell is not None and not isinstance(cell, str):
                    record[name] = json.dumps(cell, ensure_ascii=False)
            out.write(json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "nested"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value


def _is_plain(path: Path, form: Form) -> bool:
    """Tell whether polars reads the bytes as we do: UTF-8, one object a line, no halves of emoji."""
    spelling = spelling_of(path, form.encoding)
    if not spelling.is_plain or spelling.mark or not polars_opens(path):
        return False
    if _is_list(path, spelling):
        return False
    with open_bytes(path) as file:
        for block in line_blocks(file, _BLOCK_BYTES):
            if b"\0" in block or _HALF_WRITTEN.search(block):
                return False
            try:
                block.decode()
            except UnicodeDecodeError:
                return False
    return True


def _schema(path: Path) -> dict[str, Any]:
    """Return every field with the type that all its values fit, a block of the file at a time."""
    merged: dict[str, Any] = {}
    with open_bytes(path) as file:
        for block in line_blocks(file, _BLOCK_BYTES):
            if block.isspace():
                continue
            found = pl.read_ndjson(io.BytesIO(block), infer_schema_length=None).schema
            merged |= {name: _both(merged.get(name, kind), kind) for name, kind in found.items()}
    return merged


def _both(old: Any, new: Any) -> Any:
    """Return the type that holds values of both; text where they have nothing in common."""
    if old == new:
        return new
    try:
        both = pl.concat([pl.Series("", [], dtype=kind).to_frame() for kind in (old, new)], how="vertical_relaxed")
    except PolarsError:
        return pl.String()
    return both.schema[""]
