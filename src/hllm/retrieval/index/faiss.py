"""Approximate search by FAISS: a structure over the base of an index that nominates rows for exact scoring."""

from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm.errors import CheckpointError, ConfigError
from hllm.extras import require
from hllm.retrieval.index.config import IndexConfig, Kind

_ROWS_AT_ONCE = 65_536
_CENTROIDS = 256  # of a code of 8 bits
_TRAINING_ROWS_PER_LIST = 64
_QUANTIZER = 53  # where the quantizer begins in a file of kind ivf-pq


@final
class FaissNominator:
    """A FAISS index whose rows are those of the base."""

    def __init__(self, index: Any, config: IndexConfig) -> None:
        self.index = index
        self.config = config
        self.faiss = faiss_module()

    @classmethod
    def build(cls, vectors: Float[Tensor, "item dim"], config: IndexConfig) -> "FaissNominator":
        """Build over vectors whose dot products are the scores; only a slice of them is copied at a time.

        With more than one thread the graph of hnsw differs a little from build to build.
        """
        index = _empty(faiss_module(), len(vectors), vectors.shape[1], config)
        if not index.is_trained:
            number = max(_CENTROIDS, index.nlist) * _TRAINING_ROWS_PER_LIST
            rows = np.random.default_rng(config.seed).permutation(len(vectors))[:number]
            index.train(vectors[np.sort(rows)].float().numpy())
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            index.add(vectors[start : start + _ROWS_AT_ONCE].float().numpy())
        return cls(index, config)

    @classmethod
    def open(cls, path: Path, config: IndexConfig) -> "FaissNominator":
        """Map a file that `save` wrote; CheckpointError for any other.

        FAISS trusts what it reads: check the file's hash before.
        """
        faiss = faiss_module()
        try:
            index = _read(faiss, path, config.kind)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"FAISS cannot read {path}: {reason}; make it again with hllm index") from None
        if index is None:
            raise CheckpointError(
                f'{path} is not an index of kind "{config.kind}" as hllm writes it: it may name other files; make it '
                "again with hllm index"
            )
        return cls(index, config)

    def save(self, path: Path) -> None:
        """Write all to one file."""
        self.faiss.write_index(self.index, str(path))

    def discard(self) -> None:
        """Delete nothing: it lives in this process alone."""

    def nominate(
        self,
        queries: Float[np.ndarray, "query dim"],
        number: int,
        allowed: Bool[np.ndarray, " item"],
    ) -> Int[np.ndarray, "query number"]:
        """Return for each query up to `number` allowed rows; the fewer are allowed, the further it looks."""
        every = bool(allowed.all())
        effort = 1.0 if every else len(allowed) / max(1, int(np.count_nonzero(allowed)))
        selector = None if every else self.faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        match self.config.kind:
            case "hnsw":
                depth = int(effort * max(self.config.ef_search, number))
                options = self.faiss.SearchParametersHNSW(efSearch=depth, sel=selector)
            case "ivf-pq":
                number *= self.config.refine
                probes = min(self.index.nlist, int(effort * self.config.num_probes))
                options = self.faiss.SearchParametersIVF(nprobe=probes, sel=selector)
            case _:
                options = self.faiss.SearchParameters(sel=selector)
        rows: Int[np.ndarray, "query number"] = self.index.search(queries, number, params=options)[1]
        return rows


def faiss_module() -> Any:
    """Import FAISS; MissingExtraError if it is not installed."""
    return require("faiss", extra="faiss", purpose="An approximate index")


def _read(faiss: Any, path: Path, kind: Kind) -> Any | None:
    """Read a file of FAISS; None if it is of another kind, or names a further file, which FAISS would open.

    Lists of codes may stand in a file of their own (OnDiskInvertedLists). Without the data of lists such a file is not
    opened, and only lists that stand in the file itself cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_QUANTIZER + 4)
    without_lists = faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_SKIP_IVF_DATA
    if kind != "ivf-pq":
        index = faiss.read_index(str(path), without_lists)
        flat = index if kind == "flat" else getattr(index, "storage", None)
        fits = type(index) is (faiss.IndexHNSWFlat if kind == "hnsw" else faiss.IndexFlatIP)
        return index if fits and isinstance(faiss.downcast_index(flat), faiss.IndexFlat) else None
    if (head[:4], head[_QUANTIZER:]) != (b"IwPQ", b"IxFI"):
        return None
    try:
        faiss.read_index(str(path), without_lists)
    except RuntimeError:  # as it should be
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    return None


def _empty(faiss: Any, num_items: int, dim: int, config: IndexConfig) -> Any:
    """Return a FAISS index without vectors; ConfigError if the settings do not fit these."""
    product = faiss.METRIC_INNER_PRODUCT
    match config.kind:
        case "flat":
            return faiss.IndexFlatIP(dim)
        case "hnsw":
            index = faiss.IndexHNSWFlat(dim, config.neighbours, product)
            index.hnsw.efConstruction = config.ef_construction
            return index
        case "ivf-pq":
            num_lists, code_bytes = config.num_lists or int(4 * num_items**0.5), config.code_bytes or _quarter(dim)
            num_lists = max(1, min(num_lists, num_items // 39 if config.num_lists is None else num_lists))
            if num_items < max(_CENTROIDS, num_lists):
                raise ConfigError(
                    f"ivf-pq with {num_lists:,} lists needs at least {max(_CENTROIDS, num_lists):,} items to learn "
                    f'from, and there are {num_items:,}; use kind = "exact"'
                )
            if dim % code_bytes:
                raise ConfigError(f"code_bytes is {code_bytes}, which does not divide the vectors' dimension {dim}")
            index = faiss.IndexIVFPQ(faiss.IndexFlatIP(dim), dim, num_lists, code_bytes, 8, product)
            for clustering in (index.cp, index.pq.cp):
                clustering.seed, clustering.min_points_per_centroid = config.seed, 1  # no warning on stderr
            return index
        case _:
            raise AssertionError("an exact index has no FAISS structure")


def _quarter(dim: int) -> int:
    return max(size for size in range(1, max(1, dim // 4) + 1) if dim % size == 0)
