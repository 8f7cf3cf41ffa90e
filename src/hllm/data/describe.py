"""Facts about a dataset and its split that a reader of the numbers must know."""

import numpy as np

from hllm.data.dataset import Dataset
from hllm.data.split import NONE, Split


def leak_share(dataset: Dataset, split: Split) -> float | None:
    """Return the share of training interactions that are later than the median test target.

    None where the times only order interactions within a user, so that users cannot be compared.

    Source: the leakage of leave-one-out splits, Ji et al., arXiv:2010.11060.
    """
    if dataset.seconds_per_unit is None:
        return None
    positions = split.targets("test")
    users = np.flatnonzero(positions != NONE)
    median = np.median(dataset.timestamps[dataset.offsets[users] + positions[users]])
    return float((dataset.timestamps[split.in_training(dataset)] > median).mean())
