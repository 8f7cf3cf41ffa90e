import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import hllm.retrieval.exact as exact
import hllm.retrieval.tiles as tiles
from hllm.metrics import UNREACHABLE
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.histories import Histories


@dataclass
class Given:
    """Scores that are looked up: the history's first item is the row."""

    table: np.ndarray

    @property
    def num_items(self) -> int:
        return self.table.shape[1]

    def score(self, histories):
        return np.stack([self.table[h[0]] for h in histories]).astype(np.float32)


def by_row(number: int) -> Histories:
    return Histories([np.array([row]) for row in range(number)])


@pytest.fixture
def scores(rng) -> np.ndarray:
    return rng.integers(0, 8, size=(20, 15)).astype(np.float32)  # many ties


def test_recommendations_against_a_plain_sort(scores, rng, monkeypatch):
    monkeypatch.setattr(exact, "USERS_PER_TILE", 7)
    histories = by_row(20)
    exclude = [rng.choice(15, size=4, replace=False) for _ in range(20)]
    candidates = rng.random(15) < 0.8
    found = ExactRetriever(Given(scores)).recommend(histories, 6, exclude=exclude, candidates=candidates)
    for row in range(20):
        allowed = [i for i in range(15) if candidates[i] and i not in exclude[row]]
        expected = sorted(allowed, key=lambda i: (-scores[row, i], i))[:6]
        assert found.items[row, : len(expected)].tolist() == expected
        assert found.scores[row, : len(expected)].tolist() == scores[row, expected].tolist()


def test_rows_end_early_when_fewer_items_are_left(scores):
    found = ExactRetriever(Given(scores)).recommend(by_row(1), 20, exclude=[np.arange(12)])
    assert sorted(found.items[0, :3].tolist()) == [12, 13, 14]
    assert (found.items[0, 3:] == -1).all()
    assert np.isneginf(found.scores[0, 3:]).all()


def test_ranks_against_counting(scores, rng, monkeypatch):
    monkeypatch.setattr(exact, "USERS_PER_TILE", 6)
    histories = by_row(20)
    targets = rng.integers(0, 15, 20)
    exclude = [rng.choice(15, size=5, replace=False) for _ in range(20)]
    ranks = ExactRetriever(Given(scores)).rank(histories, targets, exclude)
    for row in range(20):
        if targets[row] in exclude[row]:
            assert (ranks.better[row], ranks.tied[row]) == (UNREACHABLE, 0)
            continue
        rivals = [i for i in range(15) if i not in exclude[row] and i != targets[row]]
        mine = scores[row, targets[row]]
        assert ranks.better[row] == sum(scores[row, i] > mine for i in rivals)
        assert ranks.tied[row] == sum(scores[row, i] == mine for i in rivals)


def test_scores_that_are_not_finite_are_refused(scores):
    scores[0, 3] = np.nan
    with pytest.raises(FloatingPointError, match="Given gave scores that are not finite"):
        ExactRetriever(Given(scores)).recommend(by_row(1), 2)


@dataclass
class Vectors:
    """Dot products of small integers, which are exact however they are added up; the history's first item is the row."""

    users: torch.Tensor
    keys: torch.Tensor

    @property
    def num_items(self) -> int:
        return len(self.keys)

    def queries(self, histories):
        return self.users[[int(h[0]) for h in histories]]

    def score(self, histories):
        raise AssertionError("the whole catalogue at once")


@pytest.fixture
def vectors(rng, monkeypatch) -> Vectors:
    """40 users, 1,000 items in tiles of 256, whose scores have many ties."""
    monkeypatch.setattr(tiles, "ITEMS_PER_TILE", 256)
    monkeypatch.setattr(exact, "USERS_PER_TILE", 17)
    users, keys = (torch.from_numpy(rng.integers(-3, 4, size=(n, 3)).astype(np.float32)) for n in (40, 1000))
    return Vectors(users, keys)


def test_tiles_of_items_give_the_ranks_of_the_whole_catalogue(vectors, rng):
    histories = by_row(40)
    targets = rng.integers(0, 1000, 40)
    exclude = [rng.choice(1000, size=rng.integers(0, 60)) for _ in range(40)]  # some twice, one user perhaps none
    exclude[5] = np.append(exclude[5], targets[5])
    found = ExactRetriever(vectors).rank(histories, targets, exclude)
    whole = ExactRetriever(Given((vectors.users @ vectors.keys.T).numpy())).rank(histories, targets, exclude)
    assert found.better.tolist() == whole.better.tolist()
    assert found.tied.tolist() == whole.tied.tolist()
    assert found.better[5] == UNREACHABLE
    assert (found.tied > 0).sum() > 30, "the premise: ties"


@pytest.mark.parametrize("k", [1, 20, 300, 1200])
@pytest.mark.parametrize("ascending", [False, True])
def test_tiles_of_items_give_the_recommendations_of_the_whole_catalogue(vectors, rng, k, ascending):
    """In ascending order every tile replaces the best so far."""
    if ascending:
        vectors.keys = vectors.keys[vectors.keys.sum(1).argsort()]
        vectors.users[:] = vectors.users[:, :1]
    histories = by_row(40)
    exclude = [rng.choice(1000, size=20, replace=False) for _ in range(40)]
    candidates = rng.random(1000) < 0.9
    found = ExactRetriever(vectors).recommend(histories, k, exclude=exclude, candidates=candidates)
    scores = (vectors.users @ vectors.keys.T).numpy()
    for row in range(40):
        allowed = [i for i in range(1000) if candidates[i] and i not in exclude[row]]
        expected = sorted(allowed, key=lambda i: (-scores[row, i], i))[:k]
        assert found.items[row, : len(expected)].tolist() == expected
        assert found.scores[row, : len(expected)].tolist() == scores[row, expected].tolist()
        assert (found.items[row, len(expected) :] == -1).all()


@pytest.mark.parametrize("num_items", [257, 1000, 2049])
@pytest.mark.parametrize("num_users", [1, 3, 40])
@pytest.mark.parametrize("dim", [128, 129])
@pytest.mark.parametrize("items_per_tile", [64, 512])
def test_equal_items_tie_exactly_in_whatever_tile_they_are(
    num_items, num_users, dim, items_per_tile, rng, monkeypatch
):  # fmt: skip
    """With a ragged last tile, and for a single user, products of equal vectors once differed in the last digit."""
    monkeypatch.setattr(tiles, "ITEMS_PER_TILE", items_per_tile)
    key = torch.from_numpy(rng.normal(size=(1, dim)).astype(np.float32))
    users = torch.from_numpy(rng.normal(size=(num_users, dim)).astype(np.float32))
    histories = by_row(num_users)
    targets = rng.integers(0, num_items, num_users)
    retriever = ExactRetriever(Vectors(users, key.repeat(num_items, 1)))
    found = retriever.rank(histories, targets, [np.zeros(0, dtype=np.int64)] * num_users)
    assert found.better.tolist() == [0] * num_users
    assert found.tied.tolist() == [num_items - 1] * num_users
    assert retriever.recommend(histories, 3).items.tolist() == [[0, 1, 2]] * num_users


@pytest.mark.parametrize("num_users", [1, 40])
def test_a_last_tile_that_overlaps_counts_no_item_twice(num_users, rng, monkeypatch):
    """Vectors of 16 numbers are read where they are: the last tile of 900 items in tiles of 256 starts at item 644."""
    monkeypatch.setattr(tiles, "ITEMS_PER_TILE", 256)
    monkeypatch.setattr(tiles, "_LARGER_FOR_FEW", 1)
    users, keys = (torch.from_numpy(rng.integers(-2, 3, size=(n, 16)).astype(np.float32)) for n in (num_users, 900))
    products = tiles.Products(users, keys)
    assert products.overlaps, "the premise"
    assert [first for first, _ in products] == [0, 256, 512, 768]
    assert torch.equal(torch.cat([scores.clone() for _, scores in products], dim=1), users @ keys.T)
    histories, targets = by_row(num_users), rng.integers(0, 900, num_users)
    exclude = [np.arange(700, 720)] * num_users
    ours, theirs = (ExactRetriever(one) for one in (Vectors(users, keys), Given((users @ keys.T).numpy())))
    assert (
        ours.rank(histories, targets, exclude).better.tolist()
        == theirs.rank(histories, targets, exclude).better.tolist()
    )
    assert ours.recommend(histories, 900).items.tolist() == theirs.recommend(histories, 900).items.tolist()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 3e38])
def test_vectors_whose_products_are_not_finite_are_refused(vectors, wrong):
    vectors.keys[700] = wrong
    with pytest.raises(FloatingPointError, match="Vectors gave scores that are not finite"):
        ExactRetriever(vectors).rank(by_row(1), np.array([0]), [np.array([1])])


def test_users_of_a_large_catalogue_are_scored_a_few_at_a_time(monkeypatch):
    """A baseline's scores for 256 users and a million items took a gigabyte, and comparing them another."""
    largest = []

    class Long:
        num_items = 1_000_000

        def score(self, histories):
            largest.append(len(histories))
            return np.broadcast_to(np.arange(self.num_items, dtype=np.float32), (len(histories), self.num_items)).copy()

    histories = by_row(50)
    tracemalloc.start()
    ranks = ExactRetriever(Long()).rank(histories, np.full(50, 999_990), exclude=histories)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ranks.better.tolist() == [9] * 50
    assert (max(largest), sum(largest)) == (33, 50)
    assert peak < 400e6
    best = ExactRetriever(Long()).recommend(histories[:2], 3)
    assert best.items.tolist() == [[999_999, 999_998, 999_997]] * 2
