"""BERT4Rec's user tier: a transformer that reads both ways and fills in masked positions."""

# Proved by tests/models/test_user_tiers.py.

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from hllm.models.kinds import UserContext, UserFacts, UserTierConfig
from hllm.models.language_model import Attention
from hllm.models.tiers import History, MaskingEncoder, at_last
from hllm.models.user.block import BlockShape, Dropout, Norm, TransformerBlock, check_heads
from hllm.models.user.positions import LearntPositions
from hllm.parts import Spec


class BERT4RecConfig(UserTierConfig):
    """A user tier as in BERT4Rec; it is trained by the masked-item objective."""

    kind: Literal["bert4rec"] = "bert4rec"
    dim: int = Field(default=128, ge=1)
    """Size of item and user embeddings."""
    num_layers: int = Field(default=2, ge=1)
    """Transformer blocks."""
    num_heads: int = Field(default=2, ge=1)
    """Attention heads in each block."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """On inputs, attention weights, the inner states of the feed-forward nets, and block outputs."""
    inner: int = Field(default=4, ge=1)
    """Width of the feed-forward nets, as a multiple of dim."""
    norm: Norm = "pre"
    """Layer norm of what attention and feed-forward nets read ("pre"), or of the sums behind them ("post")."""
    positions: Literal["start", "end"] = "start"
    """Whether learnt position vectors are counted from the oldest or from the latest item read."""
    input_norm: bool = True
    """Layer norm of item plus position vectors, before the first block, as in BERT."""

    @model_validator(mode="after")
    def _heads_fit(self) -> "BERT4RecConfig":
        check_heads(self.dim, self.num_heads)
        return self


class BERT4Rec(MaskingEncoder):
    """Bidirectional blocks; the state at a masked position tells the item that is missing there.

    A training window has one item more than the longest history, which is the room that `after` needs for [MASK].

    Source: Sun et al., arXiv:1904.06690, sections 3.3 to 3.6. Differs from the paper: pre-norm blocks by default,
    and no bias for each item, so that items can come from text.
    """

    causal = False
    reads_times = False

    def __init__(self, config: BERT4RecConfig, *, max_history: int) -> None:
        super().__init__()
        self.dim = config.dim
        self.mask_vector = nn.Parameter(torch.randn(config.dim) * 0.02)
        self.positions = LearntPositions(max_history + 1, config.dim, count_from=config.positions)
        self.input_norm = nn.LayerNorm(config.dim) if config.input_norm else nn.Identity()
        self.dropout = Dropout(config.dropout)
        shape = BlockShape(
            dim=config.dim,
            num_heads=config.num_heads,
            causal=False,
            dropout=config.dropout,
            inner=config.inner,
            norm=config.norm,
        )
        self.blocks = nn.ModuleList(TransformerBlock(shape) for _ in range(config.num_layers))
        self.output = nn.Sequential(nn.Linear(config.dim, config.dim), nn.GELU(), nn.LayerNorm(config.dim))
        self._attention = Attention(config.num_layers * config.dim, config.num_layers * config.num_heads)

    @property
    @override
    def attention(self) -> Attention:
        return self._attention

    @override
    def masked(self, history: History, chosen: Bool[Tensor, "batch position"]) -> History:
        vector = self.mask_vector.to(history.embeddings.dtype)
        return replace(history, embeddings=torch.where(chosen[..., None], vector, history.embeddings))

    @override
    def forward(self, history: History) -> Float[Tensor, "batch position dim"]:
        """Encode the history as given, up to max_history + 1 items; what is not masked sees itself."""
        states = self.dropout(self.input_norm(history.embeddings + self.positions(history.mask)))
        for block in self.blocks:
            states = block(states, history.mask)
        encoded: Tensor = self.output(states)
        return encoded

    @override
    def after(self, history: History) -> Float[Tensor, "batch dim"]:
        """Return the states at a [MASK] behind each row's last item."""
        widened = History(*(torch.cat([part, part[:, -1:]], dim=1) for part in vars(history).values()))
        position = torch.arange(widened.mask.shape[1], device=widened.mask.device)
        lengths = history.mask.sum(-1, keepdim=True)
        masked = self.masked(replace(widened, mask=position <= lengths), position == lengths)
        return at_last(self(masked), masked.mask)


def _build(config: BERT4RecConfig, context: UserContext) -> BERT4Rec:
    return BERT4Rec(config, max_history=context.max_history)


SPEC = Spec(config=BERT4RecConfig, build=_build, facts=UserFacts(reads_both_ways=True))
