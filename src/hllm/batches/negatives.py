"""Negatives: the items of a training batch that each position's target is told apart from."""

# Proved by tests/batches/test_loader.py.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import Field

from hllm.config import Config


class NegativesConfig(Config):
    """The items that each position's target is told apart from."""

    kind: Literal["sampled", "in-batch", "mixed", "catalogue", "pooled"] = "mixed"
    """"sampled": drawn from the catalogue. "in-batch": the batch's own items. "mixed": both.
    "catalogue": every item there is (a full softmax; right for small catalogues).
    "pooled": as the HLLM paper's code, each window draws its share; items drawn twice count twice."""
    num_sampled: int = Field(default=256, ge=1)
    """How many items are drawn for each batch; with per_position for each position."""
    per_position: bool = False
    """Draw for every position afresh, with replacement; False shares one set of distinct items."""
    popularity_power: float = Field(default=0.0, ge=0, le=1)
    """Draw in proportion to (training interactions) to this power: 0 is uniform, 1 as often as in the data."""
    exclude_own: bool = True
    """"pooled" only: a window does not draw its own items."""

    effective_with = {  # noqa: RUF012
        "num_sampled": ("kind", ("sampled", "mixed", "pooled")),
        "per_position": ("kind", ("sampled",)),
        "popularity_power": ("kind", ("sampled", "mixed")),
        "exclude_own": ("kind", ("pooled",)),
    }

    @property
    def takes_all(self) -> bool:
        """Return whether every item of the catalogue is a negative."""
        return self.kind == "catalogue"

    @property
    def takes_batch(self) -> bool:
        """Return whether the batch's own items are negatives."""
        return self.kind in ("in-batch", "mixed")

    @property
    def draws(self) -> bool:
        """Return whether items are drawn from the catalogue."""
        return self.kind in ("sampled", "mixed", "pooled")

    @property
    def draws_distinct(self) -> bool:
        """Return whether no item of a draw can come twice."""
        return self.draws and not (self.counts_repeats or self.per_position or self.popularity_power)

    @property
    def counts_repeats(self) -> bool:
        """Return whether an item that is drawn twice for all positions counts twice."""
        return self.kind == "pooled"

    @property
    def described(self) -> str:
        """Return the kind, the number of draws and all other options, for tables."""
        facts = [str(self.num_sampled)] * self.draws + [self.said(without=("kind", "num_sampled"))]
        details = ", ".join(filter(None, facts))
        return f"{self.kind} negatives" + (f" ({details})" if details else "")

    def num_drawn(self, windows: int, queries: float) -> float:
        """Return how many items are drawn from the catalogue for a batch of so many windows and positions."""
        if self.counts_repeats:
            return float(windows * self.per_window(windows))
        return self.num_sampled * (queries if self.per_position else 1.0) if self.draws else 0.0

    def per_window(self, windows: int) -> int:
        """Return each window's share of the draws, rounded up."""
        return -(-self.num_sampled // windows)


@dataclass(frozen=True)
class Negatives:
    """One batch's negatives, as item indices."""

    shared: Int[np.ndarray, " negative"]
    """For all positions; distinct and sorted unless "pooled"; empty with `per_position`."""
    per_position: Int[np.ndarray, "query k"] | None
    """For each position of each window in turn."""
    counts: Float[np.ndarray, " num_items"] | None
    """How often each item of the catalogue is expected among a position's negatives: what logQ corrects for. None: it
    was not asked for."""
    total: float = 0.0
    """The sum of the counts."""
    holds_windows: bool = False
    """The windows' own items are among the negatives. So a position meets those of its own window with certainty, and
    `counts` are those of the other items."""


def distinct(items: Int[np.ndarray, " item"]) -> Int[np.ndarray, " distinct"]:
    """Return the distinct items in order. Ten times as fast as np.unique, which hashes, for the items of a batch."""
    ordered = np.sort(items)
    return ordered[np.diff(ordered, prepend=ordered[:1] - 1) > 0]


def no_negatives() -> Negatives:
    """Return the negatives of a batch that needs none."""
    return Negatives(np.zeros(0, dtype=np.int64), None, None)


@dataclass(frozen=True)
class ItemWindows:
    """Numbers of windows of which a batch is a random choice, without repetition."""

    holding: Int[np.ndarray, " num_items"]
    """Windows that hold each item."""
    total: int
    """All windows."""

    def missed(self, others: int) -> Float[np.ndarray, " num_items"]:
        """Return the chance that `others` windows, drawn beside one without the item, all lack it."""
        values, inverse = np.unique(self.holding, return_inverse=True)
        chance = np.ones(len(values))
        for drawn in range(others):
            chance *= np.clip(1 - values / (self.total - 1 - drawn), 0, 1)
        return chance[inverse]


class NegativeSampler:
    """Draws the negatives of batches, from random streams that the caller gives.

    What does not change from batch to batch is computed once: a batch costs time for its own items alone.
    """

    def __init__(
        self,
        config: NegativesConfig,
        train_counts: Int[np.ndarray, " num_items"],
        batch_size: int,
        *,
        withheld: Bool[np.ndarray, " num_items"] | None = None,
        item_windows: ItemWindows | None = None,
    ) -> None:
        """Take how often each item occurs in training; items that are `withheld` are no negatives.

        `item_windows` is needed for the expected counts of negatives that depend on the windows of a batch. With None
        such negatives come without counts.
        """
        self.config = config
        self.num_items = len(train_counts)
        self.offered = np.ones(self.num_items, dtype=bool) if withheld is None else ~withheld
        self.pool = np.flatnonzero(self.offered)
        weight = self.offered * train_counts.astype(np.float64) ** config.popularity_power
        self.share = weight / weight.sum()
        self.cumulative = np.cumsum(self.share) / self.share.sum()
        self.per_window = config.per_window(batch_size)
        self.item_windows = item_windows
        self._counts: dict[int, tuple[Float[np.ndarray, " num_items"] | None, float]] = {}

    def draw(self, windows: Sequence[Int[np.ndarray, " _"]], rng: np.random.Generator) -> Negatives:
        """Return the negatives of a batch. A position's own target may be among them; the loss masks it by id."""
        config = self.config
        if len(windows) not in self._counts:
            expected = self._expected(len(windows))
            self._counts[len(windows)] = expected, 0.0 if expected is None else float(expected.sum())
        counts, total = self._counts[len(windows)]
        if config.takes_all:
            return Negatives(self.pool, None, counts, total)
        if config.counts_repeats:
            return self._pooled(windows, rng)
        if config.per_position:
            queries = sum(len(window) - 1 for window in windows)
            drawn = self._with_replacement((queries, config.num_sampled), rng)
            return Negatives(np.zeros(0, dtype=np.int64), drawn, counts, total)
        chosen = list(windows) if config.takes_batch else []
        if config.draws:
            chosen.append(self._distinct(rng))
        return Negatives(distinct(np.concatenate(chosen)), None, counts, total, config.takes_batch)

    @property
    def _set_size(self) -> int:
        """Return how many items are drawn for a set that all positions share."""
        return min(self.config.num_sampled, len(self.pool))

    def _expected(self, num_windows: int) -> Float[np.ndarray, " num_items"] | None:
        """Return how often each item is expected among a position's negatives, in a batch of so many windows.

        The counts are those of items that are not in the position's own window. None where more must be known.
        """
        config, num_pooled = self.config, num_windows * self.per_window
        counts: Float[np.ndarray, " num_items"]
        if config.takes_all or config.counts_repeats:
            counts = self.offered * (1.0 if config.takes_all else num_pooled / len(self.pool))
            return counts
        if config.per_position:
            counts = config.num_sampled * self.share
            return counts
        if config.takes_batch and self.item_windows is None:
            return None
        # Chance that an item is never taken; its complement is the chance that it is in the set.
        missed = np.ones(self.num_items)
        if config.takes_batch and self.item_windows is not None:
            missed *= self.item_windows.missed(num_windows - 1)
        if config.draws and config.popularity_power == 0:
            missed *= 1 - self.offered * (self._set_size / len(self.pool))
        elif config.draws:
            missed *= (1 - self.share) ** self._set_size
        counts = 1 - missed
        return counts

    def _distinct(self, rng: np.random.Generator) -> Int[np.ndarray, " drawn"]:
        """Draw the items of a set; by popularity one may come twice."""
        if self.config.popularity_power == 0:
            return self.pool[rng.choice(len(self.pool), size=self._set_size, replace=False)]
        return self._with_replacement((self._set_size,), rng)

    def _with_replacement(self, shape: tuple[int, ...], rng: np.random.Generator) -> Int[np.ndarray, "..."]:
        if self.config.popularity_power == 0:
            return self.pool[rng.integers(len(self.pool), size=shape)]
        return np.searchsorted(self.cumulative, rng.random(shape), side="right").astype(np.int64)

    def _pooled(self, windows: Sequence[Int[np.ndarray, " _"]], rng: np.random.Generator) -> Negatives:
        """Draw `per_window` items for each window, as bytedance/HLLM, trainset.py.

        Differs from the reference: what fills a short window's share avoids the window's items too.
        """
        drawn, excluded = [], []
        for window in windows:
            items = self.pool[rng.integers(len(self.pool), size=self.per_window)]
            own = np.unique(window) if self.config.exclude_own else window[:0]
            if len(own) < len(self.pool):
                while (is_own := np.isin(items, own)).any():
                    items[is_own] = self.pool[rng.integers(len(self.pool), size=int(is_own.sum()))]
                excluded.append(own)
            drawn.append(items)
        shared, (counts, total) = np.concatenate(drawn), self._counts[len(windows)]
        if self.config.exclude_own:
            counts = self._without_own(excluded, len(windows)) if self.item_windows is not None else None
        return Negatives(shared, None, counts, total)

    def _without_own(
        self, excluded: Sequence[Int[np.ndarray, " _"]], num_windows: int
    ) -> Float[np.ndarray, " num_items"]:
        """Return how often each item is expected in a pool whose windows each avoid the items that are `excluded`."""
        each = [self.per_window / (len(self.pool) - len(own)) for own in excluded]
        unrestricted = (num_windows - len(excluded)) * self.per_window / len(self.pool)
        counts = np.where(self.offered, sum(each) + unrestricted, 0.0)
        for own, count in zip(excluded, each, strict=True):
            counts[own] -= count
        counts[np.abs(counts) < 1e-9 * self.per_window] = 0.0  # what is left of an item that every window avoids
        return counts
