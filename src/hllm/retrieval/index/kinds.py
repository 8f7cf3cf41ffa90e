"""The kinds of nominators: how an index of each kind builds, opens and keeps its own."""

# Proved by tests/retrieval/index/test_faiss.py, tests/retrieval/index/test_qdrant.py.

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from jaxtyping import Float
from torch import Tensor

from hllm.retrieval.index.config import IndexConfig, Kind
from hllm.retrieval.index.faiss import FaissNominator
from hllm.retrieval.index.nominator import Nominator
from hllm.retrieval.index.qdrant import COLLECTION, QdrantNominator


@dataclass(frozen=True)
class NominatorKind:
    """All that an index asks of a kind of nominator."""

    build: Callable[[Float[Tensor, "item dim"], pl.Series, IndexConfig, str], Nominator]
    """Makes one of the base's vectors, their item ids, the settings and the vectors' source."""
    open: Callable[[Path, IndexConfig, str], Nominator]
    """Opens the file that its `save` wrote."""
    file: str
    """Name of this file among those of an index."""
    remedy: str
    """Advice where it finds too few of the best items."""


def _of_faiss(remedy: str) -> NominatorKind:
    return NominatorKind(
        build=lambda vectors, item_ids, config, source: FaissNominator.build(vectors, config),
        open=lambda path, config, source: FaissNominator.open(path, config),
        file="nominator.faiss",
        remedy=remedy,
    )


_OF_GRAPHS = 'raise ef_search, neighbours or ef_construction, or use kind = "exact"'
NOMINATORS: dict[Kind, NominatorKind | None] = {
    "exact": None,
    "flat": _of_faiss("this is a fault of hllm"),
    "hnsw": _of_faiss(_OF_GRAPHS),
    "ivf-pq": _of_faiss('raise num_probes, refine or code_bytes, or use kind = "exact"'),
    "qdrant": NominatorKind(
        build=lambda vectors, item_ids, config, source: QdrantNominator.build(vectors, item_ids, config, source=source),
        open=lambda path, config, source: QdrantNominator.open(path, config, source=source),
        file=COLLECTION,
        remedy=_OF_GRAPHS,
    ),
}
"""The nominator of each kind of index; None for the kind that scores every item."""
