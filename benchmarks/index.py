"""An index's certificate: recall@10 against exact search, and the time of a search on one thread.

    OMP_NUM_THREADS=1 python benchmarks/index.py                        # 100,000 items, every kind
    python benchmarks/index.py --items 10000000 --kinds ivf-pq          # bf16, about 18 GB of disk in --folder

Goal at 100,000 × 256: recall@10 ≥ .95 for hnsw, exact p99 ≤ 40 ms; at 10 million: all within 24 GB of memory.

The vectors are made up: unit vectors round 2,000 centres that are themselves spread over 64 directions, as the
embeddings of a catalogue are closer to each other than noise is. Queries are items with noise. "noise" has no
structure at all: the worst case of every approximate index, which real embeddings are not.

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

from hllm.retrieval.faiss import IndexConfig
from hllm.retrieval.index import Index

DIM, QUERIES, CENTRES, DIRECTIONS = 256, 200, 2000, 64
AT_ONCE = 100_000
LARGE = 1_000_000  # items; from here on the vectors are kept in bf16
SOURCE = "made up"


def write_items(path: Path, number: int, structure: str) -> None:
    """Write unit vectors as .npy in fp32, some at a time."""
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(number, DIM))
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(CENTRES, DIRECTIONS, generator=draw) @ torch.randn(DIRECTIONS, DIM, generator=draw)
    centres /= DIRECTIONS**0.5
    for start in range(0, number, AT_ONCE):
        count = min(AT_ONCE, number - start)
        vectors = torch.randn(count, DIM, generator=draw)
        if structure == "catalogue":
            vectors = centres[torch.randint(CENTRES, (count,), generator=draw)] + 0.5 * vectors
        file[start : start + count] = F.normalize(vectors, dim=-1).numpy()
        file.flush()


def queries_of(vectors: Tensor) -> Tensor:
    """Return items with noise, as unit vectors."""
    draw = torch.Generator().manual_seed(1)
    chosen = vectors[torch.linspace(0, len(vectors) - 1, QUERIES).long()]
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


def measure(kind: str, path: Path, folder: Path) -> None:
    """Build, save, open and certify one index, and print what came out."""
    vectors = torch.from_numpy(np.load(path, mmap_mode="c"))
    config = IndexConfig(kind=kind, dtype="bf16" if len(vectors) >= LARGE else "fp32")
    start = time.perf_counter()
    index = Index.build(vectors, pl.Series(np.arange(len(vectors))), config, source=SOURCE)
    built = time.perf_counter() - start
    index.save(folder / "index")
    queries = queries_of(vectors)
    del index, vectors
    start = time.perf_counter()
    index = Index.open(folder / "index", source=SOURCE)
    opened = time.perf_counter() - start
    print(f"\n{kind}, {config.dtype}: built in {built:.1f} s, opened (hashes checked) in {opened:.2f} s")
    print(index.certify(queries, described="items with noise"))
    timed = queries if index.num_items < LARGE else queries[:20]
    for label, exactly in (("index", False), ("exactly", True)):
        print("CPU of one search, {}: p50 {:.2f} ms, p99 {:.2f} ms".format(label, *cpu_ms(index, timed, exactly)))
    size = sum(file.stat().st_size for file in (folder / "index").iterdir()) / 1e9
    print(f"on disk {size:.2f} GB, peak memory so far {peak_gb():.2f} GB, load average {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Print a paragraph for each kind."""
    parser = argparse.ArgumentParser(description="Certificates of indexes over made-up vectors.")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--kinds", default="exact,hnsw,ivf-pq")
    parser.add_argument("--structure", choices=["catalogue", "noise"], default="catalogue")
    parser.add_argument("--folder", type=Path, help="Where the vectors and indexes go; by default a temporary folder.")
    options = parser.parse_args()
    print(
        f"{options.items:,} × {DIM}, {options.structure}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_items(folder / "vectors.npy", options.items, options.structure)
        for kind in options.kinds.split(","):
            measure(kind, folder / "vectors.npy", folder)


if __name__ == "__main__":
    main()
