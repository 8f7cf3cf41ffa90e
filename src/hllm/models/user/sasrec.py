"""SASRec's user tier: a small causal transformer with learnt positions, trained from scratch."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from hllm.config import Config
from hllm.models.tiers import History, UserEncoder, at_last


class SASRecConfig(Config):
    """A user tier as in SASRec."""

    kind: Literal["sasrec"] = "sasrec"
    dim: int = Field(default=128, ge=1)
    """Size of item and user embeddings."""
    num_layers: int = Field(default=2, ge=1)
    """Transformer blocks."""
    num_heads: int = Field(default=2, ge=1)
    """Attention heads in each block."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """On inputs, attention weights and block outputs."""

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "SASRecConfig":
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        return self


class SASRec(UserEncoder):
    """Causal transformer blocks over item embeddings plus position embeddings.

    Source: Kang & McAuley, arXiv:1808.09781, section 3. Differs from the paper: GELU and pre-norm blocks, which
    train more steadily; the loss is the project's InfoNCE instead of BCE with one negative, which is known to be
    the weaker choice (arXiv:2309.07602).
    """

    causal = True
    reads_times = False

    def __init__(self, *, dim: int, num_layers: int, num_heads: int, dropout: float, max_history: int) -> None:
        super().__init__()
        self.positions = nn.Embedding(max_history, dim)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        block = nn.TransformerEncoderLayer(
            dim, num_heads, dim, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, num_layers, norm=nn.LayerNorm(dim), enable_nested_tensor=False)

    @override
    def forward(self, history: History) -> Float[Tensor, "batch position dim"]:
        length = history.embeddings.shape[1]
        states = self.dropout(history.embeddings + self.positions.weight[:length])
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=states.device, dtype=torch.float32)
        encoded: Tensor = self.blocks(states, mask=causal, is_causal=True)
        return encoded

    @override
    def after(self, history: History) -> Float[Tensor, "batch dim"]:
        return at_last(self(history), history.mask)
