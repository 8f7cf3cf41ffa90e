"""Keep weights in bf16 or int8, for a copy that takes a fraction of the disk; they are read back in fp32."""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int8, Shaped
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hllm.errors import CheckpointError, first_few

Weights = Literal["fp32", "bf16", "int8"]
WEIGHTS: tuple[Weights, ...] = ("fp32", "bf16", "int8")
_STEPS = 127


def save_part(module: nn.Module, path: Path, name: str, weights: Weights, *, leave_out: set[str]) -> None:
    """Write `name`.safetensors with a module's tensors, but those named in `leave_out`.

    The weights of linear maps, embeddings and recurrent nets are kept in `weights`, all else (norms, biases, [ITEM]
    vectors, statistics) in fp32. Of int8 weights, `name`.scales.safetensors has the steps under the same names.
    """
    state = {key: value.detach().cpu() for key, value in module.state_dict().items() if key not in leave_out}
    scales: dict[str, Tensor] = {}
    for key, axis in _channels(module).items():
        if key in state and weights == "bf16":
            state[key] = state[key].bfloat16()
        elif key in state and weights == "int8":
            state[key], scales[key] = to_int8(state[key], axis)
    save_file({key: value.contiguous() for key, value in state.items()}, path / f"{name}.safetensors")
    if weights == "int8":
        save_file(scales, path / f"{name}.scales.safetensors")


def load_part(path: Path, name: str, weights: Weights) -> dict[str, Tensor]:
    """Read what `save_part` wrote, with all weights in fp32.

    Published weights may be bf16 in a checkpoint that counts as fp32: training began with them. Raises CheckpointError
    if int8 is where `weights` does not say so or the other way round, or has no fitting scales.
    """
    state, file = load_file(path / f"{name}.safetensors"), path / f"{name}.scales.safetensors"
    found = {_NAMES[value.dtype] for value in state.values() if value.dtype in _NAMES}
    if found - {"int8" if weights == "int8" else "bf16"} or file.is_file() != (weights == "int8"):
        beside = "with" if file.is_file() else "without"
        raise CheckpointError(
            f"{path} says that its weights are in {weights}, but {name}.safetensors holds "
            f"{', '.join(sorted(found)) or 'fp32'} {beside} scales; make the export again"
        )
    scales = load_file(file) if weights == "int8" else {}
    if wrong := [key for key in {*state, *scales} if not _fits(state.get(key), scales.get(key))]:
        raise CheckpointError(
            f"{file}: {len(wrong)} scales do not fit the weights; first: {first_few(sorted(wrong))}; make the export "
            "again"
        )
    return {key: from_int8(v, scales[key]) if key in scales else _widened(v) for key, v in state.items()}


def to_int8(
    weight: Float[Tensor, "row column"], axis: int
) -> tuple[Int8[Tensor, "row column"], Float[Tensor, "#row #column"]]:
    """Return a matrix in whole steps from -127 to 127, and the size of a step for each output channel.

    The channels lie along `axis`. A step is the channel's largest absolute weight divided by 127. So no weight is off
    by more than half a step: this is symmetric quantisation without a zero point. A channel of zeros stays one.
    """
    scale = weight.float().abs().amax(1 - axis, keepdim=True) / _STEPS
    steps = torch.where(scale > 0, weight.float() / scale, 0.0)
    return steps.round().clamp(-_STEPS, _STEPS).to(torch.int8), scale


def from_int8(steps: Int8[Tensor, "row column"], scale: Float[Tensor, "#row #column"]) -> Float[Tensor, "row column"]:
    """Return the matrix that `to_int8` was given, in fp32, rounded to whole steps."""
    return steps.float() * scale


_NAMES = {torch.bfloat16: "bf16", torch.int8: "int8"}


def _channels(module: nn.Module) -> dict[str, int]:
    """Return the names of the weights that may be compacted, and the axis of their output channels."""
    axes: dict[str, int] = {}
    for place, part in module.named_modules():
        names = []
        if isinstance(part, nn.Linear | nn.Embedding | Conv1D):
            names = ["weight"]
        elif isinstance(part, nn.RNNBase):
            names = [name for name, _ in part.named_parameters(recurse=False) if name.startswith("weight_")]
        axis = 1 if isinstance(part, Conv1D) else 0  # GPT-2 stores its maps transposed
        axes |= {f"{place}.{name}" if place else name: axis for name in names}
    return axes


def _fits(value: Shaped[Tensor, "..."] | None, scale: Shaped[Tensor, "..."] | None) -> bool:
    if value is None or value.dtype != torch.int8:
        return value is not None and scale is None
    if scale is None or scale.dtype != torch.float32 or value.ndim != 2:
        return False
    shapes = ((len(value), 1), (1, value.shape[1]))
    return tuple(scale.shape) in shapes and bool((torch.isfinite(scale) & (scale >= 0)).all())


def _widened(value: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    return value.float() if value.dtype == torch.bfloat16 else value
