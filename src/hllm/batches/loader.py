"""Training batches, in an order that is a pure function of seed, stage, epoch and step."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int
from pydantic import Field, model_validator

from hllm.batches.batch import SequenceBatch, sequence_batch
from hllm.batches.negatives import NegativeSampler, NegativesConfig, no_negatives
from hllm.batches.points import PointSampler
from hllm.config import Config
from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.data.tokens import TokenCache
from hllm.random import stream

Windows = Literal["all-targets", "latest", "blocks", "strides"]


class WindowConfig(Config):
    """How histories are cut for training and scoring."""

    max_history: int = Field(default=50, ge=1)
    """Most items the User LLM reads at once: the latest ones when scoring, windows of them when training."""
    windows: Windows = "all-targets"
    """How a long history is cut for training. "all-targets": from the latest backwards, neighbours share an item,
    so that every item but the first is a target once. "latest": only the latest window. "blocks": as the HLLM
    paper's code, windows that share nothing; the oldest items that do not fill one are dropped. "strides": from the
    latest backwards, each window_stride before the last, until one holds the oldest item; an item is a target once in
    every window that it is in, but not the window's first."""
    window_stride: int | None = Field(default=None, ge=1)
    """"strides" only: items between the ends of neighbouring windows, max_history at most. None: half of
    max_history."""

    @model_validator(mode="after")
    def _strides_overlap(self) -> "WindowConfig":
        if self.window_stride is not None and self.windows != "strides":
            raise ValueError(f'window_stride has no effect on windows = "{self.windows}"; it is for "strides"')
        if self.window_stride is not None and self.window_stride > self.max_history:
            raise ValueError(
                f"window_stride {self.window_stride} is beyond max_history {self.max_history}: some items would be "
                "no target"
            )
        return self


def training_windows(dataset: Dataset, split: Split, config: WindowConfig) -> Int[np.ndarray, "window 2"]:
    """Return where each training window starts and ends among the training interactions.

    Users one after another, at most max_history + 1 items in a window. Where some of a user's interactions are held
    out (cold items, say), those on both sides are neighbours.
    """
    windows = []
    lengths = split.training_lengths(dataset)
    for first, length in zip((np.cumsum(lengths) - lengths).tolist(), lengths.tolist(), strict=True):
        windows += [(first + start, first + end) for start, end in windows_of(length, config)]
    return np.array(windows, dtype=np.int64).reshape(-1, 2)


def windows_of(length: int, config: WindowConfig) -> list[tuple[int, int]]:
    """Return where the windows of one history of `length` training items start and end."""
    size = config.max_history + 1
    if config.windows == "latest":
        ends = [length]
    elif config.windows == "blocks" and length > size:
        ends = list(range(length, size - 1, -size))
    elif config.windows == "strides":
        # A stage may read less than the model's max_history: with a longer stride it would skip items.
        stride = min(config.window_stride or max(1, config.max_history // 2), config.max_history)
        ends = [length, *range(length - stride, size - stride, -stride)]
    else:
        ends = list(range(length, 1, -config.max_history))
    return [(max(0, end - size), end) for end in ends if end >= 2]


class ReuseConfig(Config):
    """Which items of a step are not read by the Item LLM again: an approximation that makes steps cheaper.

    Their vectors are those that it gave when it last read them; no gradient goes through them. Before the stage's first
    step, and at every validation, it reads the whole catalogue.
    """

    every: int = Field(default=1, ge=1)
    """The Item LLM reads, and learns, in one of so many steps; in the others all its vectors are reused. 1: in each."""
    negatives: bool = False
    """Reuse, in every step, the vectors of items that are negatives only: they may then be many."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Of the items that a step would read, about this share is, drawn anew in each step; the others are reused."""

    @property
    def on(self) -> bool:
        """Return whether anything is reused."""
        return self.every > 1 or self.negatives or self.share < 1


class TrainingLoader:
    """Yields the batches of each optimizer step of an epoch."""

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        tokens: TokenCache | None,
        *,
        windows: WindowConfig,
        batch_size: int,
        micro_batch_size: int | None = None,
        negatives: NegativesConfig,
        seed: int,
        stage: int,
        points: PointSampler | None = None,
        reuse: ReuseConfig | None = None,
    ) -> None:
        """Take what batches are made of; with `points` they ask about candidates too, for the ranking objective.

        Items that `reuse` tells not to read come without their tokens.
        """
        self.windows = training_windows(dataset, split, windows)
        self.item_index = dataset.item_index[split.training]
        self.times = dataset.seconds_or_zero[split.training]
        self.actions = dataset.actions[split.training]
        self.tokens = tokens
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size or batch_size
        self.sampler = NegativeSampler(
            negatives, split.train_counts(dataset), self.micro_batch_size, withheld=split.withheld(dataset)
        )
        self.points = points
        self.reuse = reuse or ReuseConfig()
        self.needs_negatives = points is None or points.config.generative_weight > 0
        self.seed = seed
        self.stage = stage

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of optimizer steps; the last one may see fewer windows."""
        return -(-len(self.windows) // self.batch_size)

    def steps(self, epoch: int, start: int = 0) -> Iterator[list[SequenceBatch]]:
        """Yield, for each step of an epoch from `start` on, its windows in batches of at most micro_batch_size.

        Each of these batches has negatives of its own.
        """
        order = stream(self.seed, "order", self.stage, epoch).permutation(len(self.windows))
        for step in range(start, self.steps_per_epoch):
            rng = stream(self.seed, "negatives", self.stage, epoch, step)
            asks = stream(self.seed, "points", self.stage, epoch, step)
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            starts = range(0, len(chosen), self.micro_batch_size)
            parts = [chosen[part : part + self.micro_batch_size] for part in starts]
            readable = self._readable(epoch, step)
            yield _counted([self._batch(part, rng, asks, readable) for part in parts])

    def _readable(self, epoch: int, step: int) -> Bool[np.ndarray, " num_items"] | None:
        """Return which items' texts may be read in a step; None: all."""
        if not self.reuse.on:
            return None
        reads = (epoch * self.steps_per_epoch + step) % self.reuse.every == 0
        drawn = stream(self.seed, "reuse", self.stage, epoch, step).random(self.sampler.num_items)
        return drawn < (self.reuse.share if reads else 0.0)

    def _batch(
        self,
        chosen: Int[np.ndarray, " window"],
        rng: np.random.Generator,
        asks: np.random.Generator,
        readable: Bool[np.ndarray, " num_items"] | None,
    ) -> SequenceBatch:
        slices = [slice(start, end) for start, end in self.windows[chosen]]
        items = [self.item_index[s] for s in slices]
        return sequence_batch(
            items,
            self.sampler.draw(items, rng) if self.needs_negatives else no_negatives(self.sampler.num_items),
            self.tokens,
            times=[self.times[s] for s in slices],
            actions=[self.actions[s] for s in slices],
            points=self.points.draw(self.windows[chosen], asks) if self.points is not None else None,
            readable=readable,
            read_negatives=not self.reuse.negatives,
        )


def _counted(batches: list[SequenceBatch]) -> list[SequenceBatch]:
    """Tell the points of a step's batches how many labels all of them have."""
    total = sum(batch.points.own_labels for batch in batches if batch.points is not None)
    return [
        replace(batch, points=replace(batch.points, num_labels=total)) if batch.points is not None else batch
        for batch in batches
    ]
