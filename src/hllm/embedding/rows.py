"""Store vectors in fp32, bf16 or int8: write them, read them back, and measure the loss."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

Dtype = Literal["fp32", "bf16", "int8"]
DTYPES: tuple[Dtype, ...] = ("fp32", "bf16", "int8")
_NUMPY = {"fp32": np.float32, "bf16": np.uint16, "int8": np.int8}
_STEPS = 127
_ROWS_AT_ONCE = 65_536
_BYTES_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Rows:
    """Rows of vectors, in memory or memory-mapped."""

    dtype: Dtype
    values: Shaped[np.ndarray, "row dim"]
    """fp32 as they are; bf16 as the 16 bits of each number; int8 in steps of the row's scale."""
    scales: Float[np.ndarray, " row"] | None
    """For int8: the size of one step."""
    errors: Float[np.ndarray, " row"] | None
    """1 - cosine of what is read back with the fp32 vector; None for fp32, which loses nothing."""

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Int[np.ndarray, " row"] | slice) -> "Rows":
        """Return some of the rows as they are stored."""
        scales, errors = (None if column is None else column[rows] for column in (self.scales, self.errors))
        return Rows(self.dtype, self.values[rows], scales, errors)

    def first(self, dim: int) -> "Rows":
        """Return the first numbers of fp32 rows."""
        assert self.dtype == "fp32", self.dtype
        return Rows("fp32", self.values[:, :dim], None, None)

    def vectors(self) -> Float[torch.Tensor, "row dim"]:
        """Return all rows in fp32; of fp32 rows no copy is made."""
        values = torch.from_numpy(self.values)
        match self.dtype:
            case "fp32":
                return values
            case "bf16":
                return values.view(torch.bfloat16).float()
            case "int8":
                assert self.scales is not None
                return values.float() * torch.from_numpy(self.scales)[:, None]

    def as_dtype(self, dtype: Dtype) -> "Rows":
        """Return the rows in `dtype`; what has lost digits already is never converted again."""
        if dtype == self.dtype:
            return self
        assert self.dtype == "fp32", self.dtype
        return encode_rows(self.vectors(), dtype)

    @property
    def cosine_error(self) -> dict[str, float]:
        """Return the largest and the mean of `errors`."""
        if self.errors is None:
            return {"max": 0.0, "mean": 0.0}
        return {"max": float(self.errors.max()), "mean": float(self.errors.mean(dtype=np.float64))}

    @classmethod
    def open(cls, folder: Path, dtype: Dtype) -> "Rows":
        """Map the files that a RowWriter wrote."""
        scales = np.load(folder / "scales.npy") if dtype == "int8" else None
        errors = np.load(folder / "errors.npy") if dtype != "fp32" else None
        # "c" and not "r": torch warns of arrays that cannot be written to.
        return cls(dtype, np.load(folder / "vectors.npy", mmap_mode="c"), scales, errors)


def encode_rows(vectors: Float[torch.Tensor, "row dim"], dtype: Dtype) -> Rows:
    """Return fp32 vectors in `dtype`, with the error measured.

    int8: one step is the row's largest absolute number divided by 127. So no number is off by more than half a
    step. A row of zeros stays one.
    """
    vectors = vectors.detach().cpu().float()
    if dtype == "fp32":
        return Rows("fp32", vectors.numpy(), None, None)
    if dtype == "bf16":
        rows = Rows("bf16", vectors.bfloat16().view(torch.uint16).numpy(), None, None)
    else:
        scales = vectors.abs().amax(1) / _STEPS
        steps = torch.where(scales[:, None] > 0, vectors / scales[:, None], 0.0)
        codes = steps.round().clamp(-_STEPS, _STEPS).to(torch.int8)
        rows = Rows("int8", codes.numpy(), scales.numpy(), None)
    return Rows(dtype, rows.values, rows.scales, cosine_errors(vectors, rows.vectors()))


def cosine_errors(
    exact: Float[torch.Tensor, "row dim"], stored: Float[torch.Tensor, "row dim"]
) -> Float[np.ndarray, " row"]:
    """Return 1 - cosine of each pair of rows, computed in fp64; 0 where both are zeros, 1 where one is."""
    a, b = exact.double(), stored.double()
    lengths = a.norm(dim=1) * b.norm(dim=1)
    both = (a == 0).all(1) & (b == 0).all(1)
    cosine = torch.where(lengths > 0, (a * b).sum(1) / lengths, both.double())
    errors: Float[np.ndarray, " row"] = (1 - cosine).clamp_min(0).float().numpy()
    return errors


def new_array(file: Path, dtype: np.dtype[Any], shape: tuple[int, int]) -> np.memmap[Any, Any]:
    """Map a new .npy file whose bytes are all on the disk already; OSError if it is full.

    A file that grows as it is written to would end the process then, with SIGBUS.
    """
    array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    with file.open("r+b") as content:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(content.fileno(), 0, file.stat().st_size)
        else:  # macOS
            content.seek(array.offset)
            for start in range(0, array.nbytes, _BYTES_AT_ONCE):
                content.write(bytes(min(_BYTES_AT_ONCE, array.nbytes - start)))
    return array


class RowWriter:
    """Files of `count` rows in one folder, written in any order; memory is what is put at a time."""

    def __init__(self, folder: Path, count: int, dim: int, dtype: Dtype) -> None:
        self.folder = folder
        file = folder / "vectors.npy"
        values = new_array(file, np.dtype(_NUMPY[dtype]), (count, dim))
        scales = np.zeros(count, dtype=np.float32) if dtype == "int8" else None
        errors = np.zeros(count, dtype=np.float32) if dtype != "fp32" else None
        self.rows = Rows(dtype, values, scales, errors)

    def put(self, places: Int[np.ndarray, " row"], rows: Rows) -> None:
        """Write rows of this dtype, or fp32 ones, to `places`."""
        own, new = self.rows, rows.as_dtype(self.rows.dtype)
        own.values[places] = new.values
        if own.scales is not None and new.scales is not None:
            own.scales[places] = new.scales
        if own.errors is not None and new.errors is not None:
            own.errors[places] = new.errors

    def copy(self, places: Int[np.ndarray, " row"], source: Rows, origin: Int[np.ndarray, " row"]) -> None:
        """Write the rows `origin` of `source` to `places`, some at a time; `source` may be this writer's own rows."""
        for start in range(0, len(places), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            self.put(places[part], source[origin[part]])

    def close(self) -> Rows:
        """Write what is still in memory, and return the rows."""
        self.rows.values.flush()  # type: ignore[attr-defined]
        for name, column in (("scales", self.rows.scales), ("errors", self.rows.errors)):
            if column is not None:
                np.save(self.folder / f"{name}.npy", column)
        return self.rows
