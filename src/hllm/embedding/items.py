"""Keep the item table up to date: only items whose text is new are encoded, in shards that survive a kill."""

# Proved by tests/runs/test_tables.py.

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Int, Shaped

from hllm import artifacts
from hllm.embedding.rows import Dtype, Rows, encode_rows
from hllm.embedding.shards import Compute, Embedded, Shards, Share, clear_shards
from hllm.embedding.table import ITEMS, ItemEmbeddingTable, require_room, writing_table
from hllm.errors import CheckpointError, HllmWarning
from hllm.progress import Progress

_KEY_BYTES = 32


@dataclass(frozen=True)
class ItemWork:
    """Items to embed with one model."""

    ids: pl.Series
    keys: Shaped[np.ndarray, " item"]
    """As `content_keys` makes them: equal keys mean equal vectors."""
    lengths: Int[np.ndarray, " item"]
    """The length of each text; items of like length are encoded together."""
    compute: Compute
    checkpoint: str
    precision: str
    """The number format of matrix products: "fp32" or "bf16"."""
    dim: int | None = None
    """Keep only the first numbers of each vector; None: all."""


def content_keys(texts: Iterable[str], *, checkpoint: str, precision: str) -> Shaped[np.ndarray, " item"]:
    """Return the SHA-256 of each rendered text with the model's fingerprint and precision, as 32-byte strings."""
    head = f"{checkpoint}\n{precision}\n".encode()
    digests = b"".join(hashlib.sha256(head + text.encode()).digest() for text in texts)
    return np.frombuffer(digests, dtype=f"S{_KEY_BYTES}")


def embed_items(work: ItemWork, path: Path, *, dtype: Dtype, share: Share, reuse: tuple[Path, ...] = ()) -> Embedded:
    """Write the table of `work` to `path`; of what is in the table there, or in `reuse`, nothing is encoded again.

    Equal texts are encoded once. A share of several processes fills shards beside `path` and writes no table. A call
    with the whole share makes what is missing and puts the table together. It replaces the one at `path`. Memory is a
    shard and the keys. The bytes depend on the items, on what could be reused and on the machine, not on kills or on
    the number of processes. Raises TrainingError if a vector is not finite, and ConfigError if something else than a
    table of items stands at `path`, and BusyError if another process makes it, or this share of it. A table that is as
    it should be is left alone.
    """
    with share.locked(path):
        return _embed_items(work, path, dtype, share, reuse)


def _embed_items(work: ItemWork, path: Path, dtype: Dtype, share: Share, reuse: tuple[Path, ...]) -> Embedded:
    require_room(path, ITEMS)
    current = open_if_good(path)
    if share.of == 1 and current is not None and _is_current(current, work, dtype):
        clear_shards(path)
        return Embedded(len(work.ids), 0, 0)
    first, unit = _first_of_equals(work.keys)
    others = [open_if_good(other) for other in dict.fromkeys(reuse) if other != path]
    copies = _known(work, [table for table in (current, *others) if table is not None], dtype, first)
    new_rows = np.setdiff1d(first, np.concatenate([np.zeros(0, dtype=np.int64), *(rows for _, rows, _ in copies)]))
    order = new_rows[np.argsort(work.lengths[new_rows], kind="stable")]
    cut = [] if work.dim is None else [work.dim]
    job = artifacts.fingerprint(
        [work.checkpoint, work.precision, hashlib.sha256(work.keys[order].tobytes()).hexdigest(), *cut]
    )

    def compute(rows: Int[np.ndarray, " row"], advance: Progress) -> torch.Tensor:
        return work.compute(rows, advance)[:, : work.dim]

    shards = Shards.beside(path, order, job=job)
    shards.fill(compute, share, label="encode items")
    report = Embedded(len(work.ids), len(order), shards.missing())
    if share.of > 1:
        return report
    dim = copies[0][0].values.shape[1] if copies else next(iter(shards))[1].shape[1]
    details = {"checkpoint": work.checkpoint, "precision": work.precision, **({"cut": True} if cut else {})}
    with writing_table(path, ITEMS, work.ids, dim, dtype, details=details, keys=work.keys) as writer:
        for source, rows, origin in copies:
            writer.copy(rows, source, origin)
        for rows, vectors in shards:
            writer.put(rows, encode_rows(vectors, "fp32"))
        repeats = np.setdiff1d(np.arange(len(work.ids)), first)
        writer.copy(repeats, writer.rows, first[unit[repeats]])
    clear_shards(path)
    return report


def open_if_good(path: Path) -> ItemEmbeddingTable | None:
    """Return the table at `path`; None if there is none, or, with a warning, a damaged one."""
    if not artifacts.standing(path).exists():
        return None
    try:
        return ItemEmbeddingTable.load(path, checkpoint=None)
    except CheckpointError as error:
        warnings.warn(f"{error}. Its vectors are made again", HllmWarning, stacklevel=2)
        return None


_Known = tuple[Rows, Int[np.ndarray, " _"], Int[np.ndarray, " _"]]
"""A table, rows of the new table that it holds, and their places in it."""


def _first_of_equals(
    keys: Shaped[np.ndarray, " item"],
) -> tuple[Int[np.ndarray, " distinct"], Int[np.ndarray, " item"]]:
    """Return the first item of each distinct key, and which of those each item is equal to."""
    _, first, unit = np.unique(keys, return_index=True, return_inverse=True)
    return first, unit.astype(np.int64)


def _is_current(table: ItemEmbeddingTable, work: ItemWork, dtype: Dtype) -> bool:
    """Tell whether a table holds these items, in this order and type, by this model."""
    same_keys = table.keys is not None and np.array_equal(table.keys, work.keys)
    width, cut = table.rows.values.shape[1], bool(table.details.get("cut"))
    same_width = not cut if work.dim is None else width == work.dim
    return same_keys and same_width and table.dtype == dtype and table.ids.equals(work.ids)


def _known(
    work: ItemWork, tables: list[ItemEmbeddingTable], dtype: Dtype, rows: Int[np.ndarray, " row"]
) -> list[_Known]:
    """Find rows in `tables` whose vectors can be had in `dtype`; each is taken from the first."""
    copies: list[_Known] = []
    for table in tables:
        source = _usable(table, work.dim, dtype)
        if table.keys is None or source is None:
            continue
        order = np.argsort(table.keys, kind="stable")
        place = np.searchsorted(table.keys, work.keys[rows], sorter=order).clip(max=len(order) - 1)
        origin = order[place]
        matches = table.keys[origin] == work.keys[rows]
        if matches.any():
            copies.append((source, rows[matches], origin[matches]))
            rows = rows[~matches]
    return copies


def _usable(table: ItemEmbeddingTable, dim: int | None, dtype: Dtype) -> Rows | None:
    """Return a table's rows as the new one would have them; None if they cannot be had from it.

    A table that has lost digits already is never made into another type, nor are its numbers cut: its scales and
    errors are of all.
    """
    width, cut = table.rows.values.shape[1], bool(table.details.get("cut"))
    if table.dtype not in ("fp32", dtype):
        return None
    if dim == width or (dim is None and not cut):
        return table.rows
    return table.rows.first(dim) if dim is not None and dim < width and table.dtype == "fp32" else None
