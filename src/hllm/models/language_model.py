"""The language model of a tier: its name in the settings, its opening, and the size of its attention."""

# Proved by tests/models/backbone/test_backbone.py.

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hllm.models.backbone.backbone import Backbone, load_backbone
from hllm.models.backbone.directory import has_weights, read_headers
from hllm.models.backbone.lora import LoraConfig, add_lora
from hllm.sources.language_models import resolve_backbone, resolve_shape

NetworkWeights = Mapping[str, Tensor]
"""A language model's tensors by its own names for them."""


@dataclass(frozen=True)
class LanguageModel:
    """The language model that a tier's settings name."""

    backbone: str
    """A name that `hllm model fetch` knows, or a directory."""
    num_layers: int | None
    """Layers kept, the first ones; None keeps all."""
    pretrained: bool
    """False takes its shape alone."""
    lora: LoraConfig | None
    """Low-rank additions that are trained in place of the weights."""
    needs_files: bool
    """Whether its directory must be at hand: for weights, or for a tokenizer. Else a known shape is enough."""

    def open(self, base: Path, weights: NetworkWeights | None, *, fast: bool) -> Backbone:
        """Return the network, on the meta device in shape alone; paths start at `base`.

        `weights`, where given, take the place of those in its directory. `fast` = False opens the stock network.
        """
        outline = torch.get_default_device().type == "meta"
        resolve = resolve_backbone if self.needs_files and not outline else resolve_shape
        source = resolve(self.backbone, base)
        if outline and self.pretrained and isinstance(source, Path) and has_weights(source):
            read_headers(source)  # so that a plan says what training would say
        backbone = load_backbone(
            source,
            num_layers=self.num_layers,
            pretrained=self.pretrained and not outline,
            weights=weights,
            fast=fast,
        )
        if self.lora is not None:
            add_lora(backbone, self.lora)
        return backbone


@dataclass(frozen=True)
class Attention:
    """The size of a network's attention, which its weights do not tell: of all layers and heads together."""

    width: int = 0
    heads: int = 0


def attention_of(backbone: Backbone) -> Attention:
    """Return the size of a language model's attention."""
    config = backbone.config
    heads, layers = int(config.num_attention_heads), int(config.num_hidden_layers)
    head_width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Attention(width=layers * heads * head_width, heads=layers * heads)
