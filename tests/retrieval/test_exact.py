from dataclasses import dataclass

import numpy as np
import pytest

import hllm.retrieval.exact as exact
from hllm.metrics import UNREACHABLE
from hllm.retrieval.exact import ExactRetriever


@dataclass
class Given:
    """Scores that are looked up: the history's first item is the row."""

    table: np.ndarray

    @property
    def num_items(self) -> int:
        return self.table.shape[1]

    def score(self, histories):
        return np.stack([self.table[h[0]] for h in histories]).astype(np.float32)


@pytest.fixture
def scores(rng) -> np.ndarray:
    return rng.integers(0, 8, size=(20, 15)).astype(np.float32)  # many ties


def test_recommendations_against_a_plain_sort(scores, rng, monkeypatch):
    monkeypatch.setattr(exact, "USERS_PER_TILE", 7)
    histories = [np.array([row]) for row in range(20)]
    exclude = [rng.choice(15, size=4, replace=False) for _ in range(20)]
    candidates = rng.random(15) < 0.8
    found = ExactRetriever(Given(scores)).recommend(histories, 6, exclude=exclude, candidates=candidates)
    for row in range(20):
        allowed = [i for i in range(15) if candidates[i] and i not in exclude[row]]
        expected = sorted(allowed, key=lambda i: (-scores[row, i], i))[:6]
        assert found.items[row, : len(expected)].tolist() == expected
        assert found.scores[row, : len(expected)].tolist() == scores[row, expected].tolist()


def test_rows_end_early_when_fewer_items_are_left(scores):
    found = ExactRetriever(Given(scores)).recommend([np.array([0])], 20, exclude=[np.arange(12)])
    assert sorted(found.items[0, :3].tolist()) == [12, 13, 14]
    assert (found.items[0, 3:] == -1).all()
    assert np.isneginf(found.scores[0, 3:]).all()


def test_ranks_against_counting(scores, rng, monkeypatch):
    monkeypatch.setattr(exact, "USERS_PER_TILE", 6)
    histories = [np.array([row]) for row in range(20)]
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
        ExactRetriever(Given(scores)).recommend([np.array([0])], 2)
