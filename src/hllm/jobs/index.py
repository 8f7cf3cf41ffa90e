"""An index over a run's items is built and kept in its directory."""

# Proved by tests/cli/test_index.py.

from dataclasses import dataclass

from hllm.api import Recommender
from hllm.errors import CheckpointError
from hllm.locks import locked
from hllm.retrieval.index.certificate import Certificate
from hllm.retrieval.index.config import IndexConfig
from hllm.retrieval.index.index import Index
from hllm.retrieval.index.qdrant import collection_of
from hllm.retrieval.index.retriever import build_index, source_of
from hllm.runs.run import Run


@dataclass(frozen=True)
class Indexed:
    """An index that was built, and the collection that it leaves behind."""

    index: Index
    certificate: Certificate
    orphan: str | None
    """A Qdrant collection that was the run's before, and is not any more."""


def index_run(run: Run, config: IndexConfig, *, min_recall: float) -> Indexed:
    """Build an index over the run's items, measure its recall and latency, and keep it in place of the one before.

    Raises ConfigError, and keeps the one before, if it finds less than `min_recall` of the exact ten best,
    and BusyError if another process trains the run or makes its index.
    """
    with run.part_locked(run.index_path), locked(run.index_path):
        return _index_run(run, config, min_recall)


def _index_run(run: Run, config: IndexConfig, min_recall: float) -> Indexed:
    recommender = Recommender.load(run.folder)
    index = build_index(
        recommender.scorer, recommender.dataset, config, source=source_of(run.table_path), min_recall=min_recall
    )
    assert index.certificate is not None, "build_index certifies"
    try:
        before = collection_of(run.index_path)
    except CheckpointError:  # damaged, and replaced now
        before = None
    index.save(run.index_path)
    orphan = None if before in (None, collection_of(run.index_path)) else before
    return Indexed(index, index.certificate, orphan)
