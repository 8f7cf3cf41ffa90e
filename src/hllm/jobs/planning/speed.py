"""Measure how fast this machine multiplies matrices, in about a second."""

# Proved by tests/jobs/planning/test_plan.py.

import time

import torch

_SECONDS = 0.6
_ROWS = {"cpu": 512, "cuda": 16_384}
_WIDEST = {"cpu": 2048, "cuda": 8192}

# Share of the measured rate that training reaches: norms, activations and attention take time too, the more of it
# the faster the products are. On two AMX cores the demo's steps reached .13 to .19 of it in bf16, its layers alone .5
# to .7 in fp32 (docs/decisions/0004); on GPUs eager code is known to end between .3 and .5.
EFFICIENCY = {("cpu", "bf16"): 0.15, ("cpu", "fp32"): 0.5, ("cuda", "bf16"): 0.4, ("cuda", "fp32"): 0.5}


def gemm_rate(width: int, precision: str, device: torch.device) -> float:
    """Return operations per second in products of (rows, width) and (width, 4 width) matrices; width is capped."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    width = min(width, _WIDEST[device.type])
    left = torch.randn(_ROWS[device.type], width, device=device, dtype=dtype)
    right = torch.randn(width, 4 * width, device=device, dtype=dtype)
    best, end = float("inf"), time.monotonic() + _SECONDS
    while time.monotonic() < end:
        start = time.monotonic()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.monotonic() - start)
    return 2 * left.shape[0] * right.numel() / best
