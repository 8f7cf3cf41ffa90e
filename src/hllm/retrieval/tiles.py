"""The scores of some users for the whole catalogue, a tile of items at a time."""

# Proved by tests/retrieval/test_exact.py.

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm.retrieval.histories import ItemLists

# More than 4,096: up to there numpy takes twice as long to compare each row of a matrix with a number of its own.
ITEMS_PER_TILE = 5120
_LARGER_ON_ACCELERATOR = 16
_LARGER_FOR_FEW = 8
_FEW = 32  # users: the work around a product is then dearer than the product
_LANES = 256
_ALIGNED = 16  # numbers in 64 bytes


@runtime_checkable
class ScoreTiles(Protocol):
    """Scores of a few users; the same user and item always have the same score, to the last digit."""

    def of(self, items: Int[np.ndarray, " user"]) -> Float[Tensor, " user"]:
        """Return each user's score for one item."""

    def __iter__(self) -> Iterator[tuple[int, Float[Tensor, "user item"]]]:
        """Yield each tile's first item and its scores, in catalogue order. A tile may be written to until the next."""


@runtime_checkable
class Keys(Protocol):
    """Vectors that can be read a few at a time, in any dtype: a Tensor is one."""

    @property
    def shape(self) -> Sequence[int]:
        """Number of vectors and of dimensions."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Float[Tensor, "row dim"]:
        """Return the vectors of a slice, or of a tensor of rows."""


@final
class GivenScores:
    """All scores at once, as one tile; to be read with `of` before the tile is written to."""

    def __init__(self, scores: Float[np.ndarray, "user item"]) -> None:
        self.scores = torch.from_numpy(scores)

    def of(self, items: Int[np.ndarray, " user"]) -> Float[Tensor, " user"]:
        """Return each user's score for one item."""
        return self.scores[torch.arange(len(items)), torch.from_numpy(items)]

    def __iter__(self) -> Iterator[tuple[int, Float[Tensor, "user item"]]]:
        """Yield the one tile."""
        yield 0, self.scores


@final
class Products:
    """Dot products; only one tile of them is in memory.

    A product may differ in its last digit between matrices of different shape, and at a ragged edge even from column
    to column of one matrix: then equal items would not tie. So every matrix of one user tile has the same shape, a
    multiple of the hardware's lanes wide: the last one starts earlier and overlaps the one before, or is filled up with
    zeros where its rows would lie otherwise in memory than those of the others.
    """

    def __init__(self, queries: Float[Tensor, "user dim"], keys: Keys) -> None:
        self.queries = queries
        self.keys = keys
        as_they_are = keys[:0].dtype == queries.dtype and keys[:0].device == queries.device
        largest = ITEMS_PER_TILE * (1 if queries.device.type == "cpu" else _LARGER_ON_ACCELERATOR)
        if queries.device.type == "cpu" and len(queries) <= _FEW and as_they_are:
            largest *= _LARGER_FOR_FEW
        num_tiles = max(1, -(-len(keys) // largest))
        needed = max(len(queries), -(-len(keys) // num_tiles))
        self.width = -(-needed // _LANES) * _LANES
        self.tile = queries.new_empty(len(queries), self.width)
        self.overlaps = as_they_are and len(keys) >= self.width and keys.shape[1] % _ALIGNED == 0

    @torch.no_grad()
    def of(self, items: Int[np.ndarray, " user"]) -> Float[Tensor, " user"]:
        """Return each user's score for one item."""
        return self._products(self.keys[torch.from_numpy(items).to(self.queries.device)]).diagonal().clone()

    @torch.no_grad()
    def __iter__(self) -> Iterator[tuple[int, Float[Tensor, "user item"]]]:
        """Multiply and yield one tile after the other, each in the memory of the one before."""
        for start in range(0, len(self.keys), self.width):
            first = min(start, len(self.keys) - self.width) if self.overlaps else start
            yield start, self._products(self.keys[first : first + self.width])[:, start - first :]

    @cached_property
    def _filled(self) -> Float[Tensor, "item dim"]:
        return self.queries.new_zeros(self.width, self.keys.shape[1])

    def _products(self, keys: Float[Tensor, "item dim"]) -> Float[Tensor, "user item"]:
        number = len(keys)
        if number < self.width or keys.dtype != self.queries.dtype or keys.device != self.queries.device:
            self._filled[:number] = keys
            keys = self._filled
        return torch.mm(self.queries, keys.T, out=self.tile)[:, :number]


def dot_products(queries: Float[Tensor, "user dim"], keys: Keys) -> Float[np.ndarray, "user item"]:
    """Return all products in a new array; an item's do not depend on its place, nor on the other users."""
    tiles = [tile.cpu().numpy().copy() for _, tile in Products(queries, keys)]
    return np.concatenate(tiles, axis=1) if tiles else np.zeros((len(queries), 0), dtype=np.float32)


def masked(
    tiles: ScoreTiles, exclude: ItemLists, candidates: Bool[np.ndarray, " item"] | None
) -> Iterator[tuple[int, Float[Tensor, "user item"]]]:
    """Yield the tiles with -inf for each user's excluded items, and for all but the candidates."""
    users, items = pairs(exclude)
    order = np.argsort(items, kind="stable")
    users, items = users[order], items[order]
    for start, scores in tiles:
        stop = start + scores.shape[1]
        inside = slice(*np.searchsorted(items, [start, stop]))
        if inside.start < inside.stop:
            scores[torch.from_numpy(users[inside]), torch.from_numpy(items[inside] - start)] = -torch.inf
        if candidates is not None:
            scores[:, torch.from_numpy(~candidates[start:stop])] = -torch.inf
        yield start, scores


def pairs(lists: ItemLists) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Return the row and the item of every entry of the lists."""
    rows = np.repeat(np.arange(len(lists)), [len(own) for own in lists])
    return rows, np.concatenate([*lists, np.zeros(0, dtype=np.int64)]).astype(np.int64)
