"""The ItemEmbeddingTable: one vector for each item of a catalogue, memory-mapped, with its provenance."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from hllm import artifacts
from hllm.errors import CheckpointError

KIND = "item embedding table"


@dataclass(frozen=True)
class ItemEmbeddingTable:
    """Vectors in fp32, not normalised (the User LLM reads them so), in catalogue order."""

    vectors: Float[torch.Tensor, "item dim"]
    checkpoint: str
    """Fingerprint of the checkpoint that made them: only that model's user tier may read them."""

    def save(self, path: Path, item_ids: pl.Series) -> None:
        """Write the vectors as .npy and the caller's ids as Parquet."""
        details = {"checkpoint": self.checkpoint, "shape": list(self.vectors.shape)}
        with artifacts.writing(path, KIND, details) as folder:
            np.save(folder / "vectors.npy", self.vectors.cpu().numpy())
            item_ids.alias("item_id").to_frame().write_parquet(folder / "item_ids.parquet")

    @classmethod
    def load(cls, path: Path, *, checkpoint: str) -> "ItemEmbeddingTable":
        """Open a table; CheckpointError if it is damaged or was made by another checkpoint than `checkpoint`."""
        made_by = artifacts.verify(path, KIND).details["checkpoint"]
        if made_by != checkpoint:
            raise CheckpointError(
                f"the item vectors in {path} were made by checkpoint {made_by[:12]}…, the model is {checkpoint[:12]}…; "
                "vectors of two models do not mix: make them again"
            )
        return cls(torch.from_numpy(np.load(path / "vectors.npy", mmap_mode="c")), checkpoint)
