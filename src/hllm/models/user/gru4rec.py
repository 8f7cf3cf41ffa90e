"""GRU4Rec's user tier: a recurrent net, trained from scratch."""

# Proved by tests/models/test_user_tiers.py.

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from hllm.models.kinds import UserContext, UserFacts, UserTierConfig
from hllm.models.tiers import History, UserEncoder, at_last
from hllm.models.user.block import Dropout
from hllm.parts import Spec


class GRU4RecConfig(UserTierConfig):
    """A user tier as in GRU4Rec."""

    kind: Literal["gru4rec"] = "gru4rec"
    dim: int = Field(default=128, ge=1)
    """Size of item and user embeddings."""
    hidden: int = Field(default=128, ge=1)
    """Size of the recurrent state."""
    num_layers: int = Field(default=1, ge=1)
    """Recurrent layers."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """On inputs, and between recurrent layers."""


class GRU4Rec(UserEncoder):
    """A gated recurrent unit over item embeddings, and a linear map of its states.

    Source: Hidasi et al., arXiv:1511.06939, section 3. Differs from the paper: whole histories instead of sessions,
    item embeddings instead of 1-of-N vectors, and the project's losses.
    """

    causal = True
    reads_times = False

    def __init__(self, *, dim: int, hidden: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.dim = dim
        self.dropout = Dropout(dropout)
        between = dropout if num_layers > 1 else 0.0  # torch warns about dropout with nothing to drop
        self.gru = nn.GRU(dim, hidden, num_layers, batch_first=True, dropout=between)
        self.output = nn.Linear(hidden, dim)

    @override
    def forward(self, history: History) -> Float[Tensor, "batch position dim"]:
        states, _ = self.gru(self.dropout(history.embeddings))
        encoded: Tensor = self.output(states)
        return encoded

    @override
    def after(self, history: History) -> Float[Tensor, "batch dim"]:
        return at_last(self(history), history.mask)


def _build(config: GRU4RecConfig, _: UserContext) -> GRU4Rec:
    return GRU4Rec(dim=config.dim, hidden=config.hidden, num_layers=config.num_layers, dropout=config.dropout)


SPEC = Spec(config=GRU4RecConfig, build=_build, facts=UserFacts())
