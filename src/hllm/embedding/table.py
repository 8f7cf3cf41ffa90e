"""Tables of embeddings: one vector for each item of a catalogue or for each user, memory-mapped, with provenance."""

# Proved by tests/runs/test_tables.py.

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int, Shaped

from hllm import artifacts
from hllm.embedding.rows import Dtype, Rows, RowWriter, encode_rows
from hllm.errors import CheckpointError, ConfigError

ITEMS = "item embedding table"
USERS = "user embedding table"
_IDS = {ITEMS: "item_id", USERS: "user_id"}
_KEYS = "keys.npy"


@dataclass(frozen=True)
class EmbeddingTable:
    """Vectors that are not normalised (the User LLM reads items so), and the caller's id of each."""

    ids: pl.Series
    """Named item_id or user_id."""
    rows: Rows
    checkpoint: str
    """Fingerprint of the checkpoint that made them: only that model's user tier may read them."""
    keys: Shaped[np.ndarray, " row"] | None
    """Of items: the hash of what was encoded, `embedding.items.content_keys`. None where it was not kept."""
    details: dict[str, Any]
    """Details of the manifest: dtype, shape, cosine_error, the precision that the model ran in."""
    fingerprint: str
    """Of the table itself: a hash of all that it holds."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dtype(self) -> Dtype:
        """Return how the vectors are stored."""
        return self.rows.dtype

    @cached_property
    def vectors(self) -> Float[torch.Tensor, "row dim"]:
        """Return all vectors in fp32: memory-mapped if they are stored so, else in memory."""
        return self.rows.vectors()

    def take(self, rows: Int[np.ndarray, " row"] | slice) -> Float[torch.Tensor, "row dim"]:
        """Return some vectors in fp32."""
        return self.rows[rows].vectors()


class ItemEmbeddingTable(EmbeddingTable):
    """One vector for each item, in catalogue order."""

    @classmethod
    def load(cls, path: Path, *, checkpoint: str | None) -> "ItemEmbeddingTable":
        """Open a table after checking every byte; CheckpointError if it is damaged.

        So too if it was made by another checkpoint than `checkpoint`; None takes any.
        """
        return cls(*_read(path, ITEMS, checkpoint))


class UserEmbeddingTable(EmbeddingTable):
    """One vector for each of some users."""

    @classmethod
    def load(cls, path: Path, *, checkpoint: str | None) -> "UserEmbeddingTable":
        """Open a table as ItemEmbeddingTable.load does."""
        return cls(*_read(path, USERS, checkpoint))


def load_table(path: Path) -> EmbeddingTable:
    """Open a table of either kind."""
    if (path / f"{_IDS[USERS]}s.parquet").is_file():
        return UserEmbeddingTable.load(path, checkpoint=None)
    return ItemEmbeddingTable.load(path, checkpoint=None)


def require_room(path: Path, kind: str) -> None:
    """Raise ConfigError if something else than a table of this kind stands at `path`, which a new one would replace."""
    if not artifacts.standing(path).exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if (artifacts.standing(path) / artifacts.MANIFEST).is_file():
        try:
            artifacts.read_manifest(path, kind)
            return
        except CheckpointError as error:
            found = str(error)
    else:
        found = f"{path} is no {kind}"
    raise ConfigError(f"{found}; it would be replaced: give another --out, or remove it")


@contextmanager
def writing_table(
    path: Path,
    kind: str,
    ids: pl.Series,
    dim: int,
    dtype: Dtype,
    *,
    details: dict[str, Any],
    keys: Shaped[np.ndarray, " row"] | None = None,
) -> Iterator[RowWriter]:
    """Yield the writer of a table that appears at `path` whole, in the place of another, or not at all.

    `details` must hold the checkpoint's fingerprint; shape, dtype and the cosine error are added.
    """
    details = {**details, "dtype": dtype, "shape": [len(ids), dim]}
    with artifacts.writing(path, kind, details) as folder:
        ids.alias(_IDS[kind]).to_frame().write_parquet(folder / f"{_IDS[kind]}s.parquet")
        if keys is not None:
            np.save(folder / _KEYS, np.ascontiguousarray(keys))
        writer = RowWriter(folder, len(ids), dim, dtype)
        yield writer
        details["cosine_error"] = writer.close().cosine_error


def save_items(path: Path, item_ids: pl.Series, vectors: Float[torch.Tensor, "item dim"], *, checkpoint: str) -> None:
    """Write fp32 vectors that are in memory as a table of items."""
    details = {"checkpoint": checkpoint}
    with writing_table(path, ITEMS, item_ids, vectors.shape[1], "fp32", details=details) as writer:
        writer.put(np.arange(len(item_ids)), encode_rows(vectors, "fp32"))


def _read(
    path: Path, kind: str, checkpoint: str | None
) -> tuple[pl.Series, Rows, str, Shaped[np.ndarray, " row"] | None, dict[str, Any], str]:
    def read(
        folder: Path, manifest: artifacts.Manifest
    ) -> tuple[artifacts.Manifest, str, pl.Series, Rows, Shaped[np.ndarray, " row"] | None]:
        keys = np.load(folder / _KEYS) if (folder / _KEYS).is_file() else None
        rows = Rows.open(folder, manifest.details["dtype"])
        ids = pl.read_parquet(folder / f"{_IDS[kind]}s.parquet", glob=False)[_IDS[kind]]
        return manifest, str(manifest.details["checkpoint"]), ids, rows, keys

    manifest, made_by, ids, rows, keys = artifacts.reading(path, kind, read)
    details = manifest.details
    if checkpoint is not None and made_by != checkpoint:
        raise CheckpointError(
            f"the item vectors in {path} were made by checkpoint {made_by[:12]}…, the model is {checkpoint[:12]}…; "
            "vectors of two models do not mix: make them again"
        )
    return ids, rows, made_by, keys, details, manifest.fingerprint
