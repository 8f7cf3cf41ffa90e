"""Fetched and imported files are checked when they are read: by size and times first, and by their hash once."""

import json
import os
from collections.abc import Iterable, Set
from contextlib import suppress
from pathlib import Path

from hllm import artifacts
from hllm.errors import CheckpointError, HllmError


def check_files(files: Iterable[Path]) -> None:
    """Raise CheckpointError for files whose manifest, beside them, has another hash for them; see `check_folder`."""
    names: dict[Path, set[str]] = {}
    for file in files:
        names.setdefault(file.parent, set()).add(file.name)
    for folder, own in names.items():
        check_folder(folder, only=own)


def check_folder(folder: Path, *, only: Set[str] | None = None, again: str = "") -> None:
    """Raise CheckpointError if a file in a directory with a manifest is not as it was written, or is missing.

    A directory without a manifest of hllm has nothing to be checked by. A file is hashed when it is first read, and
    again when its size, its times or its place on the disk are others; that is remembered in $HLLM_HOME/checked. Of
    `only` those are checked that the manifest names. `again` is what mends it.
    """
    kind = _kind(folder / artifacts.MANIFEST)
    if kind is None:
        return
    manifest = artifacts.read_manifest(folder, kind)
    memory = artifacts.home() / "checked" / f"{artifacts.fingerprint(str(folder.resolve()))[:32]}.json"
    known = _known(memory, manifest.fingerprint)
    for name in set(manifest.files) if only is None else only & set(manifest.files):
        state = _state(folder / name)
        if state is None or known.get(name) != state:
            if state is None or artifacts.sha256_of(folder / name) != manifest.files[name]:
                fault = "missing" if state is None else "not as it was written: its SHA-256 is not the manifest's"
                raise CheckpointError(
                    f"{folder / name} is {fault}; {again or f'make {folder} again'}"
                    + ("" if again else f", or remove {artifacts.MANIFEST} there if you changed it on purpose")
                )
            known[name] = state
    if known != _known(memory, manifest.fingerprint):
        with suppress(OSError, HllmError):  # then it is hashed again
            artifacts.write_text(memory, json.dumps({"manifest": manifest.fingerprint, "files": known}))


def _kind(file: Path) -> str | None:
    """Return the kind that a manifest of hllm names; None for any other file of its name, and for none."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return str(values["kind"]) if {"format_version", "files", "details"} <= set(values) else None
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None


def _known(memory: Path, manifest: str) -> dict[str, list[int]]:
    try:
        values = json.loads(memory.read_text(encoding="utf-8"))
        return dict(values["files"]) if values["manifest"] == manifest else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _state(file: Path) -> list[int] | None:
    """Return what changes when a file does: its size, its times and its place; None if it is not there."""
    if not file.is_file():
        return None
    found = os.stat(file)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
