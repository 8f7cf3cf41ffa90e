"""Recommend to everyone what is popular, of all time or lately."""

# Proved by tests/evaluation/test_baselines.py.

from typing import final

import numpy as np
from jaxtyping import Float

from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.errors import ConfigError
from hllm.retrieval.histories import Histories


@final
class Popularity:
    """Every user gets the items that occur most often in the training interactions."""

    def __init__(self, dataset: Dataset, split: Split) -> None:
        self.counts = split.train_counts(dataset).astype(np.float32)
        self.num_items = dataset.num_items

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return the counts, the same for all."""
        return np.tile(self.counts, (len(histories), 1))


@final
class RecentPopularity:
    """Every user gets the items that occur most often in the last tenth of the time that training spans.

    The window ends with the latest training interaction. It is `share` of the time between the first and the last
    one, or `seconds` long if they are given. Under leave-one-out it is late for most users: what was popular at the
    end of the log is offered to users whose target is years older.

    Raises ConfigError where times only order, and for a window that is not above 0.
    """

    def __init__(self, dataset: Dataset, split: Split, *, share: float = 0.1, seconds: float | None = None) -> None:
        if dataset.seconds_per_unit is None:
            raise ConfigError(
                "the baseline 'popularity-recent' needs to know when things happened, but the interactions' times only "
                "order them; leave it out, or give a data.time_col with dates or seconds"
            )
        times = dataset.seconds[split.training]
        window = share * float(times.max() - times.min()) if seconds is None else seconds
        if window < 0 or (seconds is None and not 0 < share <= 1) or seconds == 0:
            raise ConfigError(f"popularity-recent: share {share} must be in (0, 1], and seconds {seconds} above 0")
        items = split.training_log(dataset)[1][times >= times.max() - window]
        self.counts = np.bincount(items, minlength=dataset.num_items).astype(np.float32)
        self.num_items = dataset.num_items

    def score(self, histories: Histories) -> Float[np.ndarray, "user item"]:
        """Return the counts within the window, the same for all."""
        return np.tile(self.counts, (len(histories), 1))
