"""Baselines recommend without training by gradient and are there to be beaten: one file for each idea."""

from collections.abc import Callable

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.errors import ConfigError, nearest
from hllm.evaluation.baselines.als import ALS
from hllm.evaluation.baselines.chance import Random
from hllm.evaluation.baselines.co_occurrence import CoOccurrence, ItemKNN
from hllm.evaluation.baselines.content import BM25, Embedding, embedding, embedding_mean
from hllm.evaluation.baselines.ease import EASE
from hllm.evaluation.baselines.markov import Markov
from hllm.evaluation.baselines.popularity import Popularity, RecentPopularity
from hllm.retrieval.retriever import Scorer

BASELINES: dict[str, Callable[[Dataset, Split], Scorer]] = {
    "random": Random,
    "popularity": Popularity,
    "popularity-recent": RecentPopularity,
    "markov": Markov,
    "co-occurrence": CoOccurrence,
    "item-knn": ItemKNN,
    "ease": EASE,
    "als": ALS,
    "bm25": BM25,
    "embedding": embedding,
    "embedding-mean": embedding_mean,
}
"""Builders by name. Each reads the training interactions alone; what a user did since comes as the history."""


def build_baseline(name: str, dataset: Dataset, split: Split) -> Scorer:
    """Build a baseline with its default settings.

    Raises ConfigError for an unknown name and where the data do not suit (no clock times, too many items), and
    MissingExtraError where a library is missing.
    """
    if name not in BASELINES:
        raise ConfigError(f"unknown baseline {name!r}{nearest(name, BASELINES)}; known: {', '.join(BASELINES)}")
    return BASELINES[name](dataset, split)


__all__ = [
    "ALS",
    "BASELINES",
    "BM25",
    "EASE",
    "CoOccurrence",
    "Embedding",
    "ItemKNN",
    "Markov",
    "Popularity",
    "Random",
    "RecentPopularity",
    "build_baseline",
]
