"""An index's certificate: recall@10 against exact search, and the time of a search on one thread.

    OMP_NUM_THREADS=1 python benchmarks/index.py                                 # 100,000 items, every kind
    python benchmarks/index.py --items 10000000 --kinds exact,ivf-pq --set num_lists=4096 --folder DISK

Goal at 100,000 × 256: recall@10 ≥ .95 for hnsw, exact p99 ≤ 40 ms; at 10 million: all within 24 GB of memory.

The vectors are made up, and written as a table of items in shards, as `hllm embed` writes them: unit vectors round
2,000 centres that are themselves spread over 64 directions, as the embeddings of a catalogue are closer to each other
than noise is. Queries are items with noise. "noise" has no structure at all: the worst case of every approximate
index, which real embeddings are not. From a million items on, table and index are in bf16, and mapped from disk.

Times are by the clock and of the process's CPU: other work on the machine disturbs only the former.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from hllm.embedding.rows import encode_rows
from hllm.embedding.table import ITEMS, ItemEmbeddingTable, writing_table
from hllm.retrieval.index.certificate import recall_of
from hllm.retrieval.index.config import IndexConfig
from hllm.retrieval.index.index import Index

DIM, QUERIES, CENTRES, DIRECTIONS = 256, 200, 2000, 64
AT_ONCE = 100_000
LARGE = 1_000_000  # items; from here on the vectors are kept in bf16
SHARES = (1.0, 0.1, 0.01, 0.001, 0.0)  # of the items that a filter lets through
SOURCE = "made up"


def write_items(path: Path, number: int, structure: str, dtype: str) -> None:
    """Write a table of unit vectors, some at a time."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(CENTRES, DIRECTIONS, generator=draw) @ torch.randn(DIRECTIONS, DIM, generator=draw)
    centres /= DIRECTIONS**0.5
    start, cpu = time.perf_counter(), time.process_time()
    ids = pl.Series(np.arange(number))
    with writing_table(path, ITEMS, ids, DIM, dtype, details={"checkpoint": SOURCE, "precision": "fp32"}) as writer:
        for first in range(0, number, AT_ONCE):
            count = min(AT_ONCE, number - first)
            vectors = torch.randn(count, DIM, generator=draw)
            if structure == "catalogue":
                vectors = centres[torch.randint(CENTRES, (count,), generator=draw)] + 0.5 * vectors
            writer.put(np.arange(first, first + count), encode_rows(F.normalize(vectors, dim=-1), "fp32"))
    print(
        f"table in {dtype}: {number:,} vectors made and written in {time.perf_counter() - start:.1f} s "
        f"({time.process_time() - cpu:.1f} s of CPU); peak memory so far {peak_gb():.2f} GB"
    )


def vectors_of(table: ItemEmbeddingTable) -> Tensor:
    """Return the table's vectors as they are stored, mapped from disk."""
    values = torch.from_numpy(table.rows.values)
    return values.view(torch.bfloat16) if table.dtype == "bf16" else values


def queries_of(vectors: Tensor) -> Tensor:
    """Return items with noise, as unit vectors."""
    draw = torch.Generator().manual_seed(1)
    chosen = vectors[torch.linspace(0, len(vectors) - 1, QUERIES).long()].float()
    return F.normalize(chosen + 0.3 * torch.randn(chosen.shape, generator=draw) / DIM**0.5, dim=-1)


def cpu_ms(index: Index, queries: Tensor, exactly: bool) -> tuple[float, float]:
    """Return p50 and p99 of the process's CPU milliseconds of one search."""
    search = index.search_exactly if exactly else index.search
    taken = []
    for query in queries.split(1):
        start = time.process_time()
        search(query, 10)
        taken.append(time.process_time() - start)
    p50, p99 = np.percentile(taken, [50, 99]) * 1000
    return float(p50), float(p99)


def peak_gb() -> float:
    """Return the most memory that the process has had, in GB; pages of mapped files count."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def filters(index: Index, queries: Tensor) -> None:
    """Print what a filter that lets through a share of the items does to recall and time; all must be allowed."""
    draw = np.random.default_rng(3)
    queries = queries[:20]
    for share in SHARES:
        allowed = draw.random(index.num_rows) < share
        start = time.process_time()
        found = [index.search(query, 10, candidates=allowed) for query in queries.split(1)]
        taken = (time.process_time() - start) / len(queries) * 1000
        exact = index.search_exactly(queries, 10, candidates=allowed)
        items, scores = (np.concatenate([getattr(each, name) for each in found]) for name in ("items", "scores"))
        assert ((items >= 0).sum(1) == min(10, allowed.sum())).all(), "a filter returns min(k, matching) items"
        assert allowed[items[items >= 0]].all(), "a filter lets nothing else through"
        recall = recall_of(type(exact)(items, scores), exact).mean()
        print(f"filter {share:.1%} ({allowed.sum():,} items): recall@10 {recall:.4f}, CPU {taken:.2f} ms a search")


def measure(config: IndexConfig, path: Path, folder: Path) -> None:
    """Build, save, open and certify one index, and print what came out."""
    table = ItemEmbeddingTable.load(path, checkpoint=SOURCE)
    vectors = vectors_of(table)
    start, cpu = time.perf_counter(), time.process_time()
    index = Index.build(vectors, table.ids, config, source=SOURCE)
    built, cpu = time.perf_counter() - start, time.process_time() - cpu
    index.save(folder / "index")
    queries = queries_of(vectors)
    del index, vectors, table
    start = time.perf_counter()
    index = Index.open(folder / "index", source=SOURCE)
    opened = time.perf_counter() - start
    print(
        f"\n{config.kind}, {config.dtype}: built in {built:.1f} s ({cpu:.1f} s of CPU), opened (hashes checked) in "
        f"{opened:.2f} s"
    )
    print(index.certify(queries, described="items with noise"))
    timed = queries if index.num_items < LARGE else queries[:20]
    for label, exactly in (("index", False), ("exactly", True)):
        print("CPU of one search, {}: p50 {:.2f} ms, p99 {:.2f} ms".format(label, *cpu_ms(index, timed, exactly)))
    filters(index, queries)
    size = sum(file.stat().st_size for file in (folder / "index").iterdir()) / 1e9
    print(
        f"on disk {size:.2f} GB, peak memory so far {peak_gb():.2f} GB, load average {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def main() -> None:
    """Print a paragraph for each kind."""
    parser = argparse.ArgumentParser(description="Certificates of indexes over made-up vectors.")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--kinds", default="exact,hnsw,ivf-pq")
    parser.add_argument("--structure", choices=["catalogue", "noise"], default="catalogue")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], help="By default bf16 from a million items on.")
    parser.add_argument("--set", action="append", default=[], metavar="A=VALUE", help="Of the index's settings.")
    parser.add_argument("--folder", type=Path, help="Where the vectors and indexes go; by default a temporary folder.")
    options = parser.parse_args()
    print(
        f"{options.items:,} × {DIM}, {options.structure}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    dtype = options.dtype or ("bf16" if options.items >= LARGE else "fp32")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_items(folder / "table", options.items, options.structure, dtype)
        for kind in options.kinds.split(","):
            values = {"kind": kind, "dtype": dtype}
            measure(IndexConfig.from_dict(values, where=kind, overrides=options.set), folder / "table", folder)


if __name__ == "__main__":
    main()
