"""Readers of a table and an index that another process makes anew, again and again, while they open it."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hllm.embedding.table import ItemEmbeddingTable
from hllm.retrieval.index.index import Index

from .conftest import NIGHTLY

OPENS = 4_000 if NIGHTLY else 400
WRITER = """
import sys
from pathlib import Path
import polars as pl, torch
from hllm.embedding.table import save_items
from hllm.retrieval.index.index import Index
folder, ids, version = Path(sys.argv[1]), pl.Series("item_id", [f"i{n}" for n in range(50)]), 0
while True:
    version += 1
    vectors = torch.full((50, 4), float(version))
    save_items(folder / "table", ids, vectors, checkpoint=str(version))
    index = Index.build(vectors, ids, source="one")
    index.save(folder / "index")
    if version == 1:
        print("ready", flush=True)
"""


def version_of_table(folder: Path) -> float:
    """Open the table; return its version, which its manifest, its first and its last vector agree on."""
    table = ItemEmbeddingTable.load(folder / "table", checkpoint=None)
    values = {float(table.checkpoint), float(table.vectors.min()), float(table.vectors.max())}
    assert len(values) == 1, values
    return values.pop()


def version_of_index(folder: Path) -> float:
    """Open the index; return its version: the longest vector of its manifest, which is that of its vectors."""
    snapshot = Index.open(folder / "index", source="one")._state.snapshot
    values = {float(snapshot.base.min()), float(snapshot.base.max())}
    assert len(values) == 1, values
    assert snapshot.longest == pytest.approx(2 * values.copy().pop(), rel=1e-3)  # four equal components
    return values.pop()


@pytest.mark.reliability("swapped")
@pytest.mark.parametrize("version_of", [version_of_table, version_of_index])
def test_what_two_readers_open_is_of_one_version_and_never_called_damaged(tmp_path, version_of, trials):
    def read(_: int) -> set[float]:
        return {version_of(tmp_path) for _ in range(OPENS // 2)}

    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout.readline() == "ready\n"
            with ThreadPoolExecutor(2) as pool:
                versions = set().union(*pool.map(read, range(2)))
            assert writer.poll() is None, "it wrote to the end"
        finally:
            writer.kill()
    assert len(versions) > 10, "it was replaced between the openings"
    trials(OPENS)
