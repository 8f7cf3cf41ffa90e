"""Numbers that explain why published figures of two baselines differ from ours; benchmarks/baselines.py calls it."""

from typing import Any

import numpy as np
from scipy import sparse

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.evaluation.baselines import Markov
from hllm.evaluation.evaluate import queries
from hllm.evaluation.protocol import EvaluationConfig
from hllm.metrics import ranking_metrics
from hllm.retrieval.exact import ExactRetriever

CUTOFFS = (20, 40)
TILE = 256


class EverythingBefore:
    """Stands in for a split: what the test targets' histories hold is for training too."""

    def __init__(self, dataset: Dataset, split: Split) -> None:
        asked = queries(dataset, split, "test")
        self.log = np.repeat(asked.users, [len(h) for h in asked.histories]), np.concatenate(list(asked.histories))

    def training_log(self, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Return user and item of every interaction before a test target."""
        return self.log

    def train_counts(self, dataset: Dataset) -> np.ndarray:
        """Return how often each item occurs there."""
        return np.bincount(self.log[1], minlength=dataset.num_items)


def markov_rows(dataset: Dataset, split: Split, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Return the Markov baseline with and without the validation items' transitions, ties by popularity or shared."""
    asked = queries(dataset, split, "test")
    rows = []
    for fitted, log in (
        ("training", split),
        ("training and validation", EverythingBefore(dataset, split)),
    ):
        for ties in ("popularity", "shared"):
            scorer = Markov(dataset, log)  # type: ignore[arg-type]
            if ties == "shared":
                scorer.popularity[:] = 0
            ranks = ExactRetriever(scorer).rank(asked.histories, asked.targets, exclude=asked.histories)
            values = {key: float(value.mean()) for key, value in ranking_metrics(ranks, (10,)).items()}
            rows.append({"fitted": fitted, "ties": ties} | values)
    return rows


def gte_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """Return GTE's walk under splits that could be its authors' own."""
    lengths = np.diff(dataset.offsets)
    length = np.repeat(lengths, lengths)
    position = np.arange(dataset.num_interactions) - np.repeat(dataset.offsets[:-1], lengths)
    rng = np.random.default_rng(0)
    drawn = rng.random(dataset.num_interactions)
    user = np.repeat(np.arange(dataset.num_users), lengths)
    shuffled = np.empty_like(position)  # each user's interactions in random order
    shuffled[np.lexsort((drawn, user))] = position
    fifth = np.floor(length / 5)
    variants = (
        ("all but the last two", position < length - 2, "the last", position == length - 1),
        ("all but the last", position < length - 1, "the last", position == length - 1),
        ("the first four fifths", position < length - fifth, "the last fifth", position >= length - fifth),
        ("a random four fifths", shuffled < length - fifth, "a random fifth", shuffled >= length - fifth),
        ("all but a random one", shuffled < length - 1, "a random one", shuffled == length - 1),
        ("80 % of all", drawn >= 0.2, "20 % of all, at random", drawn < 0.2),
    )
    rows = []
    for training, inside, targets, outside in variants:
        train, test = (_matrix(dataset, user, chosen) for chosen in (inside, outside))
        about = {"training": training, "targets": targets, "num_targets": int(outside.sum())}
        for ties in ("shared", "by id"):
            if ties == "by id" and training != "all but the last":
                continue
            values = _gte_metrics(train, test, by_id=ties == "by id")
            users = int((np.diff(test.indptr) > 0).sum())
            rows.append(about | {"users": users, "ties": ties} | dict(zip(_names(), values, strict=True)))
    return rows


def _names() -> list[str]:
    return [f"{metric}@{k}" for k in CUTOFFS for metric in ("recall", "ndcg")]


def _matrix(dataset: Dataset, user: np.ndarray, chosen: np.ndarray) -> sparse.csr_array:
    """Return users by items, columns in the order of the ids, as ids are what breaks ties."""
    column = np.argsort(np.argsort(dataset.item_ids.to_numpy()))[dataset.item_index[chosen]]
    ones = np.ones(int(chosen.sum()), dtype=np.float32)
    return sparse.csr_array((ones, (user[chosen], column)), shape=(dataset.num_users, dataset.num_items))


def _gte_metrics(train: sparse.csr_array, test: sparse.csr_array, *, by_id: bool) -> list[float]:
    """Return recall and NDCG at each cut-off, as means over users with a target.

    With `by_id` False equal scores are put in one random order of the items, which comes to sharing ties out.
    """
    order = np.arange(train.shape[1]) if by_id else np.random.default_rng(1).permutation(train.shape[1])
    train, test = train[:, order], test[:, order]
    together = train.T @ train
    num, deepest = np.diff(test.indptr), max(CUTOFFS)
    discount = 1 / np.log2(np.arange(2, deepest + 2))
    ideal = np.concatenate([[1.0], np.cumsum(discount)])  # of no target: never used
    found = []
    for start in range(0, train.shape[0], TILE):
        tile = slice(start, start + TILE)
        seen, targets = train[tile].toarray() > 0, test[tile].toarray() > 0
        scores = (train[tile] @ together).toarray()
        scores[seen] = 0  # as the reference does: seen items are not below unseen ones without a walk
        hit = np.take_along_axis(targets, np.argsort(-scores, axis=1, kind="stable")[:, :deepest], axis=1)
        asked = num[tile] > 0
        hit, count = hit[asked], num[tile][asked]
        row = []
        for k in CUTOFFS:
            row += [hit[:, :k].sum(1) / count, (hit * discount)[:, :k].sum(1) / ideal[np.minimum(count, k)]]
        found.append(np.stack(row, axis=1))
    means: list[float] = np.concatenate(found).mean(0).tolist()
    return means
