"""DIN's user tier: the history as a sum, weighted by what each item has to do with the candidate. A baseline."""

# Proved by tests/models/test_ranking.py.

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from hllm.errors import ConfigError
from hllm.models.heads import RankingConfig
from hllm.models.kinds import UserContext, UserFacts, UserTierConfig
from hllm.models.tiers import History, SuffixEncoder
from hllm.models.user.block import Dropout
from hllm.parts import Spec

_CELLS_AT_ONCE = 1 << 24  # suffixes times positions times units


class DINConfig(UserTierConfig):
    """A user tier as in the Deep Interest Network: target attention over a bag of items. It ranks, and nothing else."""

    kind: Literal["din"] = "din"
    dim: int = Field(default=64, ge=1)
    """Size of item embeddings."""
    attention_units: int = Field(default=36, ge=1)
    """Hidden units of the activation unit, which weighs an item of the history for a candidate."""
    hidden: int = Field(default=200, ge=1)
    """Hidden units of the net over history and candidate."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On the hidden units of that net."""

    @override
    def check_ranking(self, ranking: RankingConfig | None) -> None:
        if ranking is None or ranking.fusion != "early":
            raise ValueError('user.kind = "din" needs the table ranking, with fusion = "early"')


class DIN(SuffixEncoder):
    """For each candidate: activation unit, weighted sum of the history, and the net over it and the candidate.

    Source: Zhou et al., arXiv:1706.06978, sections 4.3 and 5.1: weights are not normalised, their sum says how strong
    an interest is. Differs from the paper: PReLU only, no Dice; the candidate's product with the summed history enters
    the net besides both.
    """

    causal = True
    reads_times = False

    def __init__(self, *, dim: int, attention_units: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dim = dim
        # The unit's first layer over [item, candidate, item × candidate], taken apart: no tensor of pairs times dim.
        self.of_item = nn.Linear(dim, attention_units)
        self.of_candidate = nn.Linear(dim, attention_units, bias=False)
        self.of_product = nn.Linear(dim, attention_units, bias=False)
        self.activation = nn.PReLU()
        self.weight = nn.Linear(attention_units, 1)
        self.net = nn.Sequential(
            nn.Linear(3 * dim, hidden), nn.PReLU(), Dropout(dropout), nn.Linear(hidden, dim), nn.PReLU()
        )

    @override
    def with_suffixes(
        self, history: History, suffixes: Float[Tensor, "batch suffix dim"], anchors: Int[Tensor, "batch suffix"]
    ) -> tuple[Float[Tensor, "batch position dim"], Float[Tensor, "batch suffix dim"]]:
        items = history.embeddings
        cells = items.shape[0] * items.shape[1] * self.weight.in_features
        size = max(1, _CELLS_AT_ONCE // cells)
        interest = torch.cat(
            [
                self._interest(items, part, ends)
                for part, ends in zip(suffixes.split(size, 1), anchors.split(size, 1), strict=True)
            ],
            dim=1,
        )
        states: Tensor = self.net(torch.cat([interest, suffixes, interest * suffixes], dim=-1))
        return items, states

    @override
    def forward(self, history: History) -> Float[Tensor, "batch position dim"]:
        raise ConfigError(_NO_VECTOR)

    @override
    def after(self, history: History) -> Float[Tensor, "batch dim"]:
        raise ConfigError(_NO_VECTOR)

    def _interest(self, items: Tensor, candidates: Tensor, anchors: Tensor) -> Tensor:
        by_unit = candidates[:, :, None] * self.of_product.weight  # (batch, suffix, unit, dim)
        products = torch.einsum("bsud,bnd->bsnu", by_unit, items)
        hidden = self.activation(self.of_item(items)[:, None] + self.of_candidate(candidates)[:, :, None] + products)
        unseen = torch.arange(items.shape[1], device=items.device) > anchors[..., None]
        weights = self.weight(hidden).squeeze(-1).masked_fill(unseen, 0.0)  # (batch, suffix, position)
        interest: Tensor = weights @ items
        return interest


_NO_VECTOR = (
    'model.user.kind = "din" scores given candidates and makes no vector of a user: use hllm rank and '
    "hllm evaluate-ranking, or re-rank what another run retrieves"
)


def _build(config: DINConfig, _: UserContext) -> DIN:
    return DIN(dim=config.dim, attention_units=config.attention_units, hidden=config.hidden, dropout=config.dropout)


SPEC = Spec(config=DINConfig, build=_build, facts=UserFacts(retrieves=False, ranks=True))
