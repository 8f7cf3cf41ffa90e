"""Inputs of the user tier at each position besides the item's own vector: its id, the time, the action."""

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from hllm.config import Config
from hllm.errors import DataError

_TIME_SIZES = (2100, 13, 32, 24, 60, 60)  # year, month, day, hour, minute, second
_TIME_WIDTH = 512


class InputsConfig(Config):
    """Parts that are added to each item's vector where it enters the user tier; targets stay as they are."""

    item_id: bool = False
    """A learnt vector of each item, besides the one made of its text."""
    timestamp: int = Field(default=0, ge=0, le=6)
    """Number of parts of the time that are read: year, month, day, hour, minute, second (UTC). 0: none; 4: to hours."""
    action: bool = False
    """A learnt vector of what the user did, from data.action_col."""

    @property
    def any(self) -> bool:
        """Return whether anything is added."""
        return self.item_id or self.timestamp > 0 or self.action


class Fusion(nn.Module):
    """Adds learnt vectors of id, time and action to item vectors.

    Source: arXiv:2409.12740, appendix A, algorithm 1, sum pooling. The paper leaves the depth of its MLP open:
    here two layers with a GELU between. Differs from the paper: UTC instead of local time.
    """

    def __init__(self, config: InputsConfig, dim: int, *, num_items: int, num_actions: int) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items, dim) if config.item_id else None
        self.actions = nn.Embedding(num_actions, dim) if config.action else None
        parts = _TIME_SIZES[: config.timestamp]
        self.times = nn.ModuleList(nn.Embedding(size, _TIME_WIDTH) for size in parts)
        width = _TIME_WIDTH * len(parts)
        self.time_mlp = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim)) if parts else None
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    @property
    def reads_times(self) -> bool:
        """Return whether the times matter."""
        return self.time_mlp is not None

    def require_known_years(self, times: Int[np.ndarray, " moment"]) -> None:
        """Raise DataError if times, in seconds since 1970, are beyond the years that can be read: 0 to 2099."""
        if self.time_mlp is None or not len(times):
            return
        first, last = calendar(torch.tensor([int(times.min()), int(times.max())]))[:, 0].tolist()
        if first < 0 or last >= _TIME_SIZES[0]:
            raise DataError(
                f"times go from the year {first} to {last}, and model.inputs.timestamp reads the years 0 to 2099; if "
                'they are in milliseconds, set data.time_unit = "ms"'
            )

    def forward(
        self,
        vectors: Float[Tensor, "batch position dim"],
        items: Int[Tensor, "batch position"],
        times: Int[Tensor, "batch position"],
        actions: Int[Tensor, "batch position"],
    ) -> Float[Tensor, "batch position dim"]:
        """Return the sum. `items` are item indices; an item that was added after training has no vector of its id."""
        if self.items is not None:
            known = (items >= 0) & (items < self.items.num_embeddings)
            vectors = vectors + self.items(items.where(known, 0)) * known[..., None]
        if self.actions is not None:
            vectors = vectors + self.actions(actions)
        if self.time_mlp is not None:
            parts = calendar(times).unbind(-1)
            embedded = [table(part) for table, part in zip(self.times, parts, strict=False)]
            vectors = vectors + self.time_mlp(torch.cat(embedded, dim=-1))
        return vectors


def calendar(seconds: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape 6"]:
    """Return year, month, day, hour, minute and second in UTC of seconds since 1970.

    Source: the proleptic Gregorian calendar, counted in eras of 400 years that begin on 1 March.
    """
    days, clock = seconds.div(86_400, rounding_mode="floor"), seconds.remainder(86_400)
    shifted = days + 719_468  # days since 0000-03-01
    era, day_of_era = shifted.div(146_097, rounding_mode="floor"), shifted.remainder(146_097)
    leaps = day_of_era // 1_460 - day_of_era // 36_524 + day_of_era // 146_096
    year_of_era = (day_of_era - leaps) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = (month_from_march + 2) % 12 + 1
    year = year_of_era + 400 * era + (month <= 2)
    return torch.stack([year, month, day, clock // 3600, clock // 60 % 60, clock % 60], dim=-1)
