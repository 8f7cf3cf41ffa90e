"""Training batches, in an order that is a pure function of seed, stage, epoch and step."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Int
from pydantic import Field

from hllm.batches.batch import SequenceBatch, sequence_batch
from hllm.batches.negatives import ItemWindows, NegativeSampler, NegativesConfig, no_negatives
from hllm.batches.points import PointsConfig, points_of
from hllm.batches.windows import WindowConfig, training_windows
from hllm.config import Config
from hllm.data.dataset import Dataset
from hllm.data.split import Split
from hllm.data.tokens import TokenCache
from hllm.random import stream


class ReuseConfig(Config):
    """Some items of a step are not read by the Item LLM again: an approximation that makes steps cheaper.

    Their vectors are those that it gave when it last read them. No gradient goes through these vectors. Before the
    stage's first step, and at every validation, the Item LLM reads the whole catalogue.
    """

    every: int = Field(default=1, ge=1)
    """The Item LLM reads, and learns, in one of so many steps; in the others all its vectors are reused. 1: in each."""
    negatives: bool = False
    """Reuse, in every step, the vectors of items that are negatives only: they may then be many."""
    share: float = Field(default=1.0, gt=0, le=1)
    """About this share of the items that a step would read is read, drawn anew in each step; the others are reused."""

    @property
    def on(self) -> bool:
        """Return whether anything is reused."""
        return self.every > 1 or self.negatives or self.share < 1


@dataclass(frozen=True)
class BatchContents:
    """The contents of a stage's batches: whose windows, how many, and the items that are met beside them."""

    windows: WindowConfig
    batch_size: int
    """Windows in an optimizer step."""
    micro_batch_size: int | None = None
    """Windows in a batch; each batch has negatives of its own. None: all of a step are in one."""
    negatives: NegativesConfig | None = None
    """None: no negatives are drawn."""
    points: PointsConfig | None = None
    """Candidates to score, for the ranking objective. None: there are none."""
    labels: tuple[str, ...] = ()
    """The data.targets whose labels the points ask for. (): the points draw candidates."""
    reuse: ReuseConfig = field(default_factory=ReuseConfig)
    """Items that `reuse` tells not to read come without their tokens."""
    counts_expected: bool = False
    """Tell how often each item is expected among the negatives, for losses that correct for it."""


class TrainingLoader:
    """Yields the batches of each optimizer step of an epoch."""

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        tokens: TokenCache | None,
        contents: BatchContents,
        *,
        seed: int,
        stage: int,
    ) -> None:
        self.contents = contents
        self.windows = training_windows(dataset, split, contents.windows)
        self.num_items = dataset.num_items
        self.item_index = dataset.item_index[split.training]
        self.times = dataset.seconds_or_zero[split.training]
        self.actions = dataset.actions[split.training]
        self.tokens = tokens
        self.micro_batch_size = contents.micro_batch_size or contents.batch_size
        self.seed = seed
        self.stage = stage
        self.negatives = self.points = None
        if contents.negatives is not None:
            counts, withheld = split.train_counts(dataset), split.withheld(dataset)
            odds = None
            if contents.counts_expected:
                odds = ItemWindows(self.windows.holding(self.item_index, self.num_items), len(self.windows))
            self.negatives = NegativeSampler(
                contents.negatives, counts, self.micro_batch_size, withheld=withheld, item_windows=odds
            )
        if contents.points is not None:
            self.points = points_of(contents.points, dataset, split, contents.labels)

    @property
    def num_windows(self) -> int:
        """Return the number of training windows in an epoch."""
        return len(self.windows)

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of optimizer steps; the last one may see fewer windows."""
        return -(-self.num_windows // self.contents.batch_size)

    def steps(self, epoch: int, start: int = 0) -> Iterator[list[SequenceBatch]]:
        """Yield, for each step of an epoch from `start` on, its windows in batches of at most micro_batch_size.

        Each of these batches has negatives of its own.
        """
        order = stream(self.seed, "order", self.stage, epoch).permutation(self.num_windows)
        size = self.contents.batch_size
        for step in range(start, self.steps_per_epoch):
            of_negatives = stream(self.seed, "negatives", self.stage, epoch, step)
            of_points = stream(self.seed, "points", self.stage, epoch, step)
            chosen = order[step * size : (step + 1) * size]
            starts = range(0, len(chosen), self.micro_batch_size)
            parts = [chosen[part : part + self.micro_batch_size] for part in starts]
            readable = self._readable(epoch, step)
            yield _counted([self._batch(part, of_negatives, of_points, readable) for part in parts])

    def _readable(self, epoch: int, step: int) -> Bool[np.ndarray, " num_items"] | None:
        """Return which items' texts may be read in a step; None: all."""
        reuse = self.contents.reuse
        if not reuse.on:
            return None
        reads = (epoch * self.steps_per_epoch + step) % reuse.every == 0
        if not reads or reuse.share == 1:
            return np.full(self.num_items, reads)
        return stream(self.seed, "reuse", self.stage, epoch, step).random(self.num_items) < reuse.share

    def _batch(
        self,
        chosen: Int[np.ndarray, " window"],
        of_negatives: np.random.Generator,
        of_points: np.random.Generator,
        readable: Bool[np.ndarray, " num_items"] | None,
    ) -> SequenceBatch:
        bounds = self.windows.bounds[chosen]
        slices = [slice(start, end) for start, end in bounds]
        items = [self.item_index[s] for s in slices]
        return sequence_batch(
            items,
            self.negatives.draw(items, of_negatives) if self.negatives is not None else no_negatives(),
            self.tokens,
            users=self.windows.users[chosen],
            times=[self.times[s] for s in slices],
            actions=[self.actions[s] for s in slices],
            points=self.points.draw(bounds, of_points) if self.points is not None else None,
            readable=readable,
            read_negatives=not self.contents.reuse.negatives,
        )


def _counted(batches: list[SequenceBatch]) -> list[SequenceBatch]:
    """Tell the points of a step's batches how many labels all of them have."""
    total = sum(batch.points.own_labels for batch in batches if batch.points is not None)
    return [
        replace(batch, points=replace(batch.points, num_labels=total)) if batch.points is not None else batch
        for batch in batches
    ]
