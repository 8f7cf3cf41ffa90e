"""Files of every kind of directory that are damaged, cut or missing: whoever opens it is told, and no value is wrong."""

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hllm import artifacts
from hllm.data.dataset import Dataset
from hllm.data.reading.tables import read_table
from hllm.data.tokens import KIND as TOKENS
from hllm.embedding.export import KIND as VECTORS
from hllm.embedding.table import load_table
from hllm.errors import HllmError
from hllm.models.checkpoint import load_checkpoint
from hllm.retrieval.index.index import Index
from hllm.runs.run import Run

from .conftest import NIGHTLY


def open_index(path: Path) -> Index:
    """Open an index for the vectors that it is over, so that nothing but damage can be wrong."""
    return Index.open(path, source=artifacts.read_manifest(path, "index").details["source"])


@dataclass
class Kind:
    """A kind of directory: how it is made in the shop, where it then stands, and who opens it."""

    verb: str
    place: str
    read: Callable[[Path], Any]


KINDS = {
    "dataset": Kind("", "run/dataset", Dataset.load),
    "tokens": Kind("", "run/tokens", lambda path: artifacts.verify(path, TOKENS)),
    "checkpoint": Kind("", "best", load_checkpoint),
    "run's table": Kind("", "run/table", load_table),
    "items": Kind("", "run/items", load_table),
    "users": Kind("", "run/users", load_table),
    "index": Kind("", "run/index", open_index),
    "exported": Kind(
        "export-vectors --table run/items --out vectors", "vectors", lambda path: artifacts.verify(path, VECTORS)
    ),
    "imported": Kind(
        "data import table . --out imported",
        "imported",
        lambda path: read_table(path / "interactions.parquet", name="log"),
    ),
}


@pytest.fixture(params=KINDS)
def kind(request) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def directory(kind, shop, copied, verbs) -> Path:
    """A directory of this kind that a test may damage."""
    if kind.verb:
        made = verbs.run(copied, kind.verb)
        assert made.code == 0, made.output
    return Run(copied / "run").best_path if kind.place == "best" else copied / kind.place


def files_of(kind: Kind, directory: Path) -> list[Path]:
    """Return the files that are read. An imported folder is opened table by table, and may lack its manifest."""
    files = sorted(file for file in directory.rglob("*") if file.is_file() and not file.name.startswith("."))
    return [file for file in files if file.name == "interactions.parquet"] if kind is KINDS["imported"] else files


def assert_refused(kind: Kind, directory: Path, file: Path) -> None:
    with pytest.raises(HllmError) as refusal:
        kind.read(directory)
    assert re.search(rf"{re.escape(file.name)}|{re.escape(str(directory))}", str(refusal.value)), refusal.value


@pytest.mark.reliability("bytes changed")
def test_a_changed_byte_is_found(kind, directory, trials):
    rng, number = random.Random(0), 500 if NIGHTLY else 50
    kind.read(directory)
    files = files_of(kind, directory)
    for trial in range(number):
        file = files[trial % len(files)]
        whole = file.read_bytes()
        place, bits = rng.randrange(len(whole)), rng.randrange(1, 256)
        file.write_bytes(whole[:place] + bytes([whole[place] ^ bits]) + whole[place + 1 :])
        assert_refused(kind, directory, file)
        file.write_bytes(whole)
    kind.read(directory)
    trials(number)


@pytest.mark.reliability("files cut")
def test_a_file_that_is_cut_or_missing_is_found(kind, directory, trials):
    number = 0
    for file in files_of(kind, directory):
        whole = file.read_bytes()
        for size in sorted({0, 1, 8, len(whole) // 2, len(whole) - 1}):
            file.write_bytes(whole[:size])
            assert_refused(kind, directory, file)
            number += 1
        file.unlink()
        assert_refused(kind, directory, file)
        file.write_bytes(whole)
        number += 1
    kind.read(directory)
    trials(number)


@pytest.mark.reliability("bytes changed")
def test_what_can_be_made_again_is_made_again_and_the_rest_ends_the_verb(copied, shop, verbs, trials):
    """A run's own dataset, weights and table, as the verbs meet them: exit 2, or the answer of the undamaged run."""
    answer = verbs.run(shop, "recommend --run run --user u3").output
    rng, run = random.Random(1), copied / "run"
    parts = [run / "dataset", run / "tokens", run / "table", run / "index", Run(run).best_path]
    files = [file for part in parts for file in sorted(part.rglob("*")) if file.is_file() and file.name[0] != "."]
    for file in files:
        whole = file.read_bytes()
        place = rng.randrange(len(whole))
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        ended = verbs.run(copied, "recommend --run run --user u3")
        assert "Traceback" not in ended.output
        assert ended.code == 2 or ended.output.endswith(answer), (file, ended.output)
        shutil.rmtree(run)
        shutil.copytree(shop / "run", run)
    trials(len(files))
