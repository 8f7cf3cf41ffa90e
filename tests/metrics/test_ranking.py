import itertools
import math
from fractions import Fraction

import ir_measures
import numpy as np
import pytest

from hllm.errors import DataError
from hllm.evaluation.sampled import sampled_ranks
from hllm.metrics import DEFINITIONS, UNREACHABLE, TargetRanks, ranking_metrics
from hllm.metrics.several_targets import several_target_metrics


def ranks(better: list[int], tied: list[int]) -> TargetRanks:
    return TargetRanks(np.array(better), np.array(tied))


@pytest.mark.reliability("metrics")
def test_metrics_against_ir_measures(rng):
    """500 users, 40 items, distinct scores: every metric of every user equals ir-measures'."""
    scores = rng.permuted(np.tile(np.arange(40.0), (500, 1)), axis=1)
    targets = rng.integers(0, 40, 500)
    better = (scores > scores[np.arange(500), targets][:, None]).sum(1)
    ours = ranking_metrics(TargetRanks(better, np.zeros(500, dtype=np.int64)))

    judged = [ir_measures.Qrel(str(u), str(t), 1) for u, t in enumerate(targets)]
    run = [ir_measures.ScoredDoc(str(u), str(i), s) for u, row in enumerate(scores) for i, s in enumerate(row)]
    names = {"recall": "R", "ndcg": "nDCG", "mrr": "RR", "precision": "P", "map": "AP"}
    measures = {ir_measures.parse_measure(f"{names[k.split('@')[0]]}@{k.split('@')[1]}"): k for k in ours}
    checked = 0
    for value in ir_measures.iter_calc(list(measures), judged, run):
        assert ours[measures[value.measure]][int(value.query_id)] == pytest.approx(value.value, abs=1e-9)
        checked += 1
    assert checked == 500 * len(ours), "every user and metric is compared"


@pytest.mark.parametrize(("better", "tied"), [([0, 4], [0, -1]), ([0, 50], [0, -50]), ([2, -1], [0, 3])])
def test_less_than_no_items_are_refused(better, tied):
    """A two-stage retriever over an index once gave a negative number of tied items: each miss became a hit."""
    wrong = ranks(better, tied)
    first = rf"1 of 2 targets have less than no items.*first: better {better[1]} tied {tied[1]}|better {better[0]}"
    for metrics in (
        lambda: ranking_metrics(wrong),
        lambda: several_target_metrics(wrong, np.array([0, 1])),
        lambda: sampled_ranks(wrong, np.array([99, 99]), 10, seed=0),
    ):
        with pytest.raises(DataError, match=first):
            metrics()


@pytest.mark.reliability("metrics")
@pytest.mark.parametrize(("better", "tied"), [(0, 3), (2, 2), (3, 4), (4, 0), (6, 1)])
def test_ties_are_the_mean_over_every_order_of_the_tied(better, tied):
    """Brute force: put the target and its tied rivals in each possible order and average."""
    places = [order.index(0) for order in itertools.permutations(range(tied + 1))]
    actual = [better + 1 + place for place in places]
    ours = ranking_metrics(ranks([better], [tied]), cutoffs=(5,))
    assert ours["recall@5"][0] == pytest.approx(np.mean([r <= 5 for r in actual]))
    assert ours["ndcg@5"][0] == pytest.approx(np.mean([(r <= 5) / math.log2(1 + r) for r in actual]))
    assert ours["precision@5"][0] == pytest.approx(np.mean([r <= 5 for r in actual]) / 5)
    assert ours["mrr@5"][0] == ours["map@5"][0] == pytest.approx(np.mean([(r <= 5) / r for r in actual]))


@pytest.mark.reliability("metrics")
def test_a_model_with_constant_scores_is_at_chance_exactly():
    """All 1,000 items tied: the target has each of the ranks 1 to 1,000 with the same probability."""
    ours = ranking_metrics(ranks([0], [999]), cutoffs=(10,))
    harmonic = float(sum(Fraction(1, rank) for rank in range(1, 11)))
    expected = {
        "recall@10": 10 / 1000,
        "precision@10": 1 / 1000,
        "mrr@10": harmonic / 1000,
        "map@10": harmonic / 1000,
        "ndcg@10": sum(1 / math.log2(1 + rank) for rank in range(1, 11)) / 1000,
    }
    assert {name: value[0] for name, value in ours.items()} == pytest.approx(expected, rel=1e-14)


def test_a_target_that_cannot_be_recommended_is_a_miss_at_every_cut_off():
    metrics = ranking_metrics(ranks([UNREACHABLE], [0]), cutoffs=(1, 10, 100_000))
    assert all(value[0] == 0 for value in metrics.values())


def test_every_metric_that_is_returned_is_defined():
    assert {name.split("@")[0] for name in ranking_metrics(ranks([0], [0]))} == set(DEFINITIONS)
