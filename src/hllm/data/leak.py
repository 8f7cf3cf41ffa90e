"""Measure how much of the training data lies in the targets' future, and tell what the times mean."""

# Proved by tests/data/describing/test_measure.py, tests/evaluation/test_protocol.py.

from typing import Literal

import numpy as np

from hllm.data.dataset import Dataset
from hllm.data.split import Split

TimesKind = Literal["clock", "positions", "order", "none"]
"""Kind of a data set's times: see `Times.kind`."""


POSITIONS_SHARE = 0.9  # of the users: what was filtered afterwards leaves gaps in a few


def leak_share(dataset: Dataset, split: Split) -> float | None:
    """Return the share of training interactions later than the median test target; None if times are no clock.

    Under leave-one-out a model learns from what other users did after a target; in a temporal split the share is 0.

    Source: data leakage in Ji et al., arXiv:2010.11060; the median makes one number of it.
    """
    if times_kind(dataset) != "clock":
        return None
    median = np.median(dataset.timestamps[split.test])
    return float((dataset.timestamps[split.training] > median).mean())


def times_kind(dataset: Dataset) -> TimesKind:
    """Return "clock", "positions", "order" or "none", as `Times.kind` explains."""
    if (dataset.timestamps == dataset.timestamps[0]).all():
        return "none"
    if _only_positions(dataset):
        return "positions"
    return "order" if dataset.seconds_per_unit is None else "clock"


def _only_positions(dataset: Dataset) -> bool:
    """Tell whether the times of nearly every user with two interactions or more count from 0, or from 1."""
    lengths = np.diff(dataset.offsets)
    starts = np.repeat(dataset.offsets[:-1], lengths)
    first = dataset.timestamps[starts]
    counted = np.arange(dataset.num_interactions) - starts
    differs = (dataset.timestamps != first + counted) | (first < 0) | (first > 1)
    wrong = np.add.reduceat(differs.astype(np.int64), dataset.offsets[:-1])[lengths > 1]
    return len(wrong) > 0 and float((wrong == 0).mean()) >= POSITIONS_SHARE
