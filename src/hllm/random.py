"""Random numbers are a pure function of their names, so that any point of a run can be made again."""

import hashlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return an independent NumPy generator for `seed` and, for example, ("negatives", epoch, step)."""
    key = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return np.random.default_rng(np.frombuffer(key, dtype=np.uint32))


def fractions_of(ids: Iterable[str], seed: int, purpose: str) -> Float[np.ndarray, " id"]:
    """Return a number in [0, 1) for each id: a function of it, of the seed and of the purpose, not of its place."""
    key = hashlib.sha256(repr((seed, purpose)).encode()).digest()
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in ids)
    return (np.frombuffer(digests, dtype="<u8") >> np.uint64(11)) * 2.0**-53  # 53 bits: what a float holds exactly
