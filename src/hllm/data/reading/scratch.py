"""Scratch files hold copies of tables in a form that polars reads; they are gone when the process ends."""

# Proved by tests/data/reading/test_delimited.py.

import atexit
import itertools
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

_numbers = itertools.count()


def state_of(path: Path) -> tuple[int, ...]:
    """Return what changes when a file does: it is part of the name under which a result is kept."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def scratch_file(ending: str) -> Path:
    """Return a new path for a file of this process."""
    return _folder() / f"{next(_numbers)}{ending}"


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hllm-tables-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
