import itertools
import math
from fractions import Fraction

import ir_measures
import numpy as np
import pytest

from hllm.metrics.definitions import SEVERAL_TARGETS
from hllm.metrics.ranking import UNREACHABLE, TargetRanks, ranking_metrics
from hllm.metrics.several_targets import several_target_metrics


def ranked(scores: np.ndarray, targets: list[list[int]]) -> tuple[TargetRanks, np.ndarray]:
    """Count, for each target of each query, the items above and level."""
    better, tied, query = [], [], []
    for number, own in enumerate(targets):
        for target in own:
            better.append((scores[number] > scores[number, target]).sum())
            tied.append((scores[number] == scores[number, target]).sum() - 1)
            query.append(number)
    return TargetRanks(np.array(better), np.array(tied)), np.array(query)


def by_hand(order: list[int], targets: list[int], k: int) -> dict[str, float]:
    """The definitions, for one order of the items."""
    places = [rank for rank, item in enumerate(order, start=1) if item in targets]
    inside = [rank for rank in places if rank <= k]
    return {
        "recall": len(inside) / len(targets),
        "precision": len(inside) / k,
        "ndcg": sum(1 / math.log2(1 + r) for r in inside)
        / sum(1 / math.log2(1 + r) for r in range(1, min(k, len(targets)) + 1)),
        "mrr": 1 / inside[0] if inside else 0.0,
        "map": sum(n / r for n, r in enumerate(inside, start=1)) / len(targets),
        "hit_rate": float(bool(inside)),
    }


def test_metrics_against_ir_measures(rng):
    """200 queries of 1 to 12 targets, 40 items, distinct scores: every metric of every query equals ir-measures'."""
    scores = rng.permuted(np.tile(np.arange(40.0), (200, 1)), axis=1)
    targets = [rng.choice(40, size=rng.integers(1, 13), replace=False).tolist() for _ in range(200)]
    ours = several_target_metrics(*ranked(scores, targets))

    judged = [ir_measures.Qrel(str(q), str(t), 1) for q, own in enumerate(targets) for t in own]
    run = [ir_measures.ScoredDoc(str(q), str(i), s) for q, row in enumerate(scores) for i, s in enumerate(row)]
    names = {"recall": "R", "ndcg": "nDCG", "mrr": "RR", "precision": "P", "map": "AP", "hit_rate": "Success"}
    measures = {ir_measures.parse_measure(f"{names[k.split('@')[0]]}@{k.split('@')[1]}"): k for k in ours}
    checked = 0
    for value in ir_measures.iter_calc(list(measures), judged, run):
        assert ours[measures[value.measure]][int(value.query_id)] == pytest.approx(value.value, abs=1e-9)
        checked += 1
    assert checked == 200 * len(ours) == 200 * 4 * 6, "every query and metric is compared"


@pytest.mark.parametrize(
    ("scores", "targets"),
    [
        ([1, 1, 1, 1, 1, 1], [0, 3, 5]),
        ([3, 2, 2, 2, 1, 1], [0, 2, 3]),
        ([3, 2, 2, 2, 1, 1], [1, 2, 4, 5]),
        ([2, 2, 2, 1, 1, 1], [0, 1, 2]),
        ([3, 3, 3, 3, 2, 1], [4]),
        ([3, 3, 1, 1, 1, 1], [3, 4]),
    ],
)
@pytest.mark.parametrize("k", [1, 2, 4, 6, 9])
def test_ties_are_the_mean_over_every_order_of_the_tied(scores, targets, k):
    """Brute force: every permutation of the six items that keeps higher scores before lower ones."""
    orders = [
        order for order in itertools.permutations(range(6)) if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]  # fmt: skip
    each = [by_hand(order, targets, k) for order in orders]
    ours = several_target_metrics(*ranked(np.array([scores]), [targets]), cutoffs=(k,))
    for name in SEVERAL_TARGETS:
        assert ours[f"{name}@{k}"][0] == pytest.approx(np.mean([one[name] for one in each])), name


def test_a_model_with_constant_scores_is_at_chance_exactly():
    """200 items all tied, 7 of them targets: formulas of drawing 7 of 200 places."""
    items, targets, k = 200, 7, 10
    ours = several_target_metrics(*ranked(np.zeros((1, items)), [list(range(targets))]), cutoffs=(k,))
    first = [Fraction(math.comb(items - r, targets - 1), math.comb(items, targets)) for r in range(1, k + 1)]
    per_rank = [
        Fraction(targets, items) * (1 + Fraction((r - 1) * (targets - 1), items - 1)) / r for r in range(1, k + 1)
    ]
    expected = {
        "recall@10": k / items,
        "precision@10": targets / items,
        "mrr@10": float(sum(p / r for r, p in enumerate(first, start=1))),
        "hit_rate@10": float(1 - Fraction(math.comb(items - k, targets), math.comb(items, targets))),
        "map@10": float(sum(per_rank) / targets),
        "ndcg@10": targets / items * sum(1 / math.log2(1 + r) for r in range(1, k + 1))
        / sum(1 / math.log2(1 + r) for r in range(1, targets + 1)),
    }  # fmt: skip
    assert {name: value[0] for name, value in ours.items()} == pytest.approx(expected, rel=1e-12)


def test_with_one_target_each_they_are_the_metrics_for_one_target(rng):
    scores = rng.integers(0, 6, size=(50, 30)).astype(float)
    ranks, query = ranked(scores, [[int(t)] for t in rng.integers(0, 30, 50)])
    several = several_target_metrics(ranks, query)
    for name, values in ranking_metrics(ranks).items():
        np.testing.assert_allclose(several[name], values, rtol=1e-12)


def test_results_are_in_the_order_of_the_queries_however_the_targets_are_mixed(rng):
    scores = rng.integers(0, 6, size=(20, 30)).astype(float)
    targets = [rng.choice(30, size=3, replace=False).tolist() for _ in range(20)]
    ranks, query = ranked(scores, targets)
    mixed = rng.permutation(60)
    again = several_target_metrics(TargetRanks(ranks.better[mixed], ranks.tied[mixed]), query[mixed] * 10 - 5)
    for name, values in several_target_metrics(ranks, query).items():
        np.testing.assert_allclose(again[name], values, rtol=1e-12)


def test_a_target_that_cannot_be_recommended_counts_as_a_miss():
    """Two targets, one first and one unreachable: half is found, and the ideal has both."""
    ranks = TargetRanks(np.array([0, UNREACHABLE, UNREACHABLE, UNREACHABLE]), np.zeros(4, dtype=np.int64))
    found = several_target_metrics(ranks, np.array([0, 0, 1, 1]), cutoffs=(5,))
    assert found["recall@5"].tolist() == [0.5, 0]
    assert found["map@5"].tolist() == [0.5, 0]
    assert found["mrr@5"].tolist() == [1, 0]
    assert found["ndcg@5"] == pytest.approx([1 / (1 + 1 / math.log2(3)), 0])


@pytest.mark.parametrize(
    ("better", "tied"),
    [([3, 3], [0, 0]), ([3, 3], [1, 2]), ([3, 4], [2, 0])],
    ids=["one item twice", "a block of two sizes", "one block within another"],
)
def test_ranks_of_targets_that_were_not_ranked_in_one_list_are_refused(better, tied):
    with pytest.raises(ValueError, match="ranks of 1 queries contradict each other"):
        several_target_metrics(TargetRanks(np.array(better), np.array(tied)), np.array([0, 0]))


def test_without_targets_there_is_nothing():
    nothing = np.zeros(0, dtype=np.int64)
    assert several_target_metrics(TargetRanks(nothing, nothing), nothing, cutoffs=(5,))["map@5"].shape == (0,)
