"""Muon: an optimizer for the matrices of a network's layers, with steps as large in one direction as in another."""

from collections.abc import Iterable
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

    Newton-Schulz iterations: an odd polynomial of the matrix acts on its singular values alone.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp_min(torch.finfo(wide.dtype).tiny)
    for _ in range(_ITERATIONS):
        gram = wide @ wide.mT
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.mT if matrix.shape[0] > matrix.shape[1] else wide


def operations(shape: tuple[int, ...]) -> float:
    """Return the floating-point operations of a step for a matrix of `shape`."""
    short, long = sorted(shape)
    return _ITERATIONS * (4.0 * short * short * long + 2.0 * short**3)
