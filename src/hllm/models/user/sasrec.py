"""SASRec's user tier: a small causal transformer, trained from scratch; with other options, eSASRec's."""

# Proved by tests/models/test_user_tiers.py, tests/parity/test_sasrec.py.

import copy
from typing import Literal

from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from hllm.models.heads import RankingConfig
from hllm.models.kinds import UserContext, UserFacts, UserTierConfig
from hllm.models.language_model import Attention
from hllm.models.tiers import History, SuffixEncoder, at_last
from hllm.models.user.block import Activation, BlockShape, Dropout, Norm, TransformerBlock, check_heads
from hllm.models.user.positions import LearntPositions
from hllm.parts import Spec

Positions = Literal["start", "end", "rotary", "none"]


class SASRecConfig(UserTierConfig):
    """A user tier as in SASRec.

    eSASRec: inner = 4, activation = "swiglu", gated = true, bias = false, with a sampled softmax as its loss.
    HLLM's baseline: inner = 1, norm = "post", norm_eps = 1e-12, positions = "end" and final_norm = false.
    """

    kind: Literal["sasrec"] = "sasrec"
    dim: int = Field(default=128, ge=1)
    """Size of item and user embeddings."""
    num_layers: int = Field(default=2, ge=1)
    """Transformer blocks."""
    num_heads: int = Field(default=2, ge=1)
    """Attention heads in each block."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """On inputs, attention weights, the inner states of the feed-forward nets, and block outputs."""
    inner: int = Field(default=1, ge=1)
    """Width of the feed-forward nets, as a multiple of dim."""
    norm: Norm = "pre"
    """Layer norm of what attention and feed-forward nets read ("pre"), or of the sums behind them ("post")."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Added to variances in layer norms."""
    activation: Activation = "gelu"
    """Of the feed-forward nets. "swiglu" has half as many weights again."""
    gated: bool = False
    """Multiply what attention and feed-forward nets add by a learnt gate, as in LiGR."""
    bias: bool = True
    """Biases in attention and feed-forward nets; gates always have one."""
    positions: Positions = "start"
    """The signal that tells positions apart. "start", "end": learnt vectors, counted from the oldest or from the latest
    item read. "rotary": distances between items. "none": only the causal mask."""
    input_norm: bool = True
    """Layer norm of item plus position vectors, before the first block; learns several times faster."""
    final_norm: bool = True
    """Layer norm behind the last block."""

    @model_validator(mode="after")
    def _heads_fit(self) -> "SASRecConfig":
        check_heads(self.dim, self.num_heads, rotary=self.positions == "rotary")
        return self

    @override
    def check_ranking(self, ranking: RankingConfig | None) -> None:
        if ranking is not None and self.positions == "end":
            raise ValueError(
                'ranking needs user.positions = "start", "rotary" or "none": counted from the end, the positions of a '
                "history change with each candidate behind it"
            )


class SASRec(SuffixEncoder):
    """Causal transformer blocks over item embeddings plus position embeddings.

    Source: Kang & McAuley, arXiv:1808.09781, section 3; the variants of eSASRec, arXiv:2508.06450. Differs from the
    paper by default. Blocks have GELU and pre-norm, which train more steadily. The inputs pass a layer norm, where the
    authors' code multiplies item vectors by √dim. The loss is the project's InfoNCE instead of BCE with one negative,
    which is known to be the weaker choice (arXiv:2309.07602).
    """

    causal = True
    reads_times = False

    def __init__(self, config: SASRecConfig, *, max_history: int) -> None:
        super().__init__()
        self.dim = config.dim
        self.positions = (
            LearntPositions(max_history, config.dim, count_from=config.positions)
            if config.positions == "start" or config.positions == "end"
            else None
        )
        self.input_norm = nn.LayerNorm(config.dim, eps=config.norm_eps) if config.input_norm else nn.Identity()
        self.dropout = Dropout(config.dropout)
        block = TransformerBlock(
            BlockShape(
                dim=config.dim,
                num_heads=config.num_heads,
                causal=True,
                dropout=config.dropout,
                inner=config.inner,
                norm=config.norm,
                norm_eps=config.norm_eps,
                activation=config.activation,
                bias=config.bias,
                gated=config.gated,
                rotary=config.positions == "rotary",
            )
        )
        self.blocks = nn.ModuleList(copy.deepcopy(block) for _ in range(config.num_layers))  # alike, as in torch's
        self.final_norm = nn.LayerNorm(config.dim, eps=config.norm_eps) if config.final_norm else nn.Identity()
        self._attention = Attention(config.num_layers * config.dim, config.num_layers * config.num_heads)

    @property
    @override
    def attention(self) -> Attention:
        return self._attention

    @override
    def forward(self, history: History) -> Float[Tensor, "batch position dim"]:
        states = history.embeddings
        if self.positions is not None:
            states = states + self.positions(history.mask)
        states = self.dropout(self.input_norm(states))
        for block in self.blocks:
            states = block(states, history.mask)
        encoded: Tensor = self.final_norm(states)
        return encoded

    @override
    def with_suffixes(
        self, history: History, suffixes: Float[Tensor, "batch suffix dim"], anchors: Int[Tensor, "batch suffix"]
    ) -> tuple[Float[Tensor, "batch position dim"], Float[Tensor, "batch suffix dim"]]:
        states = history.embeddings
        if self.positions is not None:
            states = states + self.positions(history.mask)
            suffixes = suffixes + self.positions.at(anchors + 1)
        states, suffixes = (self.dropout(self.input_norm(part)) for part in (states, suffixes))
        for block in self.blocks:
            assert isinstance(block, TransformerBlock)
            states, suffixes = block.with_suffixes(states, history.mask, suffixes, anchors)
        return self.final_norm(states), self.final_norm(suffixes)

    @override
    def after(self, history: History) -> Float[Tensor, "batch dim"]:
        return at_last(self(history), history.mask)


def _build(config: SASRecConfig, context: UserContext) -> SASRec:
    return SASRec(config, max_history=context.max_positions)


SPEC = Spec(config=SASRecConfig, build=_build, facts=UserFacts(ranks=True))
