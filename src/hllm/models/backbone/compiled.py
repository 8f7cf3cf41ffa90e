"""The layers of language models by torch.compile: what is done by element takes few passes over memory.

The compiler stops at attention over rows and at kept keys and values, and goes on behind them. Layers of one class
share what it makes, however many they are, and so do sequences of all lengths.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hllm.errors import ConfigError
from hllm.models.backbone import rows
from hllm.models.backbone.backbone import Backbone
from hllm.models.backbone.key_values import LayerCache
from hllm.models.backbone.last_layer import ends_early

_VARIANTS = 64
"""Most that are made of one function: each tier with and without gradients, behind a prefix and without, …"""


def compile_layers(model: nn.Module, device: torch.device, *, backend: str | Callable[..., Any] = "inductor") -> None:
    """Let torch compile the layers of every backbone in a model when they first run; parameters and names stay.

    Raises ConfigError where torch cannot compile for the device, as an example shows.
    """
    _leave_out()
    try:
        torch.compile(_example, backend=backend)(torch.ones(8, device=device))
    except RuntimeError as error:
        reason = " ".join(str(error).partition("\n\n")[0].split())
        raise ConfigError(
            f"compile = true, but torch.compile does not work here: {reason}. It needs a C++ compiler (g++), on CUDA "
            "Triton too; install what is missing, or leave compile out"
        ) from None
    for backbone in (module for module in model.modules() if isinstance(module, Backbone)):
        for layer in _layers(backbone.network):
            layer.compile(dynamic=True, backend=backend)
        backbone.compiled = True


def _example(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.sin() + 1


def _layers(network: nn.Module) -> list[nn.Module]:
    """Return the layers, but for one that may end early: it asks its thread where, which no graph can hold."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    modules = network.modules()
    return [module for module in modules if isinstance(module, GradientCheckpointingLayer) and not ends_early(module)]


def _leave_out() -> None:
    """Tell the compiler, for all of the process, where to stop and what not to make again for each layer.

    Again for each model: loading one that reads rows puts `attend` back as it was.
    """
    from transformers import AttentionInterface

    config: Any = torch.compiler.config
    config.allow_unspec_int_on_nn_module = True  # a layer's number
    config.recompile_limit = max(config.recompile_limit, _VARIANTS)
    LayerCache.update = torch.compiler.disable(LayerCache.update)  # type: ignore[method-assign]
    AttentionInterface.register(rows.NAME, torch.compiler.disable(rows.attend))
