"""Norms on a CPU under bf16 autocast: read and written once, and with a backward pass of few passes over memory.

The norms themselves are transformers' own; what is computed is the same. Trials with and without, in turns, forward and
backward: RMS norms, two decoder layers in the shape of SmolLM2, 64 x 50 positions, one AMX core: 1.10 times as fast;
layer norms, three layers of MiniLM, 964 titles, two AMX cores: 1.06 and 1.19 times.
"""

from typing import Any

import torch
from torch import Tensor, nn

_NORMS = ("input_layernorm", "post_attention_layernorm")


class _RMSNorm(torch.autograd.Function):
    """x / rms(x) · weight. Source: Zhang & Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        square: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        scale = square.div_(x.shape[-1]).add_(eps).rsqrt_()  # 1 / rms, (…, 1)
        ctx.save_for_backward(x, scale, weight)
        normed: Tensor = (x * scale).mul_(weight)
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """Take the layer norm's backward pass with a mean of 0, and put back what it takes out for its own mean."""
        x, scale, weight = ctx.saved_tensors
        (gradient,) = gradients
        width = x.shape[-1]
        of_x, of_weight, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, [width], torch.zeros_like(scale), scale, weight, None, [True, ctx.needs_input_grad[1], False]
        )
        of_x.addcmul_(scale, (gradient @ weight)[..., None], value=1 / width)
        return of_x, of_weight, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x²) + eps) · weight, over the last dimension."""
    normed: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return normed


class _FasterRMSNorm:
    """Put before a norm's class: takes over where the norm's output goes into products in bf16 on a CPU."""

    weight: Tensor
    variance_epsilon: float

    def forward(self, hidden: Tensor) -> Tensor:
        if _in_bf16(hidden) and hidden.dtype == torch.float32:
            # Its readers would each cast it: autocast keeps copies of weights only.
            return rms_norm(hidden, self.weight, self.variance_epsilon).to(torch.get_autocast_dtype("cpu"))
        normed: Tensor = super().forward(hidden)  # type: ignore[misc]
        return normed


class _FasterLayerNorm:
    """Put before nn.LayerNorm: autocast would read a bf16 copy in fp32 and write fp32, for each reader to cast.

    It computes in fp32 here too, inside. Where sums are normalised, as in BERT, the next sums are of bf16 numbers.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        if not _in_bf16(hidden):
            normed: Tensor = super().forward(hidden)  # type: ignore[misc]
            return normed
        with torch.autocast("cpu", enabled=False):
            normed = super().forward(hidden)  # type: ignore[misc]
        return normed.to(torch.get_autocast_dtype("cpu"))


def _in_bf16(hidden: Tensor) -> bool:
    return hidden.device.type == "cpu" and torch.is_autocast_enabled("cpu")


@torch.no_grad()
def speed_up_norms(network: nn.Module) -> None:
    """Let the norms inside a network's layers take the faster way. Parameters and their names stay.

    Layer norms do, and those before attention and feed-forward nets whose class computes the plain RMS norm, as is seen
    on an example.
    """
    for stack in (module for module in network.modules() if isinstance(module, nn.ModuleList)):
        for module in stack.modules():
            if type(module) is nn.LayerNorm:
                module.__class__ = type("FasterLayerNorm", (_FasterLayerNorm, nn.LayerNorm), {})
    layers = getattr(network, "layers", None)
    for layer in layers if isinstance(layers, nn.ModuleList) else ():
        for norm in (getattr(layer, name, None) for name in _NORMS):
            if isinstance(norm, nn.Module) and hasattr(norm, "variance_epsilon") and _is_plain(norm):
                norm.__class__ = type(f"Faster{type(norm).__name__}", (_FasterRMSNorm, type(norm)), {})


def _is_plain(norm: Any) -> bool:
    if norm.weight.is_meta:
        return False
    example = torch.randn(4, len(norm.weight), generator=torch.Generator().manual_seed(0))
    expected = rms_norm(example, norm.weight, norm.variance_epsilon)
    return torch.allclose(norm(example), expected, rtol=1e-5, atol=1e-6)
