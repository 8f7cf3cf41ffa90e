"""Locks keep a second writer out of a place that another process writes to, on this machine or on another.

A lock is the kernel's own, on a small file. It ends with the process that holds it, however that ends, and it holds
across containers and, on shared file systems, across hosts. The text in the file only tells people who holds it.
"""

import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hllm.errors import BusyError, ConfigError, HllmWarning, StorageError

LOCK = ".lock"
PATIENCE_S = 1.0
"""Seconds that a writer waits for the one before it, which may be ending just now."""
_RETRY_S = 0.02
_MAX_COMMAND = 200
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)


class _Held(threading.local):
    """The lock files that this thread holds: inside of a lock, the same one is not taken again."""

    def __init__(self) -> None:
        self.files: set[Path] = set()


_held = _Held()


@contextmanager
def locked(path: Path, *, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold the lock of a file or directory that appears at `path` by a rename; it lies beside, as `.NAME.lock`.

    Raises BusyError if another holds it for more than `patience_s` seconds, and StorageError if the place cannot be
    written to.
    """
    with _holding(beside(path), path, shared=False, patience_s=patience_s):
        yield


@contextmanager
def locked_share(path: Path, share: str) -> Iterator[None]:
    """Hold the lock of one share of the work on `path`; others may hold other shares, but none the whole."""
    own = path.with_name(f"{path.name}.{share}")
    with _holding(beside(own), own, shared=False, patience_s=PATIENCE_S):
        with _holding(beside(path), path, shared=True, patience_s=PATIENCE_S):
            yield


@contextmanager
def locked_inside(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a directory that is written to in place, such as a run; it lies in it, as `.lock`.

    So it is found by every container that the directory is mounted in. `shared` is for those who write single parts
    of it, each with its own lock. A directory that is made for the lock and still empty at the end is removed. One that
    cannot be written to needs no lock. Raises ConfigError for a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, expected a directory; give another place")
    if folder.is_dir() and not os.access(folder, os.W_OK):
        yield
        return
    made = not folder.exists()
    try:
        with _holding(folder / LOCK, folder, shared=shared, patience_s=PATIENCE_S):
            yield
    finally:
        if made:
            with suppress(OSError):  # it holds something, or somebody else has removed it
                folder.rmdir()


def beside(path: Path) -> Path:
    """Return the lock file of what is renamed to `path`."""
    return path.with_name(f".{path.name}{LOCK}")


@contextmanager
def _holding(file: Path, target: Path, *, shared: bool, patience_s: float) -> Iterator[None]:
    key = Path(os.path.abspath(file.parent)).resolve() / file.name
    if key in _held.files:
        yield
        return
    try:
        descriptor = _take(file, shared, time.monotonic() + patience_s)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise StorageError(f"{target} cannot be written: {error.strerror} ({file})") from error
        warnings.warn(
            f"{file} cannot be locked: {error.strerror}. See to it that no other process writes to {target}",
            HllmWarning, stacklevel=4,
        )  # fmt: skip
        yield
        return
    if descriptor is None:
        raise BusyError(f"{target} is in use by {_holder(file)}; wait until it has ended, or give another place")
    owner = os.getpid()
    _held.files.add(key)
    try:
        yield
    finally:
        _held.files.discard(key)
        if os.getpid() == owner:  # and not a fork of it
            _remove(descriptor, file, shared)
        os.close(descriptor)


def _take(file: Path, shared: bool, deadline: float) -> int | None:
    """Return a descriptor that holds the lock; None if others hold it at the deadline."""
    hopeless = time.monotonic() + PATIENCE_S
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            # A link in a directory from elsewhere is not followed: its target would be written to.
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except FileNotFoundError:  # the directory was removed by its last holder; or no file can be there
            if time.monotonic() >= hopeless:
                raise
            time.sleep(_RETRY_S)
            continue
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _is_at(descriptor, file):
                _sign(descriptor, shared)
                return descriptor
        except OSError as error:
            if error.errno not in _TAKEN:
                os.close(descriptor)
                raise
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(_RETRY_S)
        os.close(descriptor)


def _is_at(descriptor: int, file: Path) -> bool:
    """Tell whether the open file is the one that stands there; its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except FileNotFoundError:
        return False


def _remove(descriptor: int, file: Path, shared: bool) -> None:
    """Remove the lock file, unless others share it."""
    with suppress(OSError):
        if shared:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(descriptor, file):
            file.unlink()


def _sign(descriptor: int, shared: bool) -> None:
    """Write down who holds the lock, a line for each of those who share it; a full disk is no reason to stop here."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    command = " ".join(["hllm" if program in ("hllm", "__main__.py") else program, *sys.argv[1:]])
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"host": socket.gethostname(), "process": os.getpid(), "since": since, "command": command[:_MAX_COMMAND]}
    with suppress(OSError):
        if not shared:
            os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{json.dumps(holder)}\n".encode(), os.fstat(descriptor).st_size)


def _holder(file: Path) -> str:
    """Return who holds a lock, for people."""
    try:
        holders = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        holders = [holder for holder in holders if not _has_ended(holder)] or holders
        holder = holders[-1]
        place = "this machine" if holder["host"] == socket.gethostname() else holder["host"]
        text = f"process {holder['process']} on {place} since {holder['since']} ({holder['command']})"
        return "".join(letter if letter.isprintable() else "?" for letter in text)
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"


def _has_ended(holder: dict[str, Any]) -> bool:
    """Tell whether a line is of a killed process of this machine. Only a message depends on it."""
    if holder["host"] != socket.gethostname():
        return False
    try:
        os.kill(holder["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
