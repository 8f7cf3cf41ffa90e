"""Training batches, in an order that is a pure function of seed, stage, epoch and step."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int
from pydantic import Field

from hllm.config import Config
from hllm.data.batch import SequenceBatch, sequence_batch
from hllm.data.dataset import Dataset
from hllm.data.negatives import NegativesConfig, choose_negatives
from hllm.data.split import Split
from hllm.data.tokens import TokenCache
from hllm.random import stream


class WindowConfig(Config):
    """How histories are cut for training and scoring."""

    max_history: int = Field(default=50, ge=1)
    """Most items the User LLM reads at once: the latest ones when scoring, consecutive windows when training."""


def training_windows(dataset: Dataset, split: Split, max_history: int) -> list[Int[np.ndarray, " _"]]:
    """Cut each user's training items into windows of at most max_history + 1, from the latest backwards.

    Neighbouring windows share one item, so that every item but a user's first is a target exactly once.
    Differs from the reference, which drops a user's oldest items when they do not fill a window.
    """
    windows = []
    for user in range(dataset.num_users):
        items = dataset.history(user)[: split.train_end[user]]
        for end in range(len(items), 1, -max_history):
            windows.append(items[max(0, end - max_history - 1) : end])
    return windows


class TrainingLoader:
    """Yields the SequenceBatches of an epoch."""

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        tokens: TokenCache | None,
        *,
        max_history: int,
        batch_size: int,
        negatives: NegativesConfig,
        seed: int,
        stage: int,
    ) -> None:
        self.windows = training_windows(dataset, split, max_history)
        self.num_items = dataset.num_items
        self.tokens = tokens
        self.batch_size = batch_size
        self.negatives = negatives
        self.seed = seed
        self.stage = stage

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of batches; the last one may be smaller."""
        return -(-len(self.windows) // self.batch_size)

    def batches(self, epoch: int) -> Iterator[SequenceBatch]:
        """Yield the batches of one epoch."""
        order = stream(self.seed, "order", self.stage, epoch).permutation(len(self.windows))
        for step in range(self.steps_per_epoch):
            chosen = [self.windows[i] for i in order[step * self.batch_size : (step + 1) * self.batch_size]]
            negatives = choose_negatives(
                self.negatives,
                batch_items=np.unique(np.concatenate(chosen)),
                num_items=self.num_items,
                rng=stream(self.seed, "negatives", self.stage, epoch, step),
            )
            yield sequence_batch(chosen, negatives, self.tokens)
