"""The contents of an index at one moment: vectors and ids by row, some rows deleted. Replaced, never changed."""

# Proved by tests/retrieval/index/test_index.py.

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm.data.arguments import as_ids
from hllm.data.dataset import rows_of
from hllm.data.ids import exactly
from hllm.errors import DataError, first_few


@final
@dataclass(frozen=True)
class Snapshot:
    """Rows are in catalogue order: those of the base, then the added ones. A row keeps its number until compacting."""

    base: Float[Tensor, "item dim"]
    """fp32 or bf16, memory-mapped or not; never written to."""
    item_ids: pl.Series
    """The caller's id of every row; distinct among those that are not deleted."""
    live: Bool[np.ndarray, " row"]
    """False for a deleted row."""
    changed: Int[np.ndarray, " changed"]
    """Rows whose vector is in `delta` and not in the base, updated or added ones, ascending."""
    delta: Float[Tensor, "changed dim"]
    longest: float
    """No vector is longer."""

    @classmethod
    def of(cls, vectors: Float[Tensor, "item dim"], item_ids: pl.Series) -> "Snapshot":
        """Start from vectors in catalogue order; DataError for ids that are missing or repeated, or a NaN."""
        if len(vectors) != len(item_ids):
            raise DataError(f"{len(vectors):,} vectors for {len(item_ids):,} item ids; expected one for each")
        _require_distinct(item_ids)
        ids = item_ids.alias("item_id")
        nothing = vectors.new_zeros(0, vectors.shape[1])
        longest = _longest(vectors, ids)
        return cls(vectors, ids, np.ones(len(ids), dtype=bool), np.zeros(0, dtype=np.int64), nothing, longest)

    @property
    def num_changes(self) -> int:
        """Rows that were added, updated or deleted since the base was made."""
        return int(np.union1d(self.changed, np.flatnonzero(~self.live)).size)

    @cached_property
    def in_base(self) -> Bool[np.ndarray, " item"]:
        """Mask of the rows whose vector in the base still holds."""
        valid: Bool[np.ndarray, " item"] = self.live[: len(self.base)].copy()
        valid[self.changed[self.changed < len(self.base)]] = False
        return valid

    def rows(self, item_ids: Sequence[Any] | pl.Series) -> Int[np.ndarray, " item"]:
        """Return the row of each id; DataError for ids that the index does not hold, or no longer."""
        ids, rows = self._found(item_ids)
        if len(bad := ids.filter(rows.is_null())):
            raise DataError(
                f"{len(bad):,} of {len(ids):,} item ids are not in the index; first: {first_few(bad)}. "
                f"Ids in it look like {first_few(self.item_ids)}"
            )
        live: Int[np.ndarray, " item"] = np.flatnonzero(self.live)[rows.to_numpy()]
        return live

    def vectors(self, rows: Int[np.ndarray, " item"]) -> Float[Tensor, "item dim"]:
        """Return the vectors of some rows in the base's dtype; zeros for a deleted row that was added."""
        if not len(self.changed) and (not len(rows) or rows.max() < len(self.base)):
            return self.base[torch.from_numpy(rows)]
        vectors = self.base.new_zeros(len(rows), self.base.shape[1])
        old = torch.from_numpy(np.flatnonzero(rows < len(self.base)))
        vectors[old] = self.base[torch.from_numpy(rows)[old]]
        if len(self.changed):
            place = np.minimum(np.searchsorted(self.changed, rows), len(self.changed) - 1)
            new = np.flatnonzero(self.changed[place] == rows)
            vectors[torch.from_numpy(new)] = self.delta[torch.from_numpy(place[new])]
        return vectors

    def added(self, item_ids: Sequence[Any] | pl.Series, vectors: Float[Tensor, "item dim"]) -> "Snapshot":
        """Return a snapshot with new rows at the end; DataError for ids that the index holds already."""
        ids, rows = self._found(item_ids)
        if len(duplicates := ids.filter(rows.is_not_null())):
            raise DataError(
                f"{len(duplicates):,} of {len(ids):,} item ids to add are in the index already; first: "
                f"{first_few(duplicates)}. To change their vectors, use update"
            )
        _require_distinct(ids)
        new = self._accepted(ids, vectors)
        rows_added = np.arange(len(self.live), len(self.live) + len(ids))
        return replace(
            self,
            item_ids=pl.concat([self.item_ids, ids.alias("item_id")]),
            live=np.concatenate([self.live, np.ones(len(ids), dtype=bool)]),
            changed=np.concatenate([self.changed, rows_added]),
            delta=torch.cat([self.delta, new]),
            longest=max(self.longest, _longest(new, ids)),
        )

    def updated(self, item_ids: Sequence[Any] | pl.Series, vectors: Float[Tensor, "item dim"]) -> "Snapshot":
        """Return a snapshot with other vectors for ids that the index holds; they keep their rows."""
        rows = self.rows(item_ids)
        ids = self.item_ids[rows]
        _require_distinct(ids)
        new = self._accepted(ids, vectors)
        mask = ~np.isin(self.changed, rows)
        changed = np.concatenate([self.changed[mask], rows])
        order = np.argsort(changed, kind="stable")
        delta = torch.cat([self.delta[torch.from_numpy(mask)], new])[torch.from_numpy(order)]
        return replace(self, changed=changed[order], delta=delta, longest=max(self.longest, _longest(new, ids)))

    def deleted(self, item_ids: Sequence[Any] | pl.Series) -> "Snapshot":
        """Return a snapshot in which these rows are deleted; their ids may be added again, as new rows."""
        rows = self.rows(item_ids)
        live = self.live.copy()
        live[rows] = False
        mask = ~np.isin(self.changed, rows)
        return replace(self, live=live, changed=self.changed[mask], delta=self.delta[torch.from_numpy(mask)])

    def compacted(self) -> "Snapshot":
        """Return a snapshot of the same items with nothing deleted or changed; the rows are numbered anew."""
        rows = np.flatnonzero(self.live)
        return Snapshot.of(self.vectors(rows), self.item_ids[rows])

    def _found(self, item_ids: Sequence[Any] | pl.Series) -> tuple[pl.Series, pl.Series]:
        """Return the ids, and where each stands among those that are live, or null."""
        ids = as_ids(item_ids, name="item_ids")
        cast = exactly(ids, self.item_ids.dtype)
        if len(bad := ids.filter(cast.is_null())):
            raise DataError(
                f"{len(bad):,} of {len(ids):,} item ids are not of the type {self.item_ids.dtype} that the index's "
                f"ids have; first: {first_few(bad)}"
            )
        live_ids = self.item_ids if self.live.all() else self.item_ids.filter(pl.Series(self.live))
        return cast, rows_of(live_ids, cast)

    def _accepted(self, item_ids: pl.Series, vectors: Float[Tensor, "item dim"]) -> Float[Tensor, "item dim"]:
        """Return vectors in the base's dtype; DataError if their number or width is wrong."""
        expected = (len(item_ids), self.base.shape[1])
        if tuple(vectors.shape) != expected:
            raise DataError(f"the vectors have shape {tuple(vectors.shape)}, expected {expected}: one for each item id")
        return vectors.detach().to(self.base)


@final
class SnapshotRows:
    """Some rows of a snapshot as `Keys`, read a tile at a time."""

    def __init__(self, snapshot: Snapshot, rows: Int[np.ndarray, " item"] | None) -> None:
        """Take rows, ascending; None: all, deleted ones too."""
        self.snapshot = snapshot
        self.rows = rows

    @property
    def shape(self) -> tuple[int, int]:
        """Number of vectors and of dimensions."""
        return len(self), self.snapshot.base.shape[1]

    def __len__(self) -> int:
        return len(self.snapshot.live) if self.rows is None else len(self.rows)

    def __getitem__(self, part: slice) -> Float[Tensor, "row dim"]:
        """Return the vectors of a slice of the rows."""
        if self.rows is not None:
            return self.snapshot.vectors(self.rows[part])
        start, stop, _ = part.indices(len(self))
        first, last = np.searchsorted(self.snapshot.changed, [start, stop])
        if first == last:  # nothing to be patched, and so nothing beyond the base
            return self.snapshot.base[start:stop]
        return self.snapshot.vectors(np.arange(start, stop))


def _require_distinct(item_ids: pl.Series) -> None:
    if item_ids.null_count():
        raise DataError(f"{item_ids.null_count():,} of {len(item_ids):,} item ids are missing; give every item an id")
    repeated = item_ids.filter(item_ids.is_duplicated()).unique(maintain_order=True)
    if len(repeated):
        raise DataError(f"{len(repeated):,} item ids are repeated; first: {first_few(repeated)}. Give each item once")


_ROWS_AT_ONCE = 65_536


def _longest(vectors: Float[Tensor, "item dim"], item_ids: pl.Series) -> float:
    """Return the length of the longest vector; DataError if one is not finite."""
    longest = 0.0
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        lengths = torch.linalg.vector_norm(vectors[start : start + _ROWS_AT_ONCE].float(), dim=-1)
        if not bool(torch.isfinite(lengths).all()):
            wrong = item_ids[start : start + _ROWS_AT_ONCE].filter(pl.Series((~torch.isfinite(lengths)).numpy()))
            raise DataError(f"vectors of items are not finite; first: {first_few(wrong)}. Encode these items again")
        longest = max(longest, float(lengths.amax()))
    return longest
