"""Do long work in shards: each is a file with its own hash, so a process that is killed loses one shard at most."""

# Proved by tests/runs/test_tables.py.

import glob
import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from hllm import artifacts
from hllm.errors import ConfigError, HllmWarning, TrainingError
from hllm.locks import locked, locked_share
from hllm.progress import Progress, progress

ROWS_PER_SHARD = 4096
_HASH_BYTES = 32

Compute = Callable[[Int[np.ndarray, " row"], Progress], Float[torch.Tensor, "row dim"]]
"""Vectors, in fp32, of some rows, in their order; tells as it goes how many are done."""


@dataclass(frozen=True)
class Share:
    """The place of this process among those that work on one job."""

    number: int = 1
    """From 1 to `of`."""
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Read "2/8"; ConfigError for anything but two numbers, the first from 1 to the second."""
        first, slash, second = text.partition("/")
        if slash and first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
            return cls(int(first), int(second))
        raise ConfigError(f'the shard is {text!r}; expected "2/8" for the second of eight processes')

    def locked(self, path: Path) -> AbstractContextManager[None]:
        """Hold the lock of this share of the work on `path`; the whole work excludes all others.

        Raises BusyError if another process works on the same share, or on the whole.
        """
        return locked(path) if self.of == 1 else locked_share(path, f"shard-{self.number}-of-{self.of}")


@dataclass(frozen=True)
class Embedded:
    """The outcome of a request for a table."""

    num_rows: int
    num_encoded: int
    """Rows that were run through the model, now or before a kill; other rows were there already."""
    shards_missing: int
    """Shards that other processes still have to make; the table is written when there are none."""


@dataclass(frozen=True)
class Shards:
    """The vectors of `order` (rows of a table to be), cut into shards; all in one folder, which processes may share.

    The cut depends on `order` alone: the same rows meet in the same batches, whoever encodes them. A shard is the
    SHA-256 of its bytes, then its vectors as little-endian fp32.
    """

    folder: Path
    order: Int[np.ndarray, " row"]
    rows_per_shard: int = ROWS_PER_SHARD

    @classmethod
    def beside(cls, path: Path, order: Int[np.ndarray, " row"], *, job: str) -> "Shards":
        """Return the shards of the artefact at `path`; `job` is a fingerprint of all that decides their bytes."""
        job = artifacts.fingerprint([job, artifacts.digest_of_integers(order), ROWS_PER_SHARD])
        return cls(path.with_name(f".{path.name}.shards-{job[:16]}"), order, ROWS_PER_SHARD)

    def __len__(self) -> int:
        return -(-len(self.order) // self.rows_per_shard)

    def rows(self, number: int) -> Int[np.ndarray, " row"]:
        """Return the rows of one shard."""
        return self.order[number * self.rows_per_shard : (number + 1) * self.rows_per_shard]

    def fill(self, compute: Compute, share: Share, *, label: str) -> None:
        """Compute the shards of this share that are not there yet.

        Raises TrainingError if a vector is not finite, and StorageError where the disk is full.
        """
        mine = range(share.number - 1, len(self), share.of)
        with progress(label, sum(len(self.rows(number)) for number in mine)) as advance:
            for number in mine:
                rows = self.rows(number)
                if self.read(number) is not None:
                    advance(len(rows))
                    continue
                vectors = compute(rows, advance).float().cpu()
                if not bool(torch.isfinite(vectors).all()):
                    raise TrainingError(
                        f"{label}: shard {number} holds vectors that are not finite; train again at a lower learning "
                        'rate, or with precision = "fp32"'
                    )
                content = vectors.numpy().astype("<f4").tobytes()
                artifacts.write_bytes(self._file(number), hashlib.sha256(content).digest() + content)

    def read(self, number: int) -> Float[torch.Tensor, "row dim"] | None:
        """Return the vectors of one shard; None if it is not there, or, with a warning, damaged."""
        file = self._file(number)
        if not file.is_file():
            return None
        content = file.read_bytes()
        digest, vectors = content[:_HASH_BYTES], content[_HASH_BYTES:]
        if hashlib.sha256(vectors).digest() != digest:
            warnings.warn(f"{file} is damaged; it is made again", HllmWarning, stacklevel=2)
            return None
        numbers = np.frombuffer(vectors, dtype="<f4").astype(np.float32)
        return torch.from_numpy(numbers.reshape(len(self.rows(number)), -1))

    def __iter__(self) -> Iterator[tuple[Int[np.ndarray, " row"], Float[torch.Tensor, "row dim"]]]:
        """Yield the rows and vectors of all shards, which must be there."""
        for number in range(len(self)):
            vectors = self.read(number)
            assert vectors is not None, f"{self._file(number)} is missing"
            yield self.rows(number), vectors

    def missing(self) -> int:
        """Return how many shards are not there yet."""
        return sum(not self._file(number).is_file() for number in range(len(self)))

    def _file(self, number: int) -> Path:
        return self.folder / f"shard-{number:06d}.bin"


def clear_shards(path: Path) -> None:
    """Remove the shards of the artefact at `path`, which is written: its own, and what other jobs have left."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.shards-*"):
        shutil.rmtree(left, ignore_errors=True)
