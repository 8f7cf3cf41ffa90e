"""What every recommender is asked, and the groups of targets that have numbers of their own."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from hllm.evaluation.protocol import EvaluationConfig

HISTORY_BINS = (0, 5, 10, 20, 50)


@dataclass(frozen=True)
class Targets:
    """One row for each target; the rows are the same for all recommenders under one protocol."""

    user_ids: pl.Series
    item_ids: pl.Series
    history_length: Int[np.ndarray, " target"]
    """Interactions of the user before the target."""
    train_count: Int[np.ndarray, " target"]
    """Training interactions of the target item."""
    num_ranked: Int[np.ndarray, " target"]
    """Items that the target is ranked among, itself included."""

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def users(self) -> Int[np.ndarray, " target"]:
        """Return a number for each target that is equal for targets of one user."""
        ids = self.user_ids.alias("id")
        numbered = ids.unique(maintain_order=True).to_frame().with_row_index("number")
        numbers = ids.to_frame().join(numbered, on="id", how="left", maintain_order="left")["number"]
        return numbers.cast(pl.Int64).to_numpy()

    def only(self, chosen: Bool[np.ndarray, " target"]) -> "Targets":
        """Return some of the rows."""
        arrays = (self.history_length, self.train_count, self.num_ranked)
        mask = pl.Series(chosen)
        return Targets(self.user_ids.filter(mask), self.item_ids.filter(mask), *(array[chosen] for array in arrays))


def _cold_items(targets: Targets, config: EvaluationConfig) -> dict[str, Bool[np.ndarray, " target"]]:
    return {"cold items": targets.train_count <= config.cold_at_most}


def _history_length(targets: Targets, config: EvaluationConfig) -> dict[str, Bool[np.ndarray, " target"]]:
    ends = [*HISTORY_BINS[1:], None]
    return {
        f"history of {low} or more" if end is None else f"history of {low} to {end - 1}": (
            (targets.history_length >= low) & (targets.history_length < (end or np.iinfo(np.int64).max))
        )
        for low, end in zip(HISTORY_BINS, ends, strict=True)
    }


SLICES: dict[str, Callable[[Targets, EvaluationConfig], dict[str, Bool[np.ndarray, " target"]]]] = {
    "cold items": _cold_items,
    "history length": _history_length,
}
"""For each name that `EvaluationConfig.slices` may hold, the groups it makes. They see what is stored in a run."""


def slices_of(targets: Targets, config: EvaluationConfig) -> dict[str, Bool[np.ndarray, " target"]]:
    """Return the rows of each group that the config asks for, empty ones too."""
    return {name: chosen for family in config.slices for name, chosen in SLICES[family](targets, config).items()}
