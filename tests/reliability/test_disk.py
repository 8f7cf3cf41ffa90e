"""Disks that are full, folders that may not be written: a sentence, and what was there stays as it was."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

VERBS = [
    "train recipe.json --out new",
    "embed --run run --out new",
    "embed-users --run run --out new",
    "index --run run",
    "evaluate --run run",
    "export-vectors --table run/items --out new",
    "export-model run --out new",
    "recommend --run run --input requests.csv --output new.parquet",
    "report --run run --out new.html",
    "data import table . --out new",
]
NOBODY = 65534


@pytest.fixture
def readable(shop) -> Iterator[Path]:
    """A copy of the shop that everybody may read and nobody may write, in folders that everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(shop, Path(name) / "shop"))
        Path(name).chmod(0o755)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield folder
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def state(folder: Path) -> dict[str, bytes]:
    """Return every file under a folder but for locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.mark.reliability("disk")
@pytest.mark.parametrize("verb", VERBS)
def test_a_disk_that_is_full_ends_a_verb_with_a_sentence(copied, verbs, verb, trials):
    """No file may be longer than so many bytes, as on a disk that ends there."""
    before = state(copied)
    for file_bytes in (100, 700):
        ended = verbs.run(copied, verb, file_bytes=file_bytes)
        assert ended.code in (1, 2), ended.output
        assert "Traceback" not in ended.output
        assert "disk is full" in ended.output, ended.output
        after = state(copied)
        assert {name: after.get(name, b"")[: len(content)] for name, content in before.items()} == before
        assert [name for name in before if after[name] != before[name]] in ([], ["run/evaluations.jsonl"]), (
            "a log may grow"
        )
        assert [name for name in after if ".partial-" in name or ".old-" in name] == []
        shutil.rmtree(copied / "new", ignore_errors=True)
    trials(2)


@pytest.mark.reliability("disk")
@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_may_not_be_written_ends_a_verb_with_a_sentence(readable, verbs, verb):
    before = state(readable)
    user = {"user": NOBODY} if os.geteuid() == 0 else {}
    ended = verbs.run(readable, verb, **user)
    assert ended.code in (1, 2), ended.output
    assert "Traceback" not in ended.output
    assert state(readable) == before
