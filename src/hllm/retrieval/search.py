"""The two ways to search a snapshot: score every item that is allowed, or those that a nominator names."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hllm.errors import ConfigError, DataError
from hllm.retrieval.exact import USERS_PER_TILE, best
from hllm.retrieval.faiss import Nominator
from hllm.retrieval.retriever import Histories, Recommendations
from hllm.retrieval.snapshot import Rows, Snapshot
from hllm.retrieval.tiles import Products, masked

_QUERIES_PER_TILE = 32  # that share one product with all that was nominated for any of them
_GATHERED = 0.5  # share of the rows; reading fewer one by one is faster than scoring all


def exact_search(
    snapshot: Snapshot,
    queries: Float[Tensor, "query dim"],
    k: int,
    exclude: Histories | None,
    allowed: Bool[np.ndarray, " row"],
) -> Recommendations:
    """Return the k best allowed rows of each query; memory is one tile of queries times one tile of rows."""
    number = np.count_nonzero(allowed)
    rows = np.flatnonzero(allowed) if number < _GATHERED * len(allowed) else None
    candidates = None if rows is not None or number == len(allowed) else allowed
    items = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for start in range(0, len(queries), USERS_PER_TILE):
        tile = slice(start, start + USERS_PER_TILE)
        left_out = [] if exclude is None else exclude[tile]
        if rows is not None:
            left_out = [_places(rows, own) for own in left_out]
        products = Products(queries[tile], Rows(snapshot, rows))
        found = best(masked(products, left_out, candidates), len(queries[tile]), k)
        items[tile], scores[tile] = found.items, found.scores
    if rows is not None and len(rows):
        items[items >= 0] = rows[items[items >= 0]]
    return Recommendations(items, scores)


def nominated_search(
    snapshot: Snapshot,
    nominator: Nominator,
    queries: Float[Tensor, "query dim"],
    k: int,
    exclude: Histories | None,
    allowed: Bool[np.ndarray, " row"],
) -> Recommendations:
    """Return the k best for each query among what the nominator names and all that changed since it was built.

    A query gets fewer than k where the nominator finds too few.
    """
    in_base = snapshot.in_base & allowed[: len(snapshot.base)]
    changed = snapshot.changed[allowed[snapshot.changed]]
    items = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for start in range(0, len(queries), _QUERIES_PER_TILE):
        tile = slice(start, start + _QUERIES_PER_TILE)
        left_out = [_NOTHING] * len(queries[tile]) if exclude is None else exclude[tile]
        pairs = _nominate(nominator, queries[tile].numpy(), k, left_out, in_base)
        rows = np.union1d(pairs[1], changed)
        own = np.zeros((len(queries[tile]), len(rows)), dtype=bool)
        own[pairs[0], np.searchsorted(rows, pairs[1])] = True
        own[:, np.searchsorted(rows, changed)] = True
        excluded = [_places(rows, each) for each in left_out]
        products = masked(Products(queries[tile], Rows(snapshot, rows)), excluded, None)
        found = best(_only(products, torch.from_numpy(own)), len(own), k)
        items[tile], scores[tile] = found.items, found.scores
        real = found.items >= 0
        items[tile][real] = rows[found.items[real]]
    return Recommendations(items, scores)


def checked(
    snapshot: Snapshot, queries: Float[Tensor, "query dim"], k: int, candidates: Bool[np.ndarray, " row"] | None
) -> tuple[Float[Tensor, "query dim"], Bool[np.ndarray, " row"]]:
    """Return the queries in fp32 and which rows may be found; ConfigError or DataError for what cannot be asked."""
    if k < 1:
        raise ConfigError(f"k is {k}; it must be at least 1")
    if queries.shape[1] != snapshot.base.shape[1]:
        raise DataError(f"the queries have {queries.shape[1]} dimensions, the index {snapshot.base.shape[1]}")
    queries = queries.detach().cpu().float().contiguous()
    # Not one product can overflow if these two can not: |q·k| <= |q||k|.
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
    exclude: Histories,
    allowed: Bool[np.ndarray, " item"],
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Return pairs of query and row. Each query's depth is its own, so that it does not matter what it is asked with."""
    depths = np.array([1 << (k + len(own) - 1).bit_length() for own in exclude], dtype=np.int64)
    of_query, rows = [_NOTHING], [_NOTHING]
    for depth in np.unique(depths):
        some = np.flatnonzero(depths == depth)
        found = nominator.nominate(queries[some], int(depth), allowed)
        real = found >= 0
        of_query.append(some[np.nonzero(real)[0]])
        rows.append(found[real].astype(np.int64))
    return np.concatenate(of_query), np.concatenate(rows)


def _only(
    tiles: Iterator[tuple[int, Float[Tensor, "query row"]]], own: Bool[Tensor, "query all"]
) -> Iterator[tuple[int, Float[Tensor, "query row"]]]:
    """Yield the tiles with -inf for what is not a query's own."""
    for first, scores in tiles:
        yield first, scores.masked_fill_(~own[:, first : first + scores.shape[1]], -torch.inf)


def _places(rows: Int[np.ndarray, " row"], wanted: Int[np.ndarray, " _"]) -> Int[np.ndarray, " _"]:
    """Return where among `rows`, which are ascending, those of the wanted ones stand that are there."""
    place = np.searchsorted(rows, wanted)
    place = place[place < len(rows)] if len(rows) else place[:0]
    return place[np.isin(rows[place], wanted)]


_NOTHING = np.zeros(0, dtype=np.int64)
