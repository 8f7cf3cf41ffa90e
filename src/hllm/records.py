"""Records are JSON objects that carry the hash of their own values, in results and in logs of one record a line."""

import hashlib
import json
import os
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hllm import artifacts
from hllm.errors import CheckpointError, HllmWarning, StorageError

_SEAL = "sha256"
_OPEN = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = b"hllm-sha256:"
_NO_HASH = b"0" * 64


def sealed(values: Mapping[str, Any], *, of: str = "") -> dict[str, Any]:
    """Return values with their hash as the last entry; `of` names what they belong to, and is not kept."""
    return {**values, _SEAL: artifacts.fingerprint([of, values])}


def opened(record: Any, *, of: str = "") -> dict[str, Any]:
    """Return a record's values; ValueError if they are not those, or do not belong to what they were sealed with."""
    if not isinstance(record, dict) or _SEAL not in record:
        raise ValueError("it has no hash")
    values = {name: value for name, value in record.items() if name != _SEAL}
    if sealed(values, of=of) != record:
        raise ValueError("its values are not those that it was sealed with")
    return values


def read_sealed(path: Path, *, again: str) -> list[dict[str, Any]]:
    """Read a file of one record, or of a list of them; CheckpointError if it is damaged. `again` makes it again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [opened(record) for record in (content if isinstance(content, list) else [content])]
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; make it again with {again}") from None


def read_one(path: Path, *, again: str) -> dict[str, Any]:
    """Read a file of one record, as `read_sealed` does."""
    found = read_sealed(path, again=again)
    if len(found) != 1:
        raise CheckpointError(
            f"{path} is damaged: it holds {len(found)} results, expected 1; make it again with {again}"
        )
    return found[0]


def append(path: Path, values: Mapping[str, Any], *, of: str = "") -> None:
    """Add a record to a log; StorageError if it cannot be written, and for a symbolic link.

    A last line that a kill or a full disk has cut off is ended first, so that it stays by itself.
    """
    line = json.dumps(sealed(values, of=of)) + "\n"
    if path.is_file() and path.lstat().st_nlink > 1:  # a copy made of hard links: its twin stays as it is
        artifacts.write_bytes(path, path.read_bytes())
    try:
        descriptor = os.open(path, _OPEN, 0o666)
        with os.fdopen(descriptor, "r+b") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(0, "it is not a file")
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line
            file.write(line.encode())
    except OSError as error:
        reason = "it is a symbolic link" if path.is_symlink() else error.strerror
        raise StorageError(f"{path} cannot be written ({reason})") from error


def read(path: Path, *, of: str = "") -> tuple[list[dict[str, Any]], dict[int, bytes]]:
    """Return the records of a log in order, and its damaged lines by their numbers, from 1.

    A last line without its end is among neither: it was cut off while it was written.
    """
    if not path.is_file():
        return [], {}
    records, damaged = [], {}
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            records.append(opened(json.loads(line), of=of))
        except (ValueError, RecursionError):
            damaged[number] = line
    return records, damaged


def read_good(path: Path, *, of: str = "") -> list[dict[str, Any]]:
    """Return the records of a log that are whole; warn of the others."""
    records, damaged = read(path, of=of)
    if damaged:
        warnings.warn(f"{_said(path, damaged)}, and left out", HllmWarning, stacklevel=2)
    return records


def mend(path: Path, *, of: str = "") -> list[dict[str, Any]]:
    """Return the records of a log that are whole; move others to a file beside it, with a warning."""
    records, damaged = read(path, of=of)
    if damaged:
        aside = path.with_name(f"{path.name}.damaged")
        kept = aside.read_bytes() if aside.is_file() and not aside.is_symlink() else b""
        artifacts.write_bytes(aside, kept + b"".join(line + b"\n" for line in damaged.values()))
        rewrite(path, records, of=of)
        warnings.warn(f"{_said(path, damaged)}, and moved to {aside.name}", HllmWarning, stacklevel=2)
    return records


def rewrite(path: Path, records: list[dict[str, Any]], *, of: str = "") -> None:
    """Put these records in place of a log's."""
    artifacts.write_text(path, "".join(json.dumps(sealed(values, of=of)) + "\n" for values in records))


def _said(path: Path, damaged: dict[int, bytes]) -> str:
    first = next(iter(damaged))
    lines = f"line {first} is" if len(damaged) == 1 else f"{len(damaged):,} lines, the first of them line {first}, are"
    return f"{path}: {lines} damaged or of another run"


def seal_bytes(content: bytes) -> bytes:
    """Put the hash of a file's content in its place, which `SEAL_PLACE` keeps in it."""
    assert content.count(SEAL_PLACE) == 1, "the place of the hash is there once"
    return content.replace(SEAL_PLACE, _PLACE + hashlib.sha256(content).hexdigest().encode())


def check_bytes(content: bytes) -> None:
    """Raise ValueError unless the content is as `seal_bytes` has left it."""
    start = content.find(_PLACE) + len(_PLACE)
    found = content[start : start + len(_NO_HASH)]
    before = content[:start] + _NO_HASH + content[start + len(_NO_HASH) :]
    if content.count(_PLACE) != 1 or hashlib.sha256(before).hexdigest().encode() != found:
        raise ValueError("its bytes are not those that it was sealed with")


SEAL_PLACE = _PLACE + _NO_HASH
"""What a file that is to be sealed holds once."""
