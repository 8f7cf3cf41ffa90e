"""Uncertainty of a mean over users."""

import numpy as np
from jaxtyping import Float

from hllm.config import Config
from hllm.random import stream


class Estimate(Config):
    """A mean over users with its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap_means(values: dict[str, Float[np.ndarray, " user"]], *, samples: int, seed: int) -> dict[str, Estimate]:
    """Return mean and percentile interval (2.5 % to 97.5 %) of each metric over resampled users.

    The same resamples serve all metrics. Without users there is nothing to estimate: an empty dict.

    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7(1), 1979.
    """
    matrix = np.stack(list(values.values()), axis=1)  # (user, metric)
    if len(matrix) == 0:
        return {}
    # How often each user is drawn in a resample of the same size is multinomial. One resample at a time: the
    # memory stays that of one row, whatever the number of users.
    rng, equal = stream(seed, "bootstrap"), np.full(len(matrix), 1 / len(matrix))
    resampled = np.stack([rng.multinomial(len(matrix), equal) @ matrix for _ in range(samples)]) / len(matrix)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    means = matrix.mean(0)
    return {
        name: Estimate(mean=float(m), low=float(a), high=float(b))
        for name, m, a, b in zip(values, means, low, high, strict=True)
    }
