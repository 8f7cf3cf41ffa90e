"""Precision chooses the device and the number format that the work runs in."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hllm.errors import HllmWarning

Precision = Literal["auto", "fp32", "bf16"]


def choose_device() -> torch.device:
    """Return the CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """Choose bf16 where the device multiplies it in hardware (CUDA from Ampere on, CPUs with AMX), else fp32.

    Weights, optimizer and loss are fp32 in both; bf16 is autocast of the matrix products, and with it the loss's
    factors are rounded, see `fast_fp32_products`.
    """
    if precision != "auto":
        if precision == "bf16" and device.type == "cpu" and not _multiplies_bf16():
            warnings.warn(
                'precision = "bf16" on this CPU, for which torch has no fast products of bf16 (they need AVX-512): a '
                'step may take many times as long as with "fp32"; "auto" chooses what suits the machine',
                HllmWarning,
                stacklevel=1,  # the same place for all callers, so that it is said once
            )
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"


def _multiplies_bf16() -> bool:
    """Return whether oneDNN multiplies matrices of bf16 on this CPU; what torch does without it is very slow."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(precision: Literal["fp32", "bf16"], device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context that runs matrix products in that format."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def take_rows(vectors: Float[Tensor, "row dim"], rows: Int[Tensor, "*places"]) -> Float[Tensor, "*places dim"]:
    """Return `vectors[rows]`; the gradient of a row that is taken many times adds up in fp32, and in one order.

    On a CPU a gradient would add up in the vectors' own format, and a sum in bf16 soon stops growing: of 5,000 equal
    gradients about a tenth arrived. `vectors[rows]` itself has a gradient that adds up in any order.
    """
    wide = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    return F.embedding(rows, wide).to(vectors.dtype)


@contextlib.contextmanager
def fast_fp32_products() -> Iterator[None]:
    """Let the factors of fp32 products be rounded inside; sums are of fp32 numbers, and results stay fp32.

    A CPU rounds to bf16: three to four times as fast as fp32 on two AMX cores (1,246 x 576 by 576 x 1,682: 3.3 instead
    of 13.8 ms), and no slower than products of bf16 tensors, whose results are rounded too. CUDA rounds to TF32, which
    has three bits more. The switches are torch's, for all of the process.
    """
    matmuls: dict[str, Any] = {"bf16": torch.backends.mkldnn.matmul, "tf32": torch.backends.cuda.matmul}  # type: ignore[attr-defined]
    before = {format_: matmul.fp32_precision for format_, matmul in matmuls.items()}
    for format_, matmul in matmuls.items():
        matmul.fp32_precision = format_
    try:
        yield
    finally:
        for format_, matmul in matmuls.items():
            matmul.fp32_precision = before[format_]
