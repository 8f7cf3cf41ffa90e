"""Points: places in the training windows at which candidates are scored, the candidates and their labels."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int
from pydantic import Field

from hllm.config import Config
from hllm.data.dataset import Dataset
from hllm.data.labels import UNKNOWN
from hllm.data.split import Split


class PointsConfig(Config):
    """Places in the training windows, and the candidates that are scored there."""

    per_window: int = Field(default=8, ge=1)
    """Most places of a window in one step; with model.ranking.targets these are places with a label."""
    which: Literal["random", "last"] = "random"
    """"random": others in each epoch. "last": always the latest ones."""
    num_negatives: int = Field(default=4, ge=1)
    """Without model.ranking.targets: items drawn for each point, evenly, from those that are not in the user's training
    interactions. They have label 0; the item that followed has label 1."""


@dataclass(frozen=True)
class Points:
    """The points of some windows; points without a label fill up the rows that have fewer."""

    anchors: Int[np.ndarray, "window point"]
    """The last position of the window that is known when the candidates are scored."""
    candidates: Int[np.ndarray, "window point candidate"]
    """Item indices."""
    labels: Int[np.ndarray, "window point candidate target"]
    """1, 0 or UNKNOWN."""


class PointSampler:
    """Draws points, from random streams that the caller gives."""

    def __init__(
        self,
        config: PointsConfig,
        item_index: Int[np.ndarray, " interaction"],
        lengths: Int[np.ndarray, " user"],
        labels: Int[np.ndarray, "interaction target"] | None,
        num_items: int,
        *,
        withheld: Int[np.ndarray, " withheld"] | None = None,
    ) -> None:
        """Take the training interactions: items, how many each user has in turn, and labels (None: draw negatives).

        Items that are `withheld` from training are never drawn.
        """
        self.config = config
        self.item_index = item_index
        self.ends = np.cumsum(lengths)
        self.labels = labels
        self.offered = np.ones(num_items, dtype=bool)
        self.offered[withheld if withheld is not None else []] = False
        self.pool = np.flatnonzero(self.offered)
        self.place = np.cumsum(self.offered) - 1  # of an item in the pool

    def draw(self, windows: Int[np.ndarray, "window 2"], rng: np.random.Generator) -> Points:
        """Return the points of windows, given by where each starts and ends among the training interactions."""
        places = [self._places(start, end, rng) for start, end in windows.tolist()]
        width = max(1, max(len(chosen) for chosen in places))
        num_candidates = 1 if self.labels is not None else 1 + self.config.num_negatives
        num_targets = 1 if self.labels is None else self.labels.shape[1]
        anchors = np.zeros((len(windows), width), dtype=np.int64)
        fill = self.item_index[windows[:, :1, None]]  # an item of the window: nothing more is encoded for it
        candidates = np.broadcast_to(fill, (len(windows), width, num_candidates)).astype(np.int64)
        labels = np.full((*candidates.shape, num_targets), UNKNOWN, dtype=np.int64)
        for row, (chosen, (start, _)) in enumerate(zip(places, windows.tolist(), strict=True)):
            own = slice(0, len(chosen))
            anchors[row, own] = chosen - 1 - start
            candidates[row, own, 0] = self.item_index[chosen]
            if self.labels is not None:
                labels[row, own, 0] = self.labels[chosen]
                continue
            labels[row, own, 0] = 1
            met = self._met(start)
            if len(met) < len(self.pool):  # else there is nothing to tell the next item from
                shape = (len(chosen), self.config.num_negatives)
                candidates[row, own, 1:] = self.pool[draw_others(met, len(self.pool), shape, rng)]
                labels[row, own, 1:] = 0
        return Points(anchors, candidates, labels)

    def _places(self, start: int, end: int, rng: np.random.Generator) -> Int[np.ndarray, " place"]:
        """Return the interactions of a window that become points; its first one has no history."""
        eligible = np.arange(start + 1, end)
        if self.labels is not None:
            eligible = eligible[(self.labels[eligible] != UNKNOWN).any(-1)]
        if len(eligible) <= self.config.per_window:
            return eligible
        if self.config.which == "last":
            return eligible[-self.config.per_window :]
        return np.sort(rng.choice(eligible, size=self.config.per_window, replace=False))

    def _met(self, place: int) -> Int[np.ndarray, " met"]:
        """Return which of the pool the user of an interaction meets in training: places in it, ascending."""
        user = int(np.searchsorted(self.ends, place, side="right"))
        first = int(self.ends[user - 1]) if user else 0
        items = np.unique(self.item_index[first : int(self.ends[user])])
        met: Int[np.ndarray, " met"] = self.place[items[self.offered[items]]]
        return met


def points_of(config: PointsConfig, dataset: Dataset, split: Split, targets: tuple[str, ...]) -> PointSampler:
    """Make the sampler of a ranking stage's points; `targets` are names of the dataset's labels, or ()."""
    labels = None
    if targets:
        columns = dataset.label_columns(targets)
        assert dataset.labels is not None, "there are columns"
        labels = dataset.labels[split.training][:, columns]
    return PointSampler(
        config, dataset.item_index[split.training], split.training_lengths(dataset), labels, dataset.num_items,
        withheld=np.flatnonzero(split.withheld(dataset)),
    )  # fmt: skip


def draw_others(
    met: Int[np.ndarray, " met"], num_items: int, shape: tuple[int, ...], rng: np.random.Generator
) -> Int[np.ndarray, "..."]:
    """Draw items evenly, with replacement, from those of the catalogue that are not in `met`, sorted and distinct."""
    return others(met, rng.integers(num_items - len(met), size=shape))


def others(met: Int[np.ndarray, " met"], places: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Return the items at `places` (from 0) of the catalogue without `met`, which is sorted and distinct."""
    # As many of `met` stand before an item as have at most its place of others before them.
    return places + np.searchsorted(met - np.arange(len(met)), places, side="right")
