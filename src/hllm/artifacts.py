"""Artifacts are directories with a manifest: written whole or not at all, checked byte by byte when read.

Datasets, token caches, checkpoints and tables are such directories. `manifest.json` is written last and
holds the kind, the format version, the SHA-256 of every file, whatever the writer wants to remember, and
last the SHA-256 of its own text up to there.
"""

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jaxtyping import Int
from pydantic import ValidationError, field_validator

from hllm.config import Config
from hllm.errors import CheckpointError, StorageError

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
_SEAL = ',\n "sha256": "'


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
    """Yield an empty directory to fill; on success it is renamed to `path`, whole, with its manifest.

    Where a version stood already, a kill between its moving aside and the rename is undone by `recover`. The body
    may add to `details` until it ends. On any error the half-filled directory is removed and whatever stood at
    `path` stays. Raises StorageError if the disk is full or the place is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-{os.getpid()}-", dir=path.parent))
    except OSError as error:
        raise _storage_error(error, path) from error
    try:
        yield partial
        files = {str(p.relative_to(partial)): p for p in sorted(partial.rglob("*")) if p.is_file()}
        hashes = {name: sha256_of(file) for name, file in files.items()}
        manifest = Manifest(kind=kind, format_version=FORMAT_VERSION, files=hashes, details=details)
        (partial / MANIFEST).write_bytes(_sealed(manifest.model_dump_json(indent=1)))
        for file in [*files.values(), partial / MANIFEST, partial]:
            _flush(file)
        _swap(partial, path)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise _storage_error(error, path) from error
    except Exception as error:
        # safetensors and polars report a full disk as errors of their own.
        if "No space left" in str(error) or "os error 28" in str(error) or "File too large" in str(error):
            raise StorageError(f"the disk is full: {path} was not written, {_unchanged(path)}") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_manifest(path: Path, kind: str) -> Manifest:
    """Read the manifest of the directory at `path`; CheckpointError if there is none or it is of another kind."""
    recover(path)
    file = path / MANIFEST
    if not file.is_file():
        found = "a file" if path.is_file() else "no manifest.json" if path.is_dir() else "nothing"
        raise CheckpointError(f"{path} is not a {kind} written by hllm: found {found} there")
    content, seal, _ = file.read_bytes().rpartition(_SEAL.encode())
    try:
        manifest = Manifest.model_validate_json(content + b"\n}" if seal else file.read_bytes())
    except ValidationError as error:
        raise CheckpointError(f"{file} is damaged: {error.errors()[0]['msg']}") from None
    if manifest.kind != kind:
        raise CheckpointError(f"{path} holds a {manifest.kind}, expected a {kind}")
    if manifest.format_version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {manifest.format_version}, this hllm reads {FORMAT_VERSION}; "
            "use the release of hllm that wrote it, or make it again"
        )
    if file.read_bytes() != _sealed((content + b"\n}").decode(errors="replace")):
        raise CheckpointError(f"{file} is damaged: its text is not the one it was sealed with; restore it from a copy")
    return manifest


def verify(path: Path, kind: str) -> Manifest:
    """Check every file of the directory against its manifest before anything parses it; return the manifest."""
    manifest = read_manifest(path, kind)
    for name, expected in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{path} is incomplete: {name} is missing; restore it from a copy, or make it again")
        found = sha256_of(file)
        if found != expected:
            raise CheckpointError(
                f"{file} is damaged: its SHA-256 is {found[:12]}…, the manifest says {expected[:12]}…; "
                "restore it from a copy, or make it again"
            )
    return manifest


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

    Raises StorageError as `writing` does.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _flush(partial)
        partial.replace(path)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise _storage_error(error, path) from error
    finally:
        partial.unlink(missing_ok=True)


def home() -> Path:
    """Return where downloads are kept: $HLLM_HOME, or `hllm` in the user's cache folder."""
    if chosen := os.environ.get("HLLM_HOME"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "hllm"


def recover(path: Path) -> None:
    """Clear what killed writers left: partial directories go; a version moved aside returns if it is the only one.

    What belongs to a process that still runs is left alone.
    """
    name = glob.escape(path.name)
    for left in [*path.parent.glob(f".{name}.partial-*"), *path.parent.glob(f".{name}.old-*")]:
        kind, pid = left.name.removeprefix(f".{path.name}.").split("-")[:2]
        if _runs(int(pid)):
            continue
        if kind == "old" and not path.exists():
            left.rename(path)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _sealed(content: str) -> bytes:
    """Add to the JSON text of a manifest the hash of that text, as its last entry."""
    digest = hashlib.sha256(content.encode()).hexdigest()
    return f'{content.removesuffix("}").rstrip()}{_SEAL}{digest}"\n}}'.encode()


def _swap(partial: Path, path: Path) -> None:
    """Put `partial` at `path`; what stood there is moved aside first, and comes back if the second step fails."""
    aside = path.with_name(f".{path.name}.old-{os.getpid()}")
    partial.chmod(0o755)
    if path.exists():
        path.rename(aside)
    try:
        partial.rename(path)
    except OSError:
        if aside.exists():
            aside.rename(path)
        raise
    _flush(path.parent)
    if aside.exists():
        shutil.rmtree(aside)


def _runs(pid: int) -> bool:
    if pid == os.getpid():
        return False  # a leftover of an earlier process that had our number
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_error(error: OSError, path: Path) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"the disk is full: {path} was not written, {_unchanged(path)}")
    return StorageError(f"{path} cannot be written: {error.strerror or error}; {_unchanged(path)}")


def _unchanged(path: Path) -> str:
    return "what stood there before is unchanged" if path.exists() else "nothing half-written was left behind"
