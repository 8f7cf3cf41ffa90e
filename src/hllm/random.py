"""Random streams that are a pure function of their names, so that any point of a run can be re-created."""

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return an independent NumPy generator for `seed` and, for example, ("negatives", epoch, step)."""
    key = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return np.random.default_rng(np.frombuffer(key, dtype=np.uint32))
