"""Discriminative heads: from a user, a history and a candidate item to one logit for each target, such as a click."""

# Proved by tests/models/test_ranking.py.

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from hllm.config import Config
from hllm.errors import nearest

SAMPLED = "next"
"""Name of the one target of a model that learns from sampled negatives: is this the next item?"""


class RankingConfig(Config):
    """Heads that score given candidates; what hllm rank needs."""

    fusion: Literal["late", "early"] = "late"
    """"late": a learnt [USER] vector behind the history makes one user vector, for all candidates. "early": each
    candidate is read behind the history, as one element more; better, and dearer."""
    head: Literal["mlp", "mixer", "linear"] = "mlp"
    """"mlp" and "mixer" read the user's state and the candidate; "linear", for "early", the state alone."""
    width: int = Field(default=128, ge=1)
    """Width to which "mlp" and "mixer" project both."""
    depth: int = Field(default=2, ge=1)
    """"mixer" only: blocks."""
    token_width: int = Field(default=8, ge=1)
    """"mixer" only: inner width of the net that mixes user and candidate; that of channels is 3 × width."""
    targets: tuple[str, ...] = ()
    """Names of data.targets, each with a head of its own. None: one head, which tells the next item from items drawn
    at random."""

    effective_with = {  # noqa: RUF012
        "width": ("head", ("mlp", "mixer")),
        "depth": ("head", ("mixer",)),
        "token_width": ("head", ("mixer",)),
    }

    @field_validator("targets")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each target is named once")
        return value

    @model_validator(mode="after")
    def _late_needs_the_candidate(self) -> "RankingConfig":
        if self.fusion == "late" and self.head == "linear":
            raise ValueError('head = "linear" reads no candidate, and with fusion = "late" nothing else does')
        return self

    def check_targets(self, known: Sequence[str]) -> None:
        """Raise ValueError if a target is none of the data's targets, whose names are `known`."""
        if SAMPLED in known:
            raise ValueError(f'data.targets: "{SAMPLED}" is the name of the target of sampled negatives; take another')
        for name in self.targets:
            if name not in known:
                raise ValueError(
                    f"model.ranking.targets: no [[data.targets]] table is named {name!r}{nearest(name, known)}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Return what the heads predict."""
        return self.targets or (SAMPLED,)


class RankingHeads(nn.Module):
    """One head for each target, and the [USER] vector if the fusion is late.

    Source: arXiv:2409.12740, section 3.3, where the head is left open; "mlp" and "mixer" after HLLM-Creator,
    arXiv:2508.18118.
    """

    def __init__(self, config: RankingConfig, dim: int) -> None:
        super().__init__()
        self.fusion = config.fusion
        self.names = config.names
        self.user_token = nn.Parameter(0.02 * torch.randn(dim)) if config.fusion == "late" else None
        self.heads = nn.ModuleList(_head(config, dim) for _ in self.names)

    def forward(
        self, states: Float[Tensor, "*candidate dim"], items: Float[Tensor, "*candidate dim"]
    ) -> Float[Tensor, "*candidate target"]:
        """Return the logit of every target, in the order of `names`, for each state and candidate."""
        return torch.cat([head(states, items) for head in self.heads], dim=-1)


class LinearHead(nn.Module):
    """A linear map of the state."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.output = nn.Linear(dim, 1)

    def forward(
        self, states: Float[Tensor, "*candidate dim"], items: Float[Tensor, "*candidate dim"]
    ) -> Float[Tensor, "*candidate 1"]:
        """Return one logit for each state."""
        logits: Tensor = self.output(states)
        return logits


class MLPHead(nn.Module):
    """Linear(2c → c), ReLU, Linear(c → 1) over both projections."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.user = nn.Linear(dim, width, bias=False)
        self.item = nn.Linear(dim, width, bias=False)
        self.inner = nn.Linear(2 * width, width)
        self.output = nn.Linear(width, 1)

    def forward(
        self, states: Float[Tensor, "*candidate dim"], items: Float[Tensor, "*candidate dim"]
    ) -> Float[Tensor, "*candidate 1"]:
        """Return one logit for each state and item."""
        both = torch.cat([self.user(states), self.item(items)], dim=-1)
        logits: Tensor = self.output(torch.relu(self.inner(both)))
        return logits


class MixerHead(nn.Module):
    """An MLP-Mixer over two tokens, both projections: mixing blocks, layer norm, mean, linear map.

    Source: arXiv:2105.01601, section 2.
    """

    def __init__(self, dim: int, width: int, *, depth: int, token_width: int) -> None:
        super().__init__()
        self.user = nn.Linear(dim, width, bias=False)
        self.item = nn.Linear(dim, width, bias=False)
        self.blocks = nn.ModuleList(MixerBlock(width, token_width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, 1)

    def forward(
        self, states: Float[Tensor, "*candidate dim"], items: Float[Tensor, "*candidate dim"]
    ) -> Float[Tensor, "*candidate 1"]:
        """Return one logit for each state and item."""
        tokens = torch.stack([self.user(states), self.item(items)], dim=-2)
        for block in self.blocks:
            tokens = block(tokens)
        logits: Tensor = self.output(self.norm(tokens).mean(-2))
        return logits


class MixerBlock(nn.Module):
    """Mixes the two tokens at each channel, then the channels of each token; both with a residual behind a norm."""

    def __init__(self, width: int, token_width: int) -> None:
        super().__init__()
        self.token_norm, self.channel_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(2, token_width), nn.GELU(), nn.Linear(token_width, 2))
        self.channels = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, tokens: Float[Tensor, "*candidate 2 width"]) -> Float[Tensor, "*candidate 2 width"]:
        """Return the tokens after this block."""
        tokens = tokens + self.tokens(self.token_norm(tokens).transpose(-1, -2)).transpose(-1, -2)
        mixed: Tensor = tokens + self.channels(self.channel_norm(tokens))
        return mixed


def _head(config: RankingConfig, dim: int) -> nn.Module:
    match config.head:
        case "linear":
            return LinearHead(dim)
        case "mlp":
            return MLPHead(dim, config.width)
        case "mixer":
            return MixerHead(dim, config.width, depth=config.depth, token_width=config.token_width)
