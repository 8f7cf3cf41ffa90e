"""The two ways to search a snapshot: score every item that is allowed, or those that a nominator names."""

# Proved by tests/retrieval/index/test_index.py.

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm.errors import ConfigError, DataError
from hllm.retrieval.exact import USERS_PER_TILE, best
from hllm.retrieval.histories import ItemLists
from hllm.retrieval.index.nominator import Nominator
from hllm.retrieval.index.snapshot import Snapshot, SnapshotRows
from hllm.retrieval.retriever import Recommendations
from hllm.retrieval.tiles import Products, masked

_QUERIES_PER_TILE = 32  # that share one product with all that was nominated for any of them
_GATHERED = {torch.float32: 0.15, torch.bfloat16: 0.4}  # share of the rows; reading fewer one by one is faster than all


def exact_search(
    snapshot: Snapshot,
    queries: Float[Tensor, "query dim"],
    k: int,
    exclude: ItemLists | None,
    allowed: Bool[np.ndarray, " row"],
) -> Recommendations:
    """Return the k best allowed rows of each query; memory is one tile of queries times one tile of rows."""
    number = np.count_nonzero(allowed)
    rows = np.flatnonzero(allowed) if number < _GATHERED[snapshot.base.dtype] * len(allowed) else None
    candidates = None if rows is not None or number == len(allowed) else allowed
    items = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for start in range(0, len(queries), USERS_PER_TILE):
        tile = slice(start, start + USERS_PER_TILE)
        excluded = [] if exclude is None else exclude[tile]
        if rows is not None:
            excluded = [_places(rows, own) for own in excluded]
        products = Products(queries[tile], SnapshotRows(snapshot, rows))
        nearest = best(masked(products, excluded, candidates), len(queries[tile]), k)
        items[tile], scores[tile] = nearest.items, nearest.scores
    if rows is not None and len(rows):
        items[items >= 0] = rows[items[items >= 0]]
    return Recommendations(items, scores)


def nominated_search(
    snapshot: Snapshot,
    nominator: Nominator,
    queries: Float[Tensor, "query dim"],
    k: int,
    exclude: ItemLists | None,
    allowed: Bool[np.ndarray, " row"],
) -> tuple[Recommendations, Bool[np.ndarray, " query"]]:
    """Return the k best rows for each query, of those that the nominator names or that changed since it was built.

    Also return for which queries exact search is needed: fewer than k were found, or the k-th is level with the worst
    that was named, so that some as good may not have been named and catalogue order cannot be told.
    """
    in_base = snapshot.in_base
    if allowed is not snapshot.live:
        in_base = in_base & allowed[: len(snapshot.base)]
    changed = snapshot.changed[allowed[snapshot.changed]]
    items = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    worst = np.full(len(queries), np.inf, dtype=np.float32)
    for start in range(0, len(queries), _QUERIES_PER_TILE):
        tile = slice(start, start + _QUERIES_PER_TILE)
        seen = [_NOTHING] * len(queries[tile]) if exclude is None else exclude[tile]
        of_query, named = _nominate(nominator, queries[tile].numpy(), k, seen, in_base)
        rows = np.union1d(named, changed)
        own = np.zeros((len(queries[tile]), len(rows)), dtype=bool)
        own[of_query, np.searchsorted(rows, named)] = True
        is_changed = np.isin(rows, changed)
        excluded = [_places(rows, each) for each in seen]
        products = masked(Products(queries[tile], SnapshotRows(snapshot, rows)), excluded, None)
        nearest = best(_only(products, own, is_changed, worst[tile]), len(own), k)
        items[tile], scores[tile] = nearest.items, nearest.scores
        real = nearest.items >= 0
        items[tile][real] = rows[nearest.items[real]]
    return Recommendations(items, scores), (items[:, -1] < 0) | (scores[:, -1] <= worst)


def checked(
    snapshot: Snapshot, queries: Float[Tensor, "query dim"], k: int, candidates: Bool[np.ndarray, " row"] | None
) -> tuple[Float[Tensor, "query dim"], Bool[np.ndarray, " row"]]:
    """Return the queries in fp32 and a mask of the rows that may be found; ConfigError or DataError for wrong ones."""
    if k < 1:
        raise ConfigError(f"k is {k}; it must be at least 1")
    if queries.shape[1] != snapshot.base.shape[1]:
        raise DataError(f"the queries have {queries.shape[1]} dimensions, the index {snapshot.base.shape[1]}")
    queries = queries.detach().cpu().float().contiguous()
    # No product can overflow if this one does not: |q·k| <= |q||k|.
    lengths = torch.linalg.vector_norm(queries, dim=-1) * snapshot.longest
    if not bool(torch.isfinite(lengths).all()):
        number = int((~torch.isfinite(lengths)).sum())
        raise DataError(f"{number:,} of {len(queries):,} queries would have scores that are not finite")
    if candidates is None:
        return queries, snapshot.live
    if len(candidates) != len(snapshot.live):
        raise DataError(f"candidates is for {len(candidates):,} rows, the index has {len(snapshot.live):,}")
    return queries, candidates & snapshot.live


def _nominate(
    nominator: Nominator,
    queries: Float[np.ndarray, "query dim"],
    k: int,
    exclude: ItemLists,
    allowed: Bool[np.ndarray, " item"],
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Return pairs of query and row. Each query has its own depth, so its rows do not depend on the other queries."""
    depths = np.array([1 << (k + len(own)).bit_length() for own in exclude], dtype=np.int64)  # more than needed
    of_query, rows = [_NOTHING], [_NOTHING]
    for depth in np.unique(depths):
        some = np.flatnonzero(depths == depth)
        nominated = nominator.nominate(queries[some], int(depth), allowed)
        real = (nominated >= 0) & (nominated < len(allowed))
        of_query.append(some[np.nonzero(real)[0]])
        rows.append(nominated[real].astype(np.int64))
    return np.concatenate(of_query), np.concatenate(rows)


def _only(
    tiles: Iterator[tuple[int, Float[Tensor, "query row"]]],
    own: Bool[np.ndarray, "query all"],
    changed: Bool[np.ndarray, " all"],
    worst: Float[np.ndarray, " query"],
) -> Iterator[tuple[int, Float[Tensor, "query row"]]]:
    """Yield the tiles with -inf for what is neither a query's own nor changed; lower `worst` to its own's scores."""
    for first, scores in tiles:
        part = slice(first, first + scores.shape[1])
        values = scores.numpy()
        np.minimum(worst, np.where(own[:, part] & np.isfinite(values), values, np.inf).min(1), out=worst)
        values[~(own[:, part] | changed[part])] = -np.inf
        yield first, scores


def _places(rows: Int[np.ndarray, " row"], items: Int[np.ndarray, " _"]) -> Int[np.ndarray, " _"]:
    """Return the places of `items` among `rows`, which are ascending; items that are not among them are left out."""
    place = np.searchsorted(rows, items)
    place = place[place < len(rows)] if len(rows) else place[:0]
    return place[np.isin(rows[place], items)]


_NOTHING = np.zeros(0, dtype=np.int64)
