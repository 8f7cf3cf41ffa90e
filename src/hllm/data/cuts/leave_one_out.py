"""Leave one out: each user's last item is the test target, the one before it the validation target."""

# Proved by tests/data/test_split.py.

from typing import Literal

import numpy as np
from pydantic import Field

from hllm.config import Config
from hllm.data.cuts.cut import Cut
from hllm.data.dataset import Dataset


class LeaveOneOutSplit(Config):
    """Each user's last item is the test target, the one before it the validation target."""

    kind: Literal["leave-one-out"] = "leave-one-out"
    min_length: int = Field(default=3, ge=2)
    """Users with fewer interactions are for training alone. With 2 a user may be asked for its second item with no
    history at all, as in the HLLM paper's code."""

    def cut(self, dataset: Dataset) -> Cut:
        """Take the last two interactions of each user that has `min_length`."""
        ends = dataset.offsets[1:][np.diff(dataset.offsets) >= self.min_length]
        training = np.ones(dataset.num_interactions, dtype=bool)
        training[ends - 2] = training[ends - 1] = False
        return Cut(training, ends - 2, ends - 1)
