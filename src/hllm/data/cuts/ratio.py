"""Split by ratio: the latest shares of each user's interactions are held out."""

# Proved by tests/data/test_split.py.

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from hllm.config import Config
from hllm.data.cuts.cut import Cut, TargetChoice, require_a_share_for_training, with_targets
from hllm.data.dataset import Dataset


class RatioSplit(Config):
    """The latest shares of each user's interactions are held out."""

    kind: Literal["ratio"] = "ratio"
    targets: TargetChoice = "all"
    """A user's held-out interactions that are targets: the "last", the "first", "all", or one at "random"."""
    min_length: int = Field(default=3, ge=2)
    """Users with fewer interactions are for training alone."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of each user's interactions that is held out for validation: rounded, at least one."""
    test_share: float = Field(default=0.1, gt=0, lt=1)
    """Share held out for the test, likewise: the latest ones."""
    seed: int = 0
    """Seed of the random targets. A hash of the users' ids decides, not the order of the rows."""

    @model_validator(mode="after")
    def _leaves_something_for_training(self) -> "RatioSplit":
        require_a_share_for_training(self.validation_share, self.test_share)
        return self

    def cut(self, dataset: Dataset) -> Cut:
        """Hold out the end of the history of each user that has `min_length`."""
        lengths = np.diff(dataset.offsets)
        validation, test = (
            np.maximum(1, np.floor(share * lengths + 0.5).astype(np.int64))
            for share in (self.validation_share, self.test_share)
        )
        from_end = np.repeat(dataset.offsets[1:], lengths) - np.arange(dataset.num_interactions)  # 1: the latest
        enough = np.repeat(lengths >= self.min_length, lengths)
        in_test = enough & (from_end <= np.repeat(test, lengths))
        in_validation = enough & ~in_test & (from_end <= np.repeat(test + validation, lengths))
        return with_targets(dataset, ~(in_test | in_validation), in_validation, in_test, self.targets, self.seed)
