"""Intervals and tests against direct computations, exact enumeration and hand-worked cases."""

from itertools import product

import numpy as np
import pytest

from hllm.evaluation.statistics import (
    bootstrap_means,
    bootstrap_statistics,
    holm,
    paired_t_test,
    randomisation_test,
    user_sums,
)


def test_bootstrap_intervals_against_the_normal_approximation(rng):
    values = rng.random(2000)
    estimate = bootstrap_means({"m": values}, samples=4000, seed=1)["m"]
    half = 1.96 * values.std() / np.sqrt(2000)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=half * 0.1)
    assert estimate.high == pytest.approx(values.mean() + half, abs=half * 0.1)
    assert bootstrap_means({"m": np.zeros(0)}, samples=10, seed=1) == {}


@pytest.mark.parametrize("num_users", [10_000, 10_001, 12_500])
def test_many_users_have_intervals_as_wide_as_few(rng, num_users):
    """On both sides of the number from which on users are drawn one by one, against the normal approximation."""
    values = {
        "m": rng.random(num_users),
        "rare": (rng.random(num_users) < 0.01).astype(float),
        "one": np.ones(num_users),
    }
    found = bootstrap_means(values, samples=2000, seed=1)
    for name in ("m", "rare"):
        half = 1.96 * values[name].std() / np.sqrt(num_users)
        mean = values[name].mean()
        assert found[name].mean == pytest.approx(mean)
        assert (found[name].low, found[name].high) == pytest.approx((mean - half, mean + half), abs=half * 0.12)
    assert (found["one"].low, found["one"].mean, found["one"].high) == (1, 1, 1)
    assert bootstrap_means(values, samples=20, seed=1) == bootstrap_means(values, samples=20, seed=1)


def test_many_users_with_several_targets_stand_and_fall_together(rng):
    """The variance of a ratio of sums, by the delta method."""
    counts = rng.integers(1, 5, 11_000)
    users = np.repeat(np.arange(11_000), counts)
    values = rng.random(11_000)[users]
    found = bootstrap_means({"m": values}, users=users, samples=2000, seed=1)["m"]
    sums = np.bincount(users, weights=values)
    half = 1.96 * np.sqrt(((sums - values.mean() * counts) ** 2).sum()) / counts.sum()
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half * 0.12)


def test_statistics_of_many_users(rng):
    values = rng.random(10_500)
    found = bootstrap_statistics(lambda w: {"m": float((w * values).sum() / w.sum())}, 10_500, samples=400, seed=1)["m"]
    half = 1.96 * values.std() / np.sqrt(10_500)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half * 0.2)


def test_one_target_a_user_is_the_plain_bootstrap_to_the_last_digit(rng):
    values = rng.random(50)
    plain = bootstrap_means({"m": values}, samples=100, seed=3)
    assert bootstrap_means({"m": values}, users=np.arange(50), samples=100, seed=3) == plain


def test_users_are_resampled_with_all_their_targets(rng):
    """Against copying the drawn users' targets one by one, with draws of its own."""
    users = np.sort(rng.integers(40, size=160))
    values = (rng.random(40) > 0.5)[users] * rng.random(160)  # targets of one user are alike
    found = bootstrap_means({"m": values}, users=users, samples=4000, seed=1)["m"]
    of_user = [values[users == user] for user in np.unique(users)]
    means = []
    for _ in range(4000):
        drawn = rng.integers(len(of_user), size=len(of_user))
        means.append(np.concatenate([of_user[user] for user in drawn]).mean())
    low, high = np.percentile(means, [2.5, 97.5])
    assert found.mean == values.mean()
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))
    alone = bootstrap_means({"m": values}, samples=4000, seed=1)["m"]
    assert alone.high - alone.low < 0.8 * (high - low), "resampling targets would have hidden that users differ"


def test_sums_of_each_user_by_hand():
    sums, counts = user_sums(np.array([[1.0, 0.0], [2.0, 1.0], [4.0, 1.0]]), np.array([7, 3, 7]))
    assert sums.tolist() == [[2.0, 1.0], [5.0, 1.0]]
    assert counts.tolist() == [1, 2]


@pytest.mark.parametrize("num_users", [1, 4, 7, 10])
def test_random_signs_against_every_assignment_of_signs(num_users, rng):
    differences = rng.normal(0.4, 1.0, size=num_users).round(2)
    sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=num_users)]
    exact = np.mean([total >= abs(differences.sum()) - 1e-9 for total in sums])
    found = randomisation_test(differences, samples=20_000, seed=5)
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_random_signs_at_the_extremes(rng):
    assert randomisation_test(np.zeros(9), seed=1) == 1.0
    assert randomisation_test(np.full(200, 0.1), samples=999, seed=1) == 1 / 1000
    many = rng.normal(0.0, 1.0, size=9000)  # more than fit in memory at once in one block of draws
    assert randomisation_test(many, samples=2000, seed=1) == pytest.approx(
        2 * (1 - _normal_below(abs(many.sum()) / np.sqrt((many**2).sum()))), abs=0.04
    )
    assert randomisation_test(many, samples=100, seed=1) == randomisation_test(many, samples=100, seed=1)


def _normal_below(z: float) -> float:
    import math

    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def test_the_paired_t_test_by_hand():
    """Differences 1, 2, 3: t = 2 / (1 / √3) = 3.464 with 2 degrees of freedom; p = 1 - t / √(t² + 2) = 0.0742."""
    assert paired_t_test(np.array([2.0, 3.0, 4.0]), np.array([1.0, 1.0, 1.0])) == pytest.approx(0.0742, abs=5e-5)
    assert paired_t_test(np.ones(3), np.ones(3)) == 1.0
    assert paired_t_test(np.ones(1), np.zeros(1)) == 1.0
    assert paired_t_test(np.full(3, 0.3), np.full(3, 0.1)) == 0.0


def test_holm_by_hand():
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, .04; the last is raised to the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.slow
def test_a_95_percent_interval_holds_the_truth_95_times_in_100():
    rng, held, worlds = np.random.default_rng(2), 0, 1000
    for world in range(worlds):
        chance = rng.beta(2, 5, size=150)
        users = np.repeat(np.arange(150), rng.integers(1, 4, size=150))
        hits = (rng.random(len(users)) < chance[users]).astype(np.float64)
        estimate = bootstrap_means({"m": hits}, users=users, samples=400, seed=world)["m"]
        held += estimate.low <= 2 / 7 <= estimate.high
    assert held / worlds == pytest.approx(0.95, abs=0.025)


def test_a_bootstrap_of_a_mean_as_a_statistic_is_the_bootstrap_of_means(rng):
    values = rng.random(40)
    expected = bootstrap_means({"x": values}, samples=200, seed=3)["x"]

    def statistics(weights):
        return {"x": float(weights @ values / weights.sum()), "never": float("nan")}

    found = bootstrap_statistics(statistics, 40, samples=200, seed=3)
    assert found.keys() == {"x"}
    for name in ("mean", "low", "high"):
        assert getattr(found["x"], name) == pytest.approx(getattr(expected, name))


def test_resamples_in_which_a_statistic_is_not_defined_leave_its_interval():
    """Defined only if the first of two users is drawn: 1 then."""
    found = bootstrap_statistics(lambda w: {"x": 1.0 if w[0] else float("nan")}, 2, samples=50, seed=0)["x"]
    assert (found.mean, found.low, found.high) == (1, 1, 1)
