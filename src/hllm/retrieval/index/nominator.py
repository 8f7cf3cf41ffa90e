"""A nominator proposes items that an index then scores exactly."""

# Proved by tests/retrieval/index/test_faiss.py.

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int


@runtime_checkable
class Nominator(Protocol):
    """Finds rows of an index's base that are likely the best for a query. A row that it misses is not found."""

    def nominate(
        self,
        queries: Float[np.ndarray, "query dim"],
        number: int,
        allowed: Bool[np.ndarray, " item"],
    ) -> Int[np.ndarray, "query number"]:
        """Return for each query up to `number` allowed rows, -1 where it finds no more."""

    def save(self, path: Path) -> None:
        """Write all to one file."""

    def discard(self) -> None:
        """Delete all that was made for it outside this process and is not kept by `save`."""
