"""Artifacts are directories with a manifest: written whole or not at all, checked byte by byte when read.

Datasets, token caches, checkpoints and tables are such directories. `manifest.json` is written last and
holds the kind, the format version, the SHA-256 of every file, whatever the writer wants to remember, and
last the SHA-256 of its own text up to there.
"""

import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Int
from pydantic import ValidationError, field_validator

from hllm.config import Config
from hllm.errors import BusyError, CheckpointError, HllmError, StorageError
from hllm.locks import LOCK, locked

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
_SEAL = ',\n "sha256": "'
_LEFTOVER = re.compile(rf"{re.escape(LOCK)}|\.(?P<name>.+?)(\.(partial|old|shards)-.*|{re.escape(LOCK)})")
_TRIES = 100
_PATIENCE_FOR_FILES_S = 60.0
_AT_CWD, _EXCHANGE = -100, 2  # of Linux's renameat2

_Read = TypeVar("_Read")


class Manifest(Config):
    """Content of `manifest.json`."""

    kind: str
    format_version: int
    files: dict[str, str]  # relative path -> SHA-256
    details: dict[str, Any]  # inputs' fingerprints, resolved config, shapes: what the kind needs

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
                raise ValueError(f"it names {name!r}, which is not inside of the directory")
        return files

    @property
    def fingerprint(self) -> str:
        """Return one hash for the whole directory: of its kind, files and details."""
        return fingerprint({"kind": self.kind, "files": self.files, "details": self.details})


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def digest_of_integers(values: Int[np.ndarray, "..."]) -> str:
    """Return the SHA-256 of integers as little-endian 64-bit ones, whatever their width; copies 8 MB at a time."""
    digest = hashlib.sha256()
    for start in range(0, len(values), 1 << 20):
        digest.update(values[start : start + (1 << 20)].astype("<i8").tobytes())
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path: Path, kind: str, details: dict[str, Any]) -> Iterator[Path]:
    """Yield an empty directory to fill; on success it takes the place of `path`, whole, with its manifest.

    The body may add to `details` until it ends. On any error the half-filled directory is removed and whatever stood at
    `path` stays. A link at `path` is replaced, and not what it leads to. The writer holds the lock of `path`, and
    removes what killed writers left. Raises StorageError if the disk is full or the place is not writable, and
    BusyError if another process writes there.
    """
    with locked(path):
        try:
            if path.is_file() and not path.is_symlink():
                raise StorageError(f"{path} cannot be written: it is a file, and a {kind} is a directory")
            recover(path)
            partial = path.with_name(f".{path.name}.partial-{os.getpid()}-{os.urandom(4).hex()}")
            partial.mkdir()
        except OSError as error:
            raise _storage_error(error, path) from error
        try:
            with filling(path):
                yield partial
                _seal(partial, kind, details)
                _swap(partial, path)
        except OSError as error:
            raise _storage_error(error, path) from error
        finally:
            _remove(partial)


def read_manifest(path: Path, kind: str) -> Manifest:
    """Read the manifest of the directory at `path`; CheckpointError if there is none or it is of another kind."""
    return _manifest(standing(path), path, kind)


def reading(path: Path, kind: str, read: Callable[[Path, Manifest], _Read]) -> _Read:
    """Check every file of a directory against its manifest, then return what `read` makes of the directory.

    `read` gets the directory's name and manifest. What it opens is what was checked: where another process has put a
    new version there meanwhile, all is read again. Nothing is written, so no lock is needed. Raises CheckpointError for
    what is missing, damaged or of another kind.
    """
    for _ in range(_TRIES):
        folder = standing(path)
        with _pinned(folder) as stands:
            try:
                value = read(folder, _verified(folder, path, kind))
            except Exception as error:
                if not stands() or standing(path) != folder:
                    continue
                if isinstance(error, (HllmError, AssertionError, MemoryError)):
                    raise
                if isinstance(error, OSError):
                    raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
                # A manifest of other details, or a file of other content, that somebody has sealed.
                reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
                raise CheckpointError(f"{path} is not a {kind} as hllm writes it ({reason}); make it again") from error
            if stands() and standing(path) == folder:
                return value
    raise CheckpointError(f"{path} was replaced {_TRIES} times while it was read; wait until its writer has ended")


def verify(path: Path, kind: str) -> Manifest:
    """Check every file of the directory against its manifest before anything parses it; return the manifest."""
    return reading(path, kind, lambda folder, manifest: manifest)


def standing(path: Path) -> Path:
    """Return where the version to read is: at `path`, or beside it if a kill has come while it was being replaced."""
    if not path.exists() and path.parent.is_dir():
        asides = [left for left in _left_beside(path, "old") if (left / MANIFEST).is_file()]
        if asides and not path.exists():  # else its writer has just put the new version there
            return asides[-1]
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; raises StorageError as `writing` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; raises StorageError as `writing` does."""
    with replacing(path) as partial:
        partial.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write one file; on success it is renamed to `path`, on any error it is removed.

    Raises StorageError as `writing` does, and BusyError if another process goes on writing it for a minute.
    """
    with locked(path, patience_s=_PATIENCE_FOR_FILES_S):
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        try:
            recover(path)
            partial.touch()
            mode = partial.stat().st_mode  # as the user's umask says; some libraries put a file of mode 0600 there
            yield partial
            partial.chmod(mode)
            _flush(partial)
            partial.replace(path)
            _flush(path.parent)
        except OSError as error:
            raise _storage_error(error, path) from error
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def filling(path: Path) -> Iterator[None]:
    """Raise StorageError for a full disk, for which safetensors and polars have errors of their own."""
    try:
        yield
    except Exception as error:
        if any(words in str(error) for words in ("No space left", "os error 28", "File too large")):
            raise StorageError(f"the disk is full: {path} was not written, {_unchanged(path)}") from error
        raise


def home() -> Path:
    """Return where downloads are kept: $HLLM_HOME, or `hllm` in the user's cache folder."""
    if chosen := os.environ.get("HLLM_HOME"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "hllm"


def recover(path: Path) -> None:
    """Clear what killed writers of `path` left; the caller holds its lock, so that none of them still runs.

    Partial files and directories go. A version moved aside returns if it is the only one.
    """
    for left in _left_beside(path, "old"):
        if not path.exists() and standing(path) == left:
            left.rename(path)
        else:
            _remove(left)
    for left in _left_beside(path, "partial"):
        _remove(left)


def sweep(folder: Path) -> None:
    """Clear what killed writers left in a directory, but for places that somebody is writing to."""
    if not folder.is_dir():
        return
    names = {match["name"] for entry in folder.iterdir() if (match := _LEFTOVER.fullmatch(entry.name))}
    for name in names - {None}:
        with suppress(BusyError), locked(folder / name, patience_s=0.0):
            recover(folder / name)


def is_vacant(path: Path) -> bool:
    """Return whether nothing stands at `path` but, at most, a directory with what stopped writers of hllm left."""
    if not os.path.lexists(path):
        return True
    return path.is_dir() and all(_LEFTOVER.fullmatch(entry.name) for entry in path.iterdir())


def _left_beside(path: Path, what: Literal["old", "partial"]) -> list[Path]:
    """Return leftovers of one sort; the name is no pattern, it may hold brackets."""
    start = f".{path.name}.{what}-"
    return sorted(left for left in path.parent.iterdir() if left.name.startswith(start))


def _seal(partial: Path, kind: str, details: dict[str, Any]) -> None:
    """Write the manifest of a filled directory, and bring all of it to the disk."""
    entries = sorted(partial.rglob("*"))
    files = {str(p.relative_to(partial)): p for p in entries if p.is_file()}
    hashes = {name: sha256_of(file) for name, file in files.items()}
    manifest = Manifest(kind=kind, format_version=FORMAT_VERSION, files=hashes, details=details)
    (partial / MANIFEST).write_bytes(_sealed(manifest.model_dump_json(indent=1)))
    mode = (partial / MANIFEST).stat().st_mode  # as the user's umask says; safetensors writes files of mode 0600
    for file in files.values():
        if file.lstat().st_nlink == 1 and not file.is_symlink():  # a linked file is another directory's too
            file.chmod(mode)
    folders = [p for p in entries if p.is_dir()]  # they hold the files' names
    for entry in [*files.values(), partial / MANIFEST, *folders, partial]:
        _flush(entry)


def _manifest(folder: Path, path: Path, kind: str) -> Manifest:
    """Read the manifest in `folder`, which stands for `path`."""
    file = folder / MANIFEST
    if not file.is_file():
        found = "a file" if folder.is_file() else "no manifest.json" if folder.is_dir() else "nothing"
        raise CheckpointError(f"{path} is not a {kind} written by hllm: found {found} there")
    text = file.read_bytes()
    content, seal, _ = text.rpartition(_SEAL.encode())
    try:
        manifest = Manifest.model_validate_json(content + b"\n}" if seal else text)
    except ValidationError as error:
        raise CheckpointError(f"{file} is damaged: {error.errors()[0]['msg']}") from None
    if manifest.kind != kind:
        raise CheckpointError(f"{path} holds a {manifest.kind}, expected a {kind}")
    if manifest.format_version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {manifest.format_version}, this hllm reads {FORMAT_VERSION}; "
            "use the release of hllm that wrote it, or make it again"
        )
    if text != _sealed((content + b"\n}").decode(errors="replace")):
        raise CheckpointError(f"{file} is damaged: its text is not the one it was sealed with; restore it from a copy")
    return manifest


def _verified(folder: Path, path: Path, kind: str) -> Manifest:
    manifest = _manifest(folder, path, kind)
    for name, expected in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{path} is incomplete: {name} is missing; restore it from a copy, or make it again")
        found = sha256_of(file)
        if found != expected:
            raise CheckpointError(
                f"{file} is damaged: its SHA-256 is {found[:12]}…, the manifest says {expected[:12]}…; "
                "restore it from a copy, or make it again"
            )
    return manifest


@contextmanager
def _pinned(folder: Path) -> Iterator[Callable[[], bool]]:
    """Yield what tells whether the same directory still stands there.

    It is kept open meanwhile, so that no other directory gets its number. Files in it never change, only whole
    directories take each other's place.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield lambda: not folder.is_dir() or not os.access(folder, os.R_OK)
        return

    def stands() -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), folder.stat())
        except FileNotFoundError:
            return False

    try:
        yield stands
    finally:
        os.close(descriptor)


def _sealed(content: str) -> bytes:
    """Add to the JSON text of a manifest the hash of that text, as its last entry."""
    digest = hashlib.sha256(content.encode()).hexdigest()
    return f'{content.removesuffix("}").rstrip()}{_SEAL}{digest}"\n}}'.encode()


def _swap(partial: Path, path: Path) -> None:
    """Put `partial` at `path` in one step; what stood there is removed.

    Where the system cannot do that, the old version is moved aside first, and comes back if the second step fails.
    """
    if not os.path.lexists(path):
        partial.rename(path)
    elif not _exchange(partial, path):
        aside = path.with_name(f".{path.name}.old-{os.getpid()}")
        path.rename(aside)
        try:
            partial.rename(path)
        except OSError:
            aside.rename(path)
            raise
        _flush(path.parent)
        _remove(aside)
        return
    _flush(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; return False where the system or the file system has no such call."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    done: int = call(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(other), _EXCHANGE)
    if done == 0:
        return True
    if ctypes.get_errno() in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM):
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(one))


def _remove(left: Path) -> None:
    """Remove a file, a link or a directory; what cannot be removed stays for the next writer."""
    if left.is_dir() and not left.is_symlink():
        shutil.rmtree(left, ignore_errors=True)
    else:
        with suppress(OSError):
            left.unlink()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_error(error: OSError, path: Path) -> StorageError:
    if isinstance(error, StorageError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"the disk is full: {path} was not written, {_unchanged(path)}")
    return StorageError(f"{path} cannot be written: {error.strerror or error}; {_unchanged(path)}")


def _unchanged(path: Path) -> str:
    return "what stood there before is unchanged" if path.exists() else "nothing half-written was left behind"
