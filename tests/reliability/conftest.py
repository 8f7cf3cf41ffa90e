"""A tiny shop as files, and a way to run verbs on it that die, meet a full disk, or may not read."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import recipe_values

from . import run_verbs

NIGHTLY = "HLLM_NIGHTLY" in os.environ
"""Whether to make ten times the trials: `make nightly`."""


@dataclass
class Ended:
    """One trial's end: its exit code, what it printed, and how many changes to files it made."""

    code: int
    output: str
    changes: int
    seconds: float


class Verbs:
    """Run verbs, each in a fork of a process that has imported all that they need."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(self, folder: Path, verb: str, **limits: Any) -> Ended:
        """Run a verb with its arguments, separated by blanks, in a folder; the limits are those of run_verbs.py."""
        self.process.stdin.write(json.dumps({"verb": verb.split(), "folder": str(folder), **limits}) + "\n")
        self.process.stdin.flush()
        return Ended(**json.loads(self.process.stdout.readline()))


@pytest.fixture(scope="session")
def verbs() -> Iterator[Verbs]:
    with subprocess.Popen(
        [sys.executable, run_verbs.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Verbs(process)
        process.stdin.close()


@pytest.fixture(scope="session")
def shop(tmp_path_factory, interactions, items, tiny_llama, tiny_bert, verbs) -> Path:
    """Two tables, a recipe with dropout and two stages, requests, and a finished run with tables, index and evaluation."""
    folder = tmp_path_factory.mktemp("shop")
    interactions.write_parquet(folder / "interactions.parquet")
    items.write_parquet(folder / "items.parquet")
    interactions.select("user_id").unique(maintain_order=True).write_csv(folder / "requests.csv")
    values = recipe_values(tiny_bert, tiny_llama)
    values["data"] = {"interactions": "interactions.parquet", "items": "items.parquet"}
    values["model"]["user"] = {"kind": "sasrec", "dim": 16, "num_heads": 2, "dropout": 0.3}
    values["checkpoints"] = {"every_steps": 2, "keep": 3}
    values["stages"][0] |= {"ema": 0.9}
    values["stages"][1] |= {"start": "best", "micro_batch_size": 4, "gradient_cache": True}
    (folder / "recipe.json").write_text(json.dumps(values))
    made = ["train recipe.json --out run", "embed --run run --out run/items", "embed-users --run run --out run/users"]
    for verb in [*made, "index --run run", "evaluate --run run"]:
        ended = verbs.run(folder, verb)
        assert ended.code == 0, ended.output
    return folder


@pytest.fixture
def copied(shop: Path, tmp_path: Path) -> Path:
    """A copy of the shop that a test may damage."""
    return Path(shutil.copytree(shop, tmp_path / "shop"))
