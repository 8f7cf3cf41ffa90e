"""The Retriever that finds items by way of an Index."""

from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Bool, Int

from hllm import artifacts
from hllm.data.dataset import Dataset
from hllm.embedding.table import ITEMS
from hllm.errors import CheckpointError, ConfigError
from hllm.metrics import TargetRanks
from hllm.retrieval.exact import USERS_PER_TILE, ExactRetriever
from hllm.retrieval.histories import Histories, ItemLists, histories_of
from hllm.retrieval.index.config import IndexConfig
from hllm.retrieval.index.index import Index
from hllm.retrieval.retriever import Recommendations, VectorScorer
from hllm.retrieval.scorer import ModelScorer

MAX_SAMPLED_USERS = 500


@final
class IndexRetriever:
    """Recommends from an index, as exactly as its certificate says; `rank`, and so evaluation, stays exact."""

    def __init__(self, scorer: VectorScorer, index: Index) -> None:
        """Take the scorer that makes the queries; CheckpointError unless the index has a row for each of its items."""
        if index.num_rows != scorer.num_items:
            raise CheckpointError(
                f"the index has {index.num_rows:,} rows, the recommender {scorer.num_items:,} items; make the index "
                "again with hllm index"
            )
        self.scorer = scorer
        self.index = index
        self._exact = ExactRetriever(scorer)

    def recommend(
        self,
        histories: Histories,
        k: int,
        *,
        exclude: ItemLists | None = None,
        candidates: Bool[np.ndarray, " item"] | None = None,
    ) -> Recommendations:
        """Return the k best items of each user that the index finds; see Retriever."""
        items = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for start in range(0, len(histories), USERS_PER_TILE):
            tile = slice(start, start + USERS_PER_TILE)
            excluded = None if exclude is None else exclude[tile]
            queries = self.scorer.queries(histories[tile])
            best = self.index.search(queries, k, exclude=excluded, candidates=candidates)
            items[tile], scores[tile] = best.items, best.scores
        return Recommendations(items, scores)

    def rank(self, histories: Histories, targets: Int[np.ndarray, " user"], exclude: ItemLists) -> TargetRanks:
        """Count the items above and level with each target, exactly; see Retriever."""
        return self._exact.rank(histories, targets, exclude)


def build_index(
    scorer: ModelScorer,
    dataset: Dataset,
    config: IndexConfig | None = None,
    *,
    source: str,
    k: int = 10,
    min_recall: float | None = None,
) -> Index:
    """Build an index over a scorer's items, certified with the whole histories of at most 500 users, evenly chosen.

    `source` is what `source_of` the item vectors gives. With `config.dim`, recall is that of exact search by so many
    numbers. Raises ConfigError if recall@k is below `min_recall`, and leaves no new collection in Qdrant then;
    and what `Index.build` and `ModelScorer.first` raise.
    """
    config = config or IndexConfig()
    scorer = scorer.first(config.dim)
    config = config.model_copy(update={"dim": scorer.dim})
    index = Index.build(scorer.keys, dataset.item_ids, config, source=source)
    number = min(MAX_SAMPLED_USERS, dataset.num_users)
    users = np.linspace(0, dataset.num_users - 1, number).astype(np.int64)
    queries = scorer.queries(histories_of(dataset, users, dataset.offsets[users + 1]))
    try:
        index.certify(queries, described=f"{number:,} of {dataset.num_users:,} users", k=k, min_recall=min_recall)
    except ConfigError:
        index.discard()
        raise
    return index


def open_index(path: Path, table: Path, dataset: Dataset) -> Index:
    """Open the index in `path` over the vectors of `table`; CheckpointError unless it has the dataset's items."""
    index = Index.open(path, source=source_of(table))
    if index.num_items != index.num_rows or not index.item_ids.equals(dataset.item_ids, check_names=False):
        raise CheckpointError(
            f"the index in {path} does not hold the items of the run's dataset, in their order; make it again with "
            "hllm index"
        )
    return index


def source_of(table: Path) -> str:
    """Return the fingerprint of an item embedding table on disk: what an index over its vectors is bound to."""
    return artifacts.read_manifest(table, ITEMS).fingerprint
