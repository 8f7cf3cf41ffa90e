"""Negatives: the items of a training batch that each position's target is told apart from."""

# Proved by tests/batches/test_loader.py.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator

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

    @model_validator(mode="after")
    def _per_position_is_sampled(self) -> "NegativesConfig":
        if self.per_position and self.kind != "sampled":
            raise ValueError(f'per_position = true needs kind = "sampled", found {self.kind!r}')
        if self.kind == "pooled" and self.popularity_power:
            raise ValueError('popularity_power has no effect on kind = "pooled", which draws uniformly')
        return self

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
        """Return the kind and the number of draws, for tables."""
        return f"{self.kind} negatives" + (f" ({self.num_sampled})" if self.draws else "")

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
    counts: Float[np.ndarray, " num_items"]
    """How often each item of the catalogue is expected among a position's negatives: what logQ corrects for."""


def distinct(items: Int[np.ndarray, " item"]) -> Int[np.ndarray, " distinct"]:
    """Return the distinct items in order. Ten times as fast as np.unique, which hashes, for the items of a batch."""
    ordered = np.sort(items)
    return ordered[np.diff(ordered, prepend=ordered[:1] - 1) > 0]


def no_negatives(num_items: int) -> Negatives:
    """Return the negatives of a batch that needs none."""
    return Negatives(np.zeros(0, dtype=np.int64), None, np.zeros(num_items))


class NegativeSampler:
    """Draws the negatives of batches, from random streams that the caller gives."""

    def __init__(
        self,
        config: NegativesConfig,
        train_counts: Int[np.ndarray, " num_items"],
        batch_size: int,
        *,
        withheld: Bool[np.ndarray, " num_items"] | None = None,
    ) -> None:
        """Take how often each item occurs in training; items that are `withheld` are no negatives."""
        self.config = config
        self.num_items = len(train_counts)
        self.offered = np.ones(self.num_items, dtype=bool) if withheld is None else ~withheld
        self.pool = np.flatnonzero(self.offered)
        self.train_share = train_counts / max(1, train_counts.sum())
        weight = self.offered * train_counts.astype(np.float64) ** config.popularity_power
        self.share = weight / weight.sum()
        self.cumulative = np.cumsum(self.share) / self.share.sum()
        self.per_window = config.per_window(batch_size)

    def draw(self, windows: Sequence[Int[np.ndarray, " _"]], rng: np.random.Generator) -> Negatives:
        """Return the negatives of a batch. A position's own target may be among them; the loss masks it by id."""
        config = self.config
        if config.takes_all:
            return Negatives(self.pool, None, self.offered.astype(np.float64))
        if config.counts_repeats:
            return self._pooled(windows, rng)
        if config.per_position:
            queries = sum(len(window) - 1 for window in windows)
            drawn = self._with_replacement((queries, config.num_sampled), rng)
            return Negatives(np.zeros(0, dtype=np.int64), drawn, config.num_sampled * self.share)
        in_batch = np.concatenate(windows)
        # Chance that each item is never taken; its complement is the chance that it is in the set.
        missed = np.ones(self.num_items)
        chosen = []
        if config.takes_batch:
            chosen.append(in_batch)
            missed *= (1 - self.train_share) ** len(in_batch)
        if config.draws:
            drawn, absent = self._distinct(rng)
            chosen.append(drawn)
            missed *= absent
        return Negatives(distinct(np.concatenate(chosen)), None, 1 - missed)

    def _distinct(self, rng: np.random.Generator) -> tuple[Int[np.ndarray, " drawn"], Float[np.ndarray, " num_items"]]:
        """Draw a set of items; return it and the chance of each item to be absent."""
        size = min(self.config.num_sampled, len(self.pool))
        if self.config.popularity_power == 0:
            drawn = rng.choice(len(self.pool), size=size, replace=False)
            return self.pool[drawn], 1 - self.offered * (size / len(self.pool))
        return self._with_replacement((size,), rng), (1 - self.share) ** size

    def _with_replacement(self, shape: tuple[int, ...], rng: np.random.Generator) -> Int[np.ndarray, "..."]:
        if self.config.popularity_power == 0:
            return self.pool[rng.integers(len(self.pool), size=shape)]
        return np.searchsorted(self.cumulative, rng.random(shape), side="right").astype(np.int64)

    def _pooled(self, windows: Sequence[Int[np.ndarray, " _"]], rng: np.random.Generator) -> Negatives:
        """Draw `per_window` items for each window, as bytedance/HLLM, trainset.py.

        Differs from the reference: what fills a short window's share avoids the window's items too.
        """
        drawn = []
        for window in windows:
            items = self.pool[rng.integers(len(self.pool), size=self.per_window)]
            if self.config.exclude_own and len(np.unique(window)) < len(self.pool):
                while (own := np.isin(items, window)).any():
                    items[own] = self.pool[rng.integers(len(self.pool), size=int(own.sum()))]
            drawn.append(items)
        shared = np.concatenate(drawn)
        return Negatives(shared, None, self.offered * (len(shared) / len(self.pool)))
