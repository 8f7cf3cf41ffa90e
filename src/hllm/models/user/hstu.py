"""HSTU's user tier: gated attention without a softmax, with biases by distance and by time."""

# Proved by tests/models/test_user_tiers.py, tests/parity/test_hstu.py.

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from hllm.models.kinds import UserContext, UserFacts, UserTierConfig
from hllm.models.language_model import Attention
from hllm.models.tiers import History, UserEncoder, at_last
from hllm.models.user.block import Dropout, check_heads
from hllm.models.user.positions import LearntPositions
from hllm.parts import Spec

_TIME_BUCKETS = 128
_BUCKET_WIDTH = 0.301  # in natural logarithms of seconds: each bucket reaches 1.35 times as far as the one before
_NORM_EPS = 1e-6

Positions = Literal["start", "end", "none"]


class HSTUConfig(UserTierConfig):
    """A user tier as in HSTU.

    HLLM's baseline has neither bias: relative_bias = false.
    """

    kind: Literal["hstu"] = "hstu"
    dim: int = Field(default=128, ge=1)
    """Size of item and user embeddings."""
    num_layers: int = Field(default=2, ge=1)
    """Layers."""
    num_heads: int = Field(default=2, ge=1)
    """Attention heads in each layer."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """On the gated states, before the last linear map of each layer."""
    positions: Positions = "end"
    """Learnt vectors added to the inputs, counted from the oldest ("start") or from the latest item read ("end")."""
    relative_bias: bool = True
    """Add a learnt number for each distance between two items to their attention."""
    time_bias: bool = False
    """Add a learnt number for the time between two items, in logarithmic steps; the data must have times."""

    @model_validator(mode="after")
    def _heads_fit(self) -> "HSTUConfig":
        check_heads(self.dim, self.num_heads)
        return self


class HSTU(UserEncoder):
    """Hierarchical sequential transduction units over item embeddings.

    Source: Zhai et al., arXiv:2402.17152, section 3. Attention is divided by `max_history`, as in the reference,
    whatever the length. Differs from the public code: the time of the item to come is not known when scoring, so the
    time of the position that reads takes its place.
    """

    causal = True

    def __init__(self, config: HSTUConfig, *, max_history: int) -> None:
        super().__init__()
        self.dim = config.dim
        self.reads_times = config.time_bias
        self.positions = (
            None
            if config.positions == "none"
            else LearntPositions(max_history, config.dim, count_from=config.positions)
        )
        self.layers = nn.ModuleList(
            HSTULayer(
                config.dim,
                config.num_heads,
                dropout=config.dropout,
                max_history=max_history,
                relative_bias=config.relative_bias,
                time_bias=config.time_bias,
            )
            for _ in range(config.num_layers)
        )
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
        buckets = time_buckets(history.times) if self.reads_times else None
        for layer in self.layers:
            states = layer(states, buckets)
        return states

    @override
    def after(self, history: History) -> Float[Tensor, "batch dim"]:
        return at_last(self(history), history.mask)


class HSTULayer(nn.Module):
    """One unit: attention and what it gathers, gated by a function of the position itself, plus a residual.

    Source: arXiv:2402.17152, equations 1 to 3.
    """

    def __init__(
        self, dim: int, num_heads: int, *, dropout: float, max_history: int, relative_bias: bool, time_bias: bool
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.max_history = max_history
        self.inputs = nn.Linear(dim, 4 * dim, bias=False)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(dim, dim)
        self.distance_bias = nn.Parameter(torch.randn(max_history) * 0.02) if relative_bias else None
        self.time_bias = nn.Parameter(torch.randn(_TIME_BUCKETS) * 0.02) if time_bias else None
        nn.init.normal_(self.inputs.weight, std=0.02)
        nn.init.xavier_uniform_(self.output.weight)

    def forward(
        self,
        states: Float[Tensor, "batch position dim"],
        buckets: Int[Tensor, "batch position position"] | None,
    ) -> Float[Tensor, "batch position dim"]:
        """Return the states after this layer; `buckets` are those of `time_buckets`."""
        normed = F.layer_norm(states, states.shape[-1:], eps=_NORM_EPS)
        gate, *parts = F.silu(self.inputs(normed)).chunk(4, dim=-1)
        values, queries, keys = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        # Padding is on the right, so the causal mask hides it from every real position.
        causal = torch.ones(states.shape[1], states.shape[1], device=states.device).tril() / self.max_history
        logits = queries @ keys.transpose(-1, -2)  # (batch, head, position, position)
        bias = self._bias(states.shape[1], buckets)
        weights = F.silu(logits if bias is None else logits + bias) * causal
        gathered = (weights.to(values.dtype) @ values).transpose(1, 2).flatten(2)
        gated = gate * F.layer_norm(gathered, gathered.shape[-1:], eps=_NORM_EPS)
        output: Tensor = states + self.output(self.dropout(gated))
        return output

    def _bias(self, length: int, buckets: Tensor | None) -> Tensor | None:
        """Return what is added to the logits of all heads."""
        # index_select has the fastest gradient on a CPU: an embedding's takes 20 times as long here.
        bias = None
        if self.distance_bias is not None:
            position = torch.arange(length, device=self.distance_bias.device)
            distance = (position[:, None] - position).clamp(min=0)  # the future is masked anyway
            bias = self.distance_bias.index_select(0, distance.flatten()).view(length, length)
        if self.time_bias is not None and buckets is not None:
            by_time = self.time_bias.index_select(0, buckets.flatten()).view_as(buckets)[:, None]  # one for all heads
            bias = by_time if bias is None else bias + by_time
        return bias


def time_buckets(times: Int[Tensor, "batch position"]) -> Int[Tensor, "batch position position"]:
    """Return floor(ln(seconds between two items) / 0.301) for each pair, from 0 (up to a second) to 127.

    Source: the public code of arXiv:2402.17152.
    """
    seconds = (times[:, :, None] - times[:, None, :]).abs().clamp(min=1)
    return (seconds.float().log() / _BUCKET_WIDTH).long().clamp(max=_TIME_BUCKETS - 1)


def _build(config: HSTUConfig, context: UserContext) -> HSTU:
    return HSTU(config, max_history=context.max_history)


SPEC = Spec(config=HSTUConfig, build=_build, facts=UserFacts())
