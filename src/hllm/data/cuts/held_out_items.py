"""Split by items: shares of the items are held out, with all that was done with them, and so are cold."""

# Proved by tests/data/test_split.py.

from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from hllm.config import Config
from hllm.data.cuts.cut import Cut, TargetChoice, draw, require_a_share_for_training, with_targets
from hllm.data.dataset import Dataset


class ItemSplit(Config):
    """Shares of the items are held out, with all that was done with them: cold items. They are no negatives either."""

    kind: Literal["items"] = "items"
    targets: TargetChoice = "last"
    """A user's held-out interactions that are targets: the "last", the "first", "all", or one at "random". A
    user's very first interaction has no history and is never a target."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the items that is held out for validation."""
    test_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the items that is held out for the test."""
    seed: int = 0
    """Seed of the draw of items and of random targets. A hash of the ids decides, not the order of the rows."""

    @model_validator(mode="after")
    def _leaves_something_for_training(self) -> "ItemSplit":
        require_a_share_for_training(self.validation_share, self.test_share)
        return self

    def cut(self, dataset: Dataset) -> Cut:
        """Draw items among those that were interacted with: no training interaction has them."""
        used = np.unique(dataset.item_index)
        rows = draw(dataset.item_ids[used], (self.test_share, self.validation_share), self.seed, "items")
        test, validation = (used[drawn] for drawn in rows)
        in_validation, in_test = (np.isin(dataset.item_index, items) for items in (validation, test))
        cut = with_targets(dataset, ~(in_validation | in_test), in_validation, in_test, self.targets, self.seed)
        return replace(cut, withheld_items=np.union1d(validation, test))
