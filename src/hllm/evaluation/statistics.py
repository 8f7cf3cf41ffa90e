"""Estimate the uncertainty of a mean over users, and of the difference of two recommenders, by resampling users.

A user may have several targets. A mean is over targets, but a user's targets stand and fall together, so every
method here draws, flips or compares users with all that they have.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, Real

from hllm.config import Config
from hllm.random import stream

FLIPS = 10_000
_MULTINOMIAL_USERS = 10_000  # a draw takes 100 ns a user, against 1 ns of a Poisson number
_USERS_AT_ONCE = 2_000  # with 1,000 resamples 8 MB of numbers
_BITS_AT_ONCE = 8_000_000  # of random signs: the memory of a test is 72 MB at most


class Estimate(Config):
    """A mean over targets with its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap_means(
    values: dict[str, Float[np.ndarray, " target"]],
    *,
    users: Int[np.ndarray, " target"] | None = None,
    samples: int,
    seed: int,
) -> dict[str, Estimate]:
    """Return mean and percentile interval (2.5 % to 97.5 %) of each metric over resampled users.

    `users` holds one number for each user; None: every target is another user's. A resample draws as many users as
    there are, each with all targets, and takes the mean over the targets drawn. The same resamples serve all
    metrics. Without targets there is nothing to estimate: an empty dict.

    Of more than 10,000 users each is drawn a Poisson number of times, with mean 1, by itself. A resample then has about
    as many users as there are, and its mean is spread as before. 200,000 users with 20 metrics and 1,000 resamples take
    half a second of a core; the memory is that of 2,000 users and all resamples.

    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7(1), 1979; for users
    with several targets the cluster bootstrap, Field & Welsh, JRSS B 69(3), 2007; for many users the Poisson bootstrap,
    Hanley & MacGibbon, Computer Methods and Programs in Biomedicine 83(1), 2006.
    """
    matrix = np.stack(list(values.values()), axis=1)  # (target, metric)
    if len(matrix) == 0:
        return {}
    sums, counts = user_sums(matrix, users)
    means = matrix.mean(0)
    if len(sums) > _MULTINOMIAL_USERS:
        resampled = means + _poisson_deviations(sums - means * counts[:, None], counts, samples, seed)
    else:
        resampled = np.stack([(weight @ sums) / (weight @ counts) for weight in _draws(len(sums), samples, seed)])
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return {
        name: Estimate(mean=float(m), low=float(a), high=float(b))
        for name, m, a, b in zip(values, means, low, high, strict=True)
    }


def bootstrap_statistics(
    statistics: Callable[[Float[np.ndarray, " user"]], dict[str, float]], num_users: int, *, samples: int, seed: int
) -> dict[str, Estimate]:
    """Return numbers that are no means, such as AUC, with percentile intervals over resampled users.

    `statistics` takes how often each user counts and returns the numbers, NaN where one is not defined; one that is
    not defined for all users is left out, and resamples in which one is not defined are left out of its interval.

    Source: as `bootstrap_means`.
    """
    whole = statistics(np.ones(num_users))
    resamples = [statistics(weights.astype(np.float64)) for weights in _draws(num_users, samples, seed)]
    estimates = {}
    for name, value in whole.items():
        resampled = np.array([numbers[name] for numbers in resamples])
        resampled = resampled[np.isfinite(resampled)]
        if np.isfinite(value):
            low, high = np.percentile(resampled, [2.5, 97.5]) if len(resampled) else (np.nan, np.nan)
            estimates[name] = Estimate(mean=float(value), low=float(low), high=float(high))
    return estimates


def _draws(num_users: int, samples: int, seed: int) -> Iterator[Real[np.ndarray, " user"]]:
    """Yield, for each resample, how often each user is drawn."""
    rng = stream(seed, "bootstrap")
    for _ in range(samples):
        if num_users > _MULTINOMIAL_USERS:
            yield _poisson((num_users,), rng)
        else:  # the numbers of times are multinomial in a resample of the same size
            yield rng.multinomial(num_users, np.full(num_users, 1 / num_users))


def _poisson_deviations(
    deviations: Float[np.ndarray, "user metric"], counts: Int[np.ndarray, " user"], samples: int, seed: int
) -> Float[np.ndarray, "sample metric"]:
    """Return by how much the mean of each Poisson resample differs from that of all targets.

    `deviations` are the users' sums less the mean for each of their targets. They are added up in fp32, some users at
    a time: a matrix product for all resamples.
    """
    rng, columns = stream(seed, "bootstrap"), np.column_stack([deviations, counts]).astype(np.float32)
    totals = np.zeros((samples, columns.shape[1]))
    for start in range(0, len(columns), _USERS_AT_ONCE):
        part = columns[start : start + _USERS_AT_ONCE]
        totals += _poisson((samples, len(part)), rng) @ part
    return totals[:, :-1] / totals[:, -1:]


def _poisson(shape: tuple[int, ...], rng: np.random.Generator) -> Float[np.ndarray, "..."]:
    """Draw 0 to 5 with chances of 94, 95, 46, 16, 4 and 1 in 256: nearly Poisson numbers, many times as fast.

    Mean and variance are 1, exactly.
    """
    drawn = np.frombuffer(rng.bytes(math.prod(shape)), dtype=np.uint8)
    numbers = np.zeros(len(drawn), dtype=np.uint8)
    for bound in (94, 189, 235, 251, 255):
        numbers += (drawn >= bound).view(np.uint8)
    return numbers.reshape(shape).astype(np.float32)


def user_sums(
    matrix: Float[np.ndarray, "target metric"], users: Int[np.ndarray, " target"] | None
) -> tuple[Float[np.ndarray, "user metric"], Int[np.ndarray, " user"]]:
    """Return each user's sum over targets, and number of targets, in the order of the users' numbers."""
    if users is None:
        return matrix, np.ones(len(matrix), dtype=np.int64)
    _, row = np.unique(users, return_inverse=True)
    sums = np.stack([np.bincount(row, weights=column) for column in matrix.T], axis=1)
    return sums, np.bincount(row)


def randomisation_test(differences: Float[np.ndarray, " user"], *, samples: int = FLIPS, seed: int) -> float:
    """Return the two-sided p-value of "both recommenders are alike": how often random signs differ as much.

    `differences` are each user's metric under one recommender less that under the other, summed over targets. If
    the two were alike, a user's difference could as well have had the other sign. The observed signs count as one
    of the draws, so the value is at least 1 / (samples + 1). It is 1 if no user differs.

    Source: Smucker, Allan & Carterette, "A comparison of statistical significance tests for information retrieval
    evaluation", CIKM 2007, section 3.3; for the added 1, Phipson & Smyth, SAGMB 9(1), 2010.
    """
    nonzero = differences[differences != 0]  # a zero has no sign
    if len(nonzero) == 0:
        return 1.0
    rng, total = stream(seed, "signs"), nonzero.sum()
    bound = abs(total) - 1e-12 * np.abs(nonzero).sum()  # sums in another order differ in their last digits
    as_far, rows = 0, max(1, _BITS_AT_ONCE // len(nonzero))
    for start in range(0, samples, rows):
        shape = (min(rows, samples - start), -(-len(nonzero) // 8))
        flips = np.unpackbits(rng.integers(256, size=shape, dtype=np.uint8), axis=1, count=len(nonzero))
        as_far += int((np.abs(total - 2.0 * (flips @ nonzero)) >= bound).sum())
    return (1 + as_far) / (1 + samples)


def paired_t_test(ours: Float[np.ndarray, " user"], theirs: Float[np.ndarray, " user"]) -> float:
    """Return the two-sided p-value of the paired t-test on each user's sum over targets; 1 if no user differs.

    One user says nothing: 1. A difference that is the same for all of several users: 0.
    """
    differences = ours - theirs
    if len(differences) < 2 or not differences.any():
        return 1.0
    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        return 0.0
    from scipy.stats import ttest_rel

    return float(ttest_rel(ours, theirs).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number: below 0.05, all of them are right with a chance of 95 %.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. of Statistics 6(2), 1979.
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = highest
    return corrected
