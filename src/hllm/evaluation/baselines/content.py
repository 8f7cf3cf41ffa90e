"""Content baselines read the items' text and learn from no user: BM25, and vectors of a pre-trained encoder."""

# Proved by tests/evaluation/test_baselines.py.

from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hllm.data.dataset import Dataset
from hllm.data.prompt import PromptConfig, render
from hllm.data.split import Split
from hllm.embedding.pretrained import pretrained_table
from hllm.errors import ConfigError
from hllm.extras import require
from hllm.retrieval.histories import Histories
from hllm.retrieval.tiles import dot_products

History = Literal["last item", "all items"]
_VALUES_ALONE = PromptConfig(field_names=False)


@final
class BM25:
    """Score items by how well their text answers to the last item's, by words, through the library `bm25s`.

    `last` is the number of newest items whose texts together make the query; None takes the whole history. Words are
    runs of two or more letters or digits, in lower case; none is left out. Items without training interactions are
    scored like any other. Raises MissingExtraError without the library.

    Source: Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, with k1 = 1.5 and
    b = 0.75 and the idf of Lucene, which is never negative.
    """

    def __init__(self, dataset: Dataset, split: Split, *, last: int | None = 1) -> None:
        bm25s = require("bm25s", extra="baselines", purpose="The baseline 'bm25'")
        if last is not None and last < 1:
            raise ConfigError(f"bm25: last is {last}; it must be at least 1, or None for the whole history")
        self.num_items = dataset.num_items
        self.last = last
        texts = render(dataset.items, dataset.text_cols, _VALUES_ALONE)
        words = bm25s.tokenize(texts, stopwords=None, show_progress=False)
        self.words: list[list[int]] = words.ids
        self.index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
        self.index.index(words, show_progress=False)

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return the BM25 scores of all items' texts; 0 throughout where the query has no word."""
        scores = np.zeros((len(histories), self.num_items), dtype=np.float32)
        for row, items in zip(scores, histories, strict=True):
            newest = items if self.last is None else items[-self.last :]
            query = [word for item in newest.tolist() for word in self.words[item]]
            if query:
                row[:] = self.index.get_scores_from_ids(query)
        return scores


@final
class Embedding:
    """The cosine between an item's vector and that of the history's last item, or the mean of all its items' vectors.

    `table` holds one vector for each item; those of a pre-trained text encoder make a recommender without training.
    The mean is over vectors of unit length. An empty history, and a vector of zeros, score 0 with everything.
    """

    def __init__(self, table: Float[np.ndarray, "item dim"], *, history: History = "last item") -> None:
        self.num_items = len(table)
        self.history = history
        norms = np.linalg.norm(table, axis=1, keepdims=True)
        self.keys = torch.from_numpy((table / np.where(norms > 0, norms, 1.0)).astype(np.float32))

    def queries(self, histories: Histories) -> Float[Tensor, "user dim"]:
        """Return the vector of the last item, or the mean of all items' vectors; zeros for an empty history."""
        queries = self.keys.new_zeros(len(histories), self.keys.shape[1])
        for row, items in zip(queries, histories, strict=True):
            if len(items):
                row[:] = self.keys[items[-1]] if self.history == "last item" else self.keys[items].mean(0)
        return queries

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return the cosines; between a mean and a vector, up to the mean's length."""
        return dot_products(self.queries(histories), self.keys)


def embedding(dataset: Dataset, split: Split, *, backbone: str = "minilm-l6") -> Embedding:
    """The cosine of text vectors with the last item's, by the pre-trained encoder minilm-l6."""
    return Embedding(pretrained_table(dataset, backbone).vectors.numpy())


def embedding_mean(dataset: Dataset, split: Split, *, backbone: str = "minilm-l6") -> Embedding:
    """The cosine of text vectors with the mean of the history's, by the pre-trained encoder minilm-l6."""
    return Embedding(pretrained_table(dataset, backbone).vectors.numpy(), history="all items")
