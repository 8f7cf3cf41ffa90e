"""LoRA: a backbone's weights stay as they are, and low-rank additions to its linear maps are trained instead."""

import copy
from typing import Any, Literal, TypeVar

from pydantic import Field
from torch import nn

from hllm.config import Config
from hllm.errors import ConfigError
from hllm.extras import require
from hllm.models.backbone.backbone import Backbone

_ATTENTION = ("attn", "attention")  # in the name of every known network's attention: self_attn, attn, attention

Model = TypeVar("Model", bound=nn.Module)


class LoraConfig(Config):
    """Low-rank additions to a language model that stays as it is; without this table its own weights are trained."""

    rank: int = Field(default=8, ge=1)
    """Inner size of each addition: a map of n × m weights gets rank × (n + m) that are trained."""
    alpha: float = Field(default=16.0, gt=0)
    """The addition is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On what enters an addition, in training. Above 0, an item's vector in training differs from the cached one."""
    targets: Literal["attention", "all-linear"] = "attention"
    """The linear maps that get an addition: those of the attention, or all."""


def add_lora(backbone: Backbone, config: LoraConfig) -> None:
    """Freeze the network of `backbone` and add trainable maps to it, in place; its outputs stay as they were.

    Raises MissingExtraError without peft, ConfigError for a network without such maps.

    Source: LoRA, arXiv:2106.09685, section 4.1: W x + (alpha / rank) B A x, with B = 0 at first.
    """
    peft: Any = require("peft", extra="lora", purpose="Training low-rank additions (lora)")
    maps = backbone.linear_maps()
    if config.targets == "attention":
        maps = {name: module for name, module in maps.items() if any(word in name for word in _ATTENTION)}
    if not maps:
        raise ConfigError(
            f"lora: {backbone.config.model_type!r} has no linear maps in modules named for attention; "
            'set targets = "all-linear"'
        )
    transposed = not all(isinstance(module, nn.Linear) for module in maps.values())  # GPT-2 stores its maps so
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(maps),
        fan_in_fan_out=transposed,
    )
    peft.inject_adapter_in_model(settings, backbone.network)


def merge_lora(model: Model) -> Model:
    """Return a copy of `model` in which each addition is part of the map it belongs to.

    Its outputs are the same but for rounding; its weights have the names and shapes of a model without LoRA.
    """
    merged = copy.deepcopy(model)
    for name, module in list(merged.named_modules()):
        if hasattr(module, "base_layer") and hasattr(module, "merge"):
            module.merge()
            parent, _, last = name.rpartition(".")
            setattr(merged.get_submodule(parent), last, module.base_layer)
    return merged
