import itertools
import math

import numpy as np
import pytest

from hllm.metrics.definitions import RANKER
from hllm.metrics.ranker import (
    WeightedRankerMetrics,
    auc,
    calibration,
    calibration_error,
    grouped_auc,
    log_loss,
    ranker_metrics,
)


def pairwise_auc(scores, labels) -> float:
    """Count pairs one by one."""
    positives = [s for s, label in zip(scores, labels, strict=True) if label]
    negatives = [s for s, label in zip(scores, labels, strict=True) if not label]
    wins = [(p > n) + (p == n) / 2 for p, n in itertools.product(positives, negatives)]
    return float(np.mean(wins))


def test_auc_against_counting_pairs_with_ties(rng):
    scores, labels = rng.integers(0, 12, 300).astype(float), rng.random(300) < 0.3
    assert auc(scores, labels) == pytest.approx(pairwise_auc(scores, labels), rel=1e-12)


def test_a_model_with_constant_scores_has_an_auc_of_one_half_exactly(rng):
    labels = rng.random(1001) < 0.3
    users = rng.integers(0, 40, 1001)
    scores = np.full(1001, 0.1)
    assert auc(scores, labels) == 0.5
    assert grouped_auc(scores, labels, users).value == 0.5


def test_gauc_by_hand():
    """User a: 1 of 1 pairs right, 2 impressions. User b: positives .5, .1 against .1: (1 + ½)/2, 3 impressions.
    User c: positives only, left out. GAUC = (1·2 + .75·3)/5."""
    users = np.array(["b", "a", "b", "c", "a", "b", "c"])
    scores = np.array([0.5, 0.9, 0.1, 0.7, 0.2, 0.1, 0.3])
    labels = np.array([True, True, True, True, False, False, True])
    found = grouped_auc(scores, labels, users)
    assert found.users.tolist() == ["a", "b", "c"]
    assert found.aucs[:2].tolist() == [1.0, 0.75]
    assert np.isnan(found.aucs[2])
    assert found.num_left_out == 1
    assert found.value == pytest.approx(4.25 / 5)


def test_gauc_against_auc_user_by_user(rng):
    scores, labels, users = rng.integers(0, 5, 400).astype(float), rng.random(400) < 0.4, rng.integers(0, 20, 400)
    found = grouped_auc(scores, labels, users)
    for user, value in zip(found.users, found.aucs, strict=True):
        own = users == user
        assert value == pytest.approx(pairwise_auc(scores[own], labels[own]))


def test_log_loss_by_hand():
    """σ(0) = ½, σ(ln 3) = ¾: -(ln ½ + ln ¾ + ln ¼)/3."""
    logits = np.array([0.0, math.log(3), math.log(3)])
    expected = -(math.log(0.5) + math.log(0.75) + math.log(0.25)) / 3
    assert log_loss(logits, np.array([True, True, False])) == pytest.approx(expected)


def test_log_loss_of_a_certain_error_is_finite():
    assert log_loss(np.array([1000.0], dtype=np.float32), np.array([False])) == 1000.0


def test_calibration_error_by_hand():
    """Two bins: (0, ½] holds .2 and .4 with one positive, gap |.6 - 1|; (½, 1] holds .9, positive, gap .1; of three."""
    found = calibration_error(np.array([0.2, 0.4, 0.9]), np.array([True, False, True]), num_bins=2)
    assert found == pytest.approx((0.4 + 0.1) / 3)


def test_predicting_the_share_of_positives_is_calibrated():
    labels = np.arange(100) < 25
    assert calibration_error(np.full(100, 0.25), labels) == pytest.approx(0, abs=1e-15)


def test_the_ends_of_the_bins_belong_to_the_lower_bin():
    """0 and ½ share the first of two bins, where their errors cancel."""
    assert calibration_error(np.array([0.0, 0.5]), np.array([False, True]), num_bins=2) == pytest.approx(0.25)
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True]), num_bins=2) == 0


def test_all_ranker_metrics_are_defined_and_calibration_reads_probabilities():
    """Logits 0 and 0, one positive: chance."""
    found = ranker_metrics(np.zeros(2), np.array([True, False]), np.zeros(2, dtype=np.int64))
    assert found.keys() == RANKER.keys()
    chance = {"auc": 0.5, "gauc": 0.5, "log_loss": pytest.approx(math.log(2)), "calibration": 1, "calibration_error": 0}
    assert found == chance


def test_one_class_has_no_auc():
    with pytest.raises(ValueError, match="3 of 3 are positive"):
        auc(np.arange(3.0), np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="none of 3 has both"):
        _ = grouped_auc(np.arange(3.0), np.array([True, False, True]), np.arange(3)).value


def test_scores_that_do_not_compare_are_refused():
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        auc(np.array([0.0, np.nan]), np.array([True, False]))


def test_probabilities_outside_0_to_1_are_refused():
    with pytest.raises(ValueError, match="2 of 3 probabilities are not between 0 and 1"):
        calibration_error(np.array([0.0, 1.5, np.nan]), np.ones(3, dtype=bool))


def test_calibration_by_hand():
    """Predicted .2 + .4 + .9 = 1.5 positives, there is one."""
    assert calibration(np.array([0.2, 0.4, 0.9]), np.array([True, False, False])) == pytest.approx(1.5)
    assert math.isnan(calibration(np.array([0.2]), np.array([False])))


def test_weighted_metrics_are_those_of_users_written_down_so_often(rng):
    """Weights 0, 1, 2, … against the impressions of each user repeated, every copy a user of its own."""
    users = rng.integers(0, 15, 200)
    logits, labels = rng.integers(-4, 5, 200).astype(np.float32), rng.random(200) < 0.4
    weights = rng.integers(0, 4, 15).astype(np.float64)
    rows = [(row, copy) for row in range(200) for copy in range(int(weights[users[row]]))]
    picked = np.array([row for row, _ in rows])
    copies = np.array([users[row] * 10 + copy for row, copy in rows])
    expected = ranker_metrics(logits[picked], labels[picked], copies)
    found = WeightedRankerMetrics(logits, labels, users)(weights)
    assert found == {name: pytest.approx(value) for name, value in expected.items()}


def test_weighted_metrics_that_are_not_defined_are_nan():
    found = WeightedRankerMetrics(np.array([0.5, 1.0]), np.array([True, True]), np.array([0, 1]))(np.ones(2))
    assert [name for name, value in found.items() if math.isnan(value)] == ["auc", "gauc"]
