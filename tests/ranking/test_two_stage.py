"""Retrieve, then rank: places of targets by hand and by sorting, for retrievers that find all and that miss some."""

import numpy as np
import pytest

from hllm.errors import ConfigError
from hllm.metrics import UNREACHABLE, ranking_metrics
from hllm.ranking.two_stage import TwoStageRetriever
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.histories import Histories
from hllm.retrieval.retriever import Recommendations

RETRIEVER_SCORES = [3, 2, 6, 4, 1, 5]  # the order of retrieval is 2 5 3 0 1 4


class Given:
    """A scorer that gives everybody the same scores."""

    def __init__(self, scores):
        self.scores = np.array(scores, dtype=np.float32)
        self.num_items = len(scores)

    def score(self, histories):
        return np.tile(self.scores, (len(histories), 1))


class Missing:
    """A retriever that never finds some items, and ranks exactly: as one over an approximate index."""

    def __init__(self, scores, missed):
        self.exact = ExactRetriever(Given(scores))
        self.found = ~np.isin(np.arange(len(scores)), missed)

    def recommend(self, histories, k, *, exclude=None, candidates=None) -> Recommendations:
        allowed = self.found if candidates is None else self.found & candidates
        return self.exact.recommend(histories, k, exclude=exclude, candidates=allowed)

    def rank(self, histories, targets, exclude):
        return self.exact.rank(histories, targets, exclude)


class ByNumber:
    """A ranker that likes items of high number, whoever asks."""

    targets = ("high",)

    def logits(self, histories, candidates, *, advance=None):
        return [items[:, None].astype(np.float32) for items in candidates]


class Like:
    """A ranker of given logits."""

    targets = ("given",)

    def __init__(self, logits):
        self.of_item = np.array(logits, dtype=np.float32)

    def logits(self, histories, candidates, *, advance=None):
        return [self.of_item[items][:, None] for items in candidates]


def nobody(number):
    return Histories([np.zeros(0, dtype=np.int64)] * number)


def places(two, num_items):
    ranks = two.rank(nobody(num_items), np.arange(num_items), nobody(num_items))
    return ranks.better.tolist(), ranks.tied.tolist()


def test_what_is_retrieved_is_re_ranked_and_the_rest_stays_behind():
    """2 5 3 become 5 3 2; 0, 1 and 4 keep their places 4, 5 and 6."""
    two = TwoStageRetriever(ExactRetriever(Given(RETRIEVER_SCORES)), ByNumber(), num_retrieved=3)
    found = two.recommend(nobody(1), 2)
    assert found.items.tolist() == [[5, 3]]
    assert found.scores.tolist() == [[5.0, 3.0]]
    assert two.recommend(nobody(1), 5).items.tolist() == [[5, 3, 2, -1, -1]]
    assert places(two, 6) == ([3, 4, 2, 1, 5, 0], [0] * 6)


def test_a_missed_target_stands_behind_all_that_was_retrieved():
    """Items 2 and 3, of places 1 and 3, are missed: 5 0 1 are retrieved, 2 and 3 are fourth and fifth.

    Once a miss got a negative number of tied items, and was a hit at every cut-off beyond its exact place.
    """
    two = TwoStageRetriever(Missing(RETRIEVER_SCORES, [2, 3]), ByNumber(), num_retrieved=3)
    assert two.recommend(nobody(1), 6).items.tolist() == [[5, 1, 0, -1, -1, -1]]
    better, tied = places(two, 6)
    assert (better, tied) == ([2, 1, 3, 4, 5, 0], [0] * 6)
    ranks = two.rank(nobody(2), np.array([2, 3]), nobody(2))
    assert ranking_metrics(ranks, (3,))["recall@3"].tolist() == [0, 0]
    assert ranking_metrics(ranks, (4,))["recall@4"].tolist() == [1, 0]


def test_items_level_with_the_last_retrieved_are_behind_it():
    """Scores 2 2 2 2 1: two of the four are retrieved, the other two share places 3 and 4."""
    two = TwoStageRetriever(ExactRetriever(Given([2, 2, 2, 2, 1])), ByNumber(), num_retrieved=2)
    assert places(two, 5) == ([1, 0, 2, 2, 4], [0, 0, 1, 1, 0])


def test_equal_logits_share_their_places():
    two = TwoStageRetriever(ExactRetriever(Given([4, 3, 2, 1])), Like([7, 7, 7, 7]), num_retrieved=3)
    assert places(two, 4) == ([0, 0, 0, 3], [2, 2, 2, 0])


def test_an_excluded_target_is_out_of_reach_and_excluded_items_take_no_place():
    two = TwoStageRetriever(Missing(RETRIEVER_SCORES, [3]), ByNumber(), num_retrieved=2)
    seen = Histories([np.array([5, 2]), np.array([5, 2])])
    ranks = two.rank(nobody(2), np.array([5, 3]), seen)
    assert (ranks.better.tolist(), ranks.tied.tolist()) == ([UNREACHABLE, 2], [0, 0]), "0 and 1 are retrieved"


def test_fewer_items_than_are_retrieved():
    two = TwoStageRetriever(Missing(RETRIEVER_SCORES, [2, 3]), ByNumber(), num_retrieved=50)
    assert places(two, 6) == ([3, 2, 4, 5, 1, 0], [0] * 6)


@pytest.mark.parametrize("num_missed", [0, 5, 20])
@pytest.mark.parametrize("levels", [4, 1000], ids=["ties", "few ties"])
def test_places_against_sorting(rng, num_missed, levels):
    """A slow version: the retrieved by their logits, then the others by their scores, each tie counted by hand."""
    scores, logits = rng.integers(0, levels, 40), rng.integers(0, levels, 40)
    missed = rng.choice(40, num_missed, replace=False)
    retriever, k = Missing(scores, missed), 12
    two = TwoStageRetriever(retriever, Like(logits), num_retrieved=k)
    first = retriever.recommend(nobody(1), k).items[0].tolist()
    rest = [item for item in range(40) if item not in first]
    better, tied = places(two, 40)
    for item in range(40):
        group, value, before = (first, logits, 0) if item in first else (rest, scores, k)
        assert better[item] == before + sum(value[other] > value[item] for other in group)
        assert tied[item] == sum(value[other] == value[item] for other in group) - 1


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(wrong):
    """A logit that is no number once made its item a hit: nothing was above it, and minus one level with it."""
    two = TwoStageRetriever(ExactRetriever(Given([4, 3, 2, 1])), Like([0, wrong, 0, 0]), num_retrieved=2)
    for ask in (lambda: two.recommend(nobody(1), 2), lambda: places(two, 4)):
        with pytest.raises(FloatingPointError, match="Like gave logits that are not finite"):
            ask()


def test_wrong_settings_are_refused():
    retriever = ExactRetriever(Given([1, 2]))
    with pytest.raises(ConfigError, match="num_retrieved is 0; it must be at least 1"):
        TwoStageRetriever(retriever, ByNumber(), num_retrieved=0)
    with pytest.raises(ConfigError, match=r"unknown target 'hihg'.*did you mean 'high'"):
        TwoStageRetriever(retriever, ByNumber(), target="hihg")
