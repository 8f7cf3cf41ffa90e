"""The item plan: which process encodes which of a batch's distinct items, and which items run through it together."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int


@final
@dataclass(frozen=True)
class ItemPlan:
    """Distinct items, longest first, cut into shards of nearly equal numbers of tokens.

    A pure function of the lengths: every process makes the same plan and needs to be told nothing.
    """

    order: Int[np.ndarray, " item"]
    """Rows of the batch, longest first; equal lengths as they came."""
    lengths: Int[np.ndarray, " item"]
    """Tokens of each item, in that order."""
    shard_offsets: Int[np.ndarray, " shards_plus_one"]
    """Where in `order` each shard starts, and the end of the last one."""

    @property
    def shard_sizes(self) -> list[int]:
        """Return the number of items in each shard."""
        return [int(size) for size in np.diff(self.shard_offsets)]

    @property
    def inverse(self) -> Int[np.ndarray, " item"]:
        """Return where in `order` each row of the batch stands."""
        return np.argsort(self.order)

    def shard(self, number: int) -> Int[np.ndarray, " item"]:
        """Return the rows of one shard, longest first."""
        return self.order[self.shard_offsets[number] : self.shard_offsets[number + 1]]


def plan_items(lengths: Int[np.ndarray, " item"], *, num_shards: int = 1) -> ItemPlan:
    """Return the plan of a batch; each shard's tokens differ from the mean by less than the longest item.

    An item without tokens counts as one. Shards are empty where there are fewer items than shards.
    """
    order = np.argsort(-lengths, kind="stable")
    descending = lengths[order]
    ends = np.cumsum(np.maximum(descending, 1))
    total = int(ends[-1]) if len(ends) else 0
    # An item belongs to the shard in which its middle falls.
    middles = ends - np.maximum(descending, 1) / 2
    cuts = np.searchsorted(middles, total * np.arange(1, num_shards) / num_shards)
    return ItemPlan(order, descending, np.concatenate([[0], cuts, [len(lengths)]]).astype(np.int64))


def chunks(lengths: Int[np.ndarray, " item"], *, max_tokens: int) -> list[slice]:
    """Cut items, longest first, into runs that padded to their longest have at most `max_tokens` (or are one item).

    The number of items in a run depends on its longest item alone, so that shapes recur from batch to batch.
    """
    runs, start = [], 0
    while start < len(lengths):
        size = max(1, max_tokens // max(1, int(lengths[start])))
        runs.append(slice(start, min(start + size, len(lengths))))
        start += size
    return runs


def unpadded_chunks(lengths: Int[np.ndarray, " item"], *, max_tokens: int) -> list[slice]:
    """Cut items into runs that one behind another have at most `max_tokens` (or are one item)."""
    ends = np.cumsum(lengths)
    runs, start = [], 0
    while start < len(lengths):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + max_tokens, side="right")))
        runs.append(slice(start, end))
        start = end
    return runs
