"""Measure the recommended lists themselves, besides whether the target is in them."""

# Proved by tests/evaluation/test_protocol.py.

import re
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from hllm import artifacts
from hllm.data.dataset import Dataset
from hllm.data.prompt import PromptConfig, render
from hllm.data.split import Split
from hllm.errors import ConfigError, nearest
from hllm.evaluation.baselines import Popularity
from hllm.evaluation.protocol import EvaluationConfig
from hllm.metrics.beyond_accuracy import beyond_accuracy
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.histories import Histories
from hllm.retrieval.retriever import Retriever

_WORD = re.compile(r"\w+")
_COLUMNS = 512


@dataclass(frozen=True)
class Categories:
    """Categories of each item of the catalogue."""

    names: tuple[str, ...]
    table: Bool[np.ndarray, "item category"]

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of which item has which categories."""
        return artifacts.fingerprint([self.names, artifacts.digest_of_integers(np.argwhere(self.table))])


def list_metrics(
    retriever: Retriever,
    histories: Histories,
    excluded: Histories,
    targets: Int[np.ndarray, "query target"],
    dataset: Dataset,
    split: Split,
    config: EvaluationConfig,
    *,
    categories: Categories | None,
) -> dict[str, float]:
    """Return each metric of `hllm.metrics.beyond_accuracy` at each cut-off, under names such as "coverage@10".

    Means are over the lists that are long enough; where none is, the metric is left out. Texts count as alike by their
    words, for every recommender the same way; what is expected of serendipity is the popularity baseline. There is a
    row for each query, and `targets` end early with -1.
    """
    width = max(config.cutoffs)
    popular = ExactRetriever(Popularity(dataset, split))
    values = beyond_accuracy(
        retriever.recommend(histories, width, exclude=excluded).items,
        split.train_counts(dataset),
        embeddings=word_vectors(dataset) if dataset.text_cols else None,
        categories=None if categories is None else categories.table,
        histories=histories if categories is not None else None,
        targets=targets,
        expected=popular.recommend(histories, width, exclude=excluded).items,
        cutoffs=config.cutoffs,
    )
    each = {name: np.atleast_1d(value) for name, value in values.items()}
    numbers = {name: value[~np.isnan(value)] for name, value in each.items()}
    return {name: float(value.mean()) for name, value in numbers.items() if len(value)}


def word_vectors(dataset: Dataset) -> Float[np.ndarray, "item dim"]:
    """Return a vector of each item's words, weighted by how rare they are; no model is asked.

    Words share 512 columns, with signs that make collisions cancel on average.

    Source: feature hashing, Weinberger et al., ICML 2009; weights log(items / items with the word).
    """
    texts = render(dataset.items, dataset.text_cols, PromptConfig(prefix=""))
    words = [set(_WORD.findall(text.lower())) for text in texts]
    counts: dict[str, int] = {}
    for bag in words:
        for word in bag:
            counts[word] = counts.get(word, 0) + 1
    vectors = np.zeros((len(texts), _COLUMNS), dtype=np.float32)
    for row, bag in enumerate(words):
        for word in bag:
            digest = zlib.crc32(word.encode())
            sign = 1.0 if digest & 1 else -1.0
            vectors[row, (digest >> 1) % _COLUMNS] += sign * np.log(len(texts) / counts[word])
    return vectors


def categories_of(dataset: Dataset, config: EvaluationConfig) -> Categories | None:
    """Return the categories of all items, or None if the config names no column; ConfigError for an unknown one."""
    if config.category_col is None:
        return None
    if config.category_col not in dataset.items.columns:
        raise ConfigError(
            f"evaluation.category_col {config.category_col!r} is no column of the items"
            f"{nearest(config.category_col, dataset.items.columns)}; they have {', '.join(dataset.items.columns)}"
        )
    column = dataset.items[config.category_col].cast(str).fill_null("")
    labels = [{label.strip() for label in text.split(config.category_separator)} - {""} for text in column]
    names = {name: number for number, name in enumerate(sorted(set().union(*labels)))}
    table = np.zeros((len(labels), len(names)), dtype=bool)
    for row, own in enumerate(labels):
        table[row, [names[name] for name in own]] = True
    return Categories(tuple(names), table)
