"""Split by users: shares of the users are held out, with all that they did."""

# Proved by tests/data/test_split.py.

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from hllm.config import Config
from hllm.data.cuts.cut import Cut, draw, require_a_share_for_training
from hllm.data.dataset import Dataset


class UserSplit(Config):
    """Shares of the users are held out, with all that they did; each one's last item is the target."""

    kind: Literal["users"] = "users"
    min_length: int = Field(default=3, ge=2)
    """Users with fewer interactions are for training alone."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the users that is held out for validation."""
    test_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the users that is held out for the test; who they are does not depend on validation_share."""
    seed: int = 0
    """Seed of the draw of users. A hash of their ids decides, not the order of the rows."""

    @model_validator(mode="after")
    def _leaves_something_for_training(self) -> "UserSplit":
        require_a_share_for_training(self.validation_share, self.test_share)
        return self

    def cut(self, dataset: Dataset) -> Cut:
        """Draw users among those that have `min_length`: first those of the test, then those of the validation."""
        lengths = np.diff(dataset.offsets)
        enough = np.flatnonzero(lengths >= self.min_length)
        rows = draw(dataset.users[enough], (self.test_share, self.validation_share), self.seed, "users")
        test, validation = (enough[drawn] for drawn in rows)
        training = np.ones(dataset.num_users, dtype=bool)
        training[validation] = training[test] = False
        last = dataset.offsets[1:] - 1
        return Cut(np.repeat(training, lengths), last[validation], last[test])
