"""Muon: an optimizer for the matrices of a network's layers, with steps as large in one direction as in another."""

# Proved by tests/training/test_optimizer.py.

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 3
_ADAMW_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Moves each matrix along its momentum (Nesterov's) with all singular values brought near 1.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the size of a step, .2 times
    the root of the longer side, so that rates and decay of AdamW fit, from Liu et al., arXiv:2502.16982, section 2.2.

    torch.optim.Muon does the same in bf16 only, which a CPU without AVX-512 multiplies a hundred times slower than
    fp32; this one computes as autocast says. Differs from both in its three iterations instead of five.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, momentum: float) -> None:
        """Take groups of matrices, with "lr" and "weight_decay"."""
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0})
        self.momentum = momentum

    @override
    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever given
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                if not self.state[matrix]:
                    self.state[matrix]["momentum"] = torch.zeros_like(matrix)
                mean = self.state[matrix]["momentum"].lerp_(matrix.grad, 1 - self.momentum)
                direction = orthogonal(matrix.grad.lerp(mean, self.momentum))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(direction, alpha=-group["lr"] * _ADAMW_RMS * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    """Return the matrix with its singular values brought near 1, those far below the largest less near.

    Newton-Schulz iterations: an odd polynomial of the matrix acts on its singular values alone. Each multiplies the
    matrix X by p(XXᵀ), along its shorter side. Where the other side is much longer, the p are multiplied with each
    other first, and X enters twice only: XXᵀ becomes p(XXᵀ)² XXᵀ by an iteration, as all these commute. Not in bf16,
    whose rounding these products add up.
    """
    wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp_min(torch.finfo(wide.dtype).tiny)
    rounded = torch.is_autocast_enabled(matrix.device.type)
    wide = _by_grams(wide) if _grams_pay(wide.shape) and not rounded else _by_turns(wide)
    return wide.mT if matrix.shape[0] > matrix.shape[1] else wide


def _by_turns(wide: Tensor) -> Tensor:
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = wide @ wide.mT
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide


def _by_grams(wide: Tensor) -> Tensor:
    a, b, c = _COEFFICIENTS
    gram, factors = wide @ wide.mT, []
    for iteration in range(_ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        factors.append(factor)
        if iteration < _ITERATIONS - 1:
            gram = factor @ (factor @ gram)
    product: Tensor = torch.linalg.multi_dot([*factors, wide])
    return product


def _grams_pay(shape: Sequence[int]) -> bool:
    """Tell whether `_by_grams` takes less: 4 i - 3 square products and 2 oblong ones, instead of i and 2 i."""
    short, long = sorted(shape)
    return long > 1.5 * short


def operations(shape: Sequence[int], precision: str) -> float:
    """Return the floating-point operations of a step for a matrix of `shape`, computed in "fp32" or "bf16"."""
    short, long = sorted(shape)
    square, oblong = 2.0 * short**3, 2.0 * short * short * long
    if _grams_pay(shape) and precision == "fp32":
        return (4 * _ITERATIONS - 3) * square + 2 * oblong
    return _ITERATIONS * (square + 2 * oblong)
