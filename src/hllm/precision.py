"""Which device and number format the work runs in."""

import contextlib
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def choose_device() -> torch.device:
    """Return the CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """Choose bf16 where the device multiplies it in hardware (CUDA from Ampere on, CPUs with AMX), else fp32.

    Weights, optimizer and loss are fp32 in both; bf16 is autocast of the matrix products.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"


def autocast(precision: Literal["fp32", "bf16"], device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context that runs matrix products in that format."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
