"""The transformer block of the small user tiers: self-attention and feed-forward, with the variants in use."""

# Proved by tests/models/test_user_tiers.py.

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hllm.models.user.positions import rotated

Norm = Literal["pre", "post"]
Activation = Literal["gelu", "relu", "swiglu"]


def check_heads(dim: int, num_heads: int, *, rotary: bool = False) -> None:
    """Raise ValueError unless `dim` splits into heads, of an even size where they are to be rotated."""
    if dim % num_heads:
        raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
    if rotary and dim // num_heads % 2:
        raise ValueError(
            f'positions = "rotary" turns pairs of coordinates, but dim {dim} / num_heads {num_heads} = '
            f"{dim // num_heads} is odd: choose another num_heads"
        )


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """The sizes and variants of a transformer block."""

    dim: int
    num_heads: int
    causal: bool
    """Whether a position reads only itself and those before it."""
    dropout: float
    inner: int = 1
    """Width of the feed-forward net, as a multiple of `dim`."""
    norm: Norm = "pre"
    norm_eps: float = 1e-5
    activation: Activation = "gelu"
    bias: bool = True
    gated: bool = False
    rotary: bool = False


class TransformerBlock(nn.Module):
    """Self-attention, then a feed-forward net, each with a residual, dropout and a layer norm.

    `norm` "pre" normalises what a part reads, "post" what comes out of the residual. `gated` multiplies what a part
    adds by sigmoid(linear(its input before the norm)).

    Source: arXiv:1706.03762, section 3 ("post"); arXiv:2002.04745 ("pre"); arXiv:2502.03417, LiGR (`gated`).
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        dim, dropout = shape.dim, shape.dropout
        self.norm = shape.norm
        self.dropout = Dropout(dropout)
        self.attention = SelfAttention(
            dim, shape.num_heads, causal=shape.causal, dropout=dropout, bias=shape.bias, rotary=shape.rotary
        )
        self.feed_forward = FeedForward(dim, shape.inner * dim, shape.activation, dropout=dropout, bias=shape.bias)
        self.attention_norm = nn.LayerNorm(dim, eps=shape.norm_eps)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=shape.norm_eps)
        self.attention_gate = nn.Linear(dim, dim) if shape.gated else None
        self.feed_forward_gate = nn.Linear(dim, dim) if shape.gated else None

    def forward(
        self, states: Float[Tensor, "batch position dim"], mask: Bool[Tensor, "batch position"]
    ) -> Float[Tensor, "batch position dim"]:
        """Return the states after this block; histories are padded on the right."""
        states = self._add(
            states, lambda inputs: self.attention(inputs, mask), self.attention_norm, self.attention_gate
        )
        return self._add(states, self.feed_forward, self.feed_forward_norm, self.feed_forward_gate)

    def with_suffixes(
        self,
        states: Float[Tensor, "batch position dim"],
        mask: Bool[Tensor, "batch position"],
        suffixes: Float[Tensor, "batch suffix dim"],
        anchors: Int[Tensor, "batch suffix"],
    ) -> tuple[Float[Tensor, "batch position dim"], Float[Tensor, "batch suffix dim"]]:
        """Return both kinds of states after this block; see `SuffixEncoder`."""
        read = self.attention_norm(states) if self.norm == "pre" else states
        suffixes = self._add(
            suffixes, lambda own: self.attention.after(own, read, anchors), self.attention_norm, self.attention_gate
        )
        suffixes = self._add(suffixes, self.feed_forward, self.feed_forward_norm, self.feed_forward_gate)
        return self(states, mask), suffixes

    def _add(
        self, states: Tensor, part: Callable[[Tensor], Tensor], norm: nn.LayerNorm, gate: nn.Linear | None
    ) -> Tensor:
        pre = self.norm == "pre"
        change: Tensor = self.dropout(part(norm(states) if pre else states))
        if gate is not None:
            change = torch.sigmoid(gate(states)) * change
        states = states + change
        normed: Tensor = states if pre else norm(states)
        return normed


class SelfAttention(nn.Module):
    """Multi-head attention of every position to all real ones, or to itself and those before it.

    Source: arXiv:1706.03762, section 3.2.
    """

    def __init__(
        self, dim: int, num_heads: int, *, causal: bool, dropout: float, bias: bool = True, rotary: bool = False
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads, rotary=rotary)
        self.num_heads = num_heads
        self.causal = causal
        self.rotary = rotary
        self.dropout = Dropout(dropout)
        self.queries_keys_values = nn.Linear(dim, 3 * dim, bias=bias)
        self.output = nn.Linear(dim, dim, bias=bias)
        nn.init.xavier_uniform_(self.queries_keys_values.weight)
        for linear in (self.queries_keys_values, self.output):
            if bias:
                nn.init.zeros_(linear.bias)

    def forward(
        self, states: Float[Tensor, "batch position dim"], mask: Bool[Tensor, "batch position"]
    ) -> Float[Tensor, "batch position dim"]:
        """Return what each position gathered."""
        queries, keys, values = self._heads(states)
        if self.rotary:
            queries, keys = rotated(queries), rotated(keys)
        gathered = self._gather(queries, keys, values, mask)
        mixed: Tensor = self.output(gathered.transpose(1, 2).flatten(2))
        return mixed

    def after(
        self,
        own: Float[Tensor, "batch suffix dim"],
        states: Float[Tensor, "batch position dim"],
        anchors: Int[Tensor, "batch suffix"],
    ) -> Float[Tensor, "batch suffix dim"]:
        """Return what suffixes gathered, each from itself and from the `states` up to its anchor.

        Memory: one weight for each head, suffix and position.
        """
        queries, own_keys, own_values = self._heads(own)
        _, keys, values = self._heads(states)
        if self.rotary:
            behind = (anchors + 1)[:, None].expand(queries.shape[:-1])
            queries, own_keys, keys = rotated(queries, behind), rotated(own_keys, behind), rotated(keys)
        unseen = torch.arange(states.shape[1], device=states.device) > anchors[..., None]  # (batch, suffix, position)
        to_states = (queries @ keys.transpose(-1, -2)).masked_fill(unseen[:, None], -torch.inf)
        to_itself = (queries * own_keys).sum(-1, keepdim=True)
        logits = queries.shape[-1] ** -0.5 * torch.cat([to_states, to_itself], dim=-1)
        weights = self.dropout(torch.softmax(logits, dim=-1))
        gathered = weights[..., :-1] @ values + weights[..., -1:] * own_values
        mixed: Tensor = self.output(gathered.transpose(1, 2).flatten(2))
        return mixed

    def _heads(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.queries_keys_values(states).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads.unbind(0)  # each (batch, head, position, width)
        return queries, keys, values

    def _gather(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        # Padding is on the right, so a causal mask hides it from every real position.
        visible = None if self.causal else mask[:, None, None, :]
        if not (self.dropout.active and queries.device.type == "cpu"):
            p = self.dropout.p if self.dropout.active else 0.0
            return F.scaled_dot_product_attention(queries, keys, values, visible, dropout_p=p, is_causal=self.causal)
        # Written out, because on a CPU torch's own takes 1.1 (50 positions) to 2 times (200) as long with dropout.
        if visible is None:
            visible = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril()
        hidden = torch.zeros(visible.shape, device=mask.device).masked_fill_(~visible, -torch.inf)
        logits = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2) + hidden
        gathered: Tensor = self.dropout(torch.softmax(logits, dim=-1)) @ values
        return gathered


class FeedForward(nn.Module):
    """Two linear maps with an activation between; "swiglu" multiplies half of the inner states by SiLU of the other.

    Source: arXiv:1706.03762, section 3.3; SwiGLU, arXiv:2002.05202, equation 6.
    """

    def __init__(self, dim: int, width: int, activation: Activation, *, dropout: float, bias: bool = True) -> None:
        super().__init__()
        self.activation = activation
        self.inner = nn.Linear(dim, 2 * width if activation == "swiglu" else width, bias=bias)
        self.output = nn.Linear(width, dim, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, states: Float[Tensor, "batch position dim"]) -> Float[Tensor, "batch position dim"]:
        """Transform each position by itself."""
        inner: Tensor = self.inner(states)
        if self.activation == "swiglu":
            gate, inner = inner.chunk(2, dim=-1)
            inner = F.silu(gate) * inner
        else:
            inner = F.gelu(inner) if self.activation == "gelu" else F.relu(inner)
        output: Tensor = self.output(self.dropout(inner))
        return output


class Dropout(nn.Module):
    """nn.Dropout, but on a CPU by 16 random bits a value: torch's Bernoulli numbers take it ten times as long to draw.

    There p is rounded to a multiple of 2^-16.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    @property
    def active(self) -> bool:
        """Return whether anything is dropped."""
        return self.training and self.p > 0

    def forward(self, states: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Set each value to 0 with probability p and divide the others by 1 - p; in training only."""
        if not self.active or states.device.type != "cpu":
            return F.dropout(states, self.p, self.active)
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        words = torch.empty(-(-states.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        drawn = words.view(torch.int16)[: states.numel()].view(states.shape)
        return states * (drawn >= dropped - 2**15).to(states.dtype).mul_(2**16 / (2**16 - dropped))
