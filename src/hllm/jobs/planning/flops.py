"""Count what a model's tiers cost in floating-point operations and in memory, from their shapes alone.

A multiplication and an addition are two operations. Norms, activations and softmax are not counted: they are few
operations, though not little time. Works on outlines (models on the meta device).

Source: Kaplan et al., arXiv:2001.08361, section 2.1 (2 operations a weight and position); attention as in Llama.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from torch import nn

from hllm.models.backbone.backbone import Backbone
from hllm.models.language_model import Attention, attention_of
from hllm.models.recommender import SequentialRecommender

Lengths = Shaped[np.ndarray, " sequence"]

# Bytes that each value in or out of a linear map keeps for the backward pass, with all that happens between two maps.
# Measured on two layers in the shapes of SmolLM2 and TinyLlama: 4.6 (fp32) and 3.2 (bf16 autocast); BERT needs a
# quarter less. Attention that is not fused also keeps 4 to 6 bytes for each head and pair of positions.
_BYTES_PER_LINEAR_VALUE = {"fp32": 4.6, "bf16": 3.2}
_BYTES_PER_ATTENTION_WEIGHT = 5.0
_NO_ATTENTION = Attention()


@dataclass(frozen=True)
class NetworkCost:
    """The cost of running a network over sequences and of training it."""

    weights: int
    """Entries of the matrices that every position is multiplied by."""
    trained_weights: int
    """Entries that learn."""
    attention_width: int
    """Width of all heads of all layers together."""
    attention_heads: int
    """Heads of all layers together."""
    causal: bool
    """Whether a position needs only itself and those before it, which halves the attention."""
    linear_values: int
    """Sizes of inputs and outputs of all linear maps together, for one position."""

    def forward(self, lengths: Lengths) -> float:
        """Return the operations for sequences of these lengths: 2 N T + 4 L d T², or 2 L d T² where causal."""
        pairs = (2 if self.causal else 4) * self.attention_width * float(np.square(lengths, dtype=np.float64).sum())
        return 2 * self.weights * float(lengths.sum()) + pairs

    def backward(self, lengths: Lengths) -> float:
        """Return the operations of the gradients of inputs and of trained weights; twice `forward` if all learn."""
        unchanged = 2 * (self.weights - self.trained_weights) * float(lengths.sum())
        return 2 * self.forward(lengths) - unchanged

    def activation_bytes(self, lengths: Lengths, precision: str, *, fused_attention: bool) -> float:
        """Return roughly what is kept from the forward to the backward pass."""
        values = _BYTES_PER_LINEAR_VALUE[precision] * self.linear_values * float(lengths.sum())
        if not fused_attention:
            pairs = float(np.square(lengths, dtype=np.float64).sum())
            values += _BYTES_PER_ATTENTION_WEIGHT * self.attention_heads * pairs
        return values


def item_cost(model: SequentialRecommender) -> NetworkCost:
    """Return the cost of the item tier's language model; nothing for ids and cached vectors."""
    reader = model.item_encoder.reader
    return _cost([]) if reader is None else backbone_cost(reader.backbone)


def backbone_cost(backbone: Backbone) -> NetworkCost:
    """Return the cost of a language model by itself."""
    return _cost([backbone], attention_of(backbone), causal=backbone.causal)


def projector_cost(model: SequentialRecommender) -> NetworkCost:
    """Return the cost of what maps one vector of an item to the user tier's width: one "position" for each item."""
    projector = model.item_encoder.projection
    return _cost([projector] if projector is not None else [])


def user_cost(model: SequentialRecommender) -> NetworkCost:
    """Return the cost of the user tier, with what is added to its inputs."""
    encoder = model.user_encoder
    parts = [encoder, *([model.fusion] if model.fusion is not None else [])]
    return _cost(parts, encoder.attention, causal=encoder.causal)


def _cost(parts: list[nn.Module], attention: Attention = _NO_ATTENTION, *, causal: bool = True) -> NetworkCost:
    matrices = [
        parameter
        for part in parts
        for module in part.modules()
        if not isinstance(module, nn.Embedding)
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 2 and "weight" in name  # not vectors of inputs, such as [ITEM]
    ]
    return NetworkCost(
        weights=sum(matrix.numel() for matrix in matrices),
        trained_weights=sum(matrix.numel() for matrix in matrices if matrix.requires_grad),
        attention_width=attention.width,
        attention_heads=attention.heads,
        causal=causal,
        linear_values=sum(sum(matrix.shape) for matrix in matrices),
    )
