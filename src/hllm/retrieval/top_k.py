"""The best scores so far on an accelerator: a score and its item as one integer, so that nothing else leaves it."""

from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_ITEM_BITS = 32
_NO_ITEM = (1 << _ITEM_BITS) - 1


@final
class TopK:
    """Takes tiles of scores in any order, and keeps each user's k best; of equal scores those of the lowest items.

    `torch.topk` gives equal scores in no order. Here it ranks integers of 64 bits that are all different: above, the
    score's bits in the order of the numbers; below, the item, counted downwards.
    """

    def __init__(self, num_users: int, k: int, device: torch.device) -> None:
        """`k` at least 1."""
        nothing = torch.full((1, 1), -torch.inf, device=device)
        self.k = k
        self.keys = _keys(nothing, torch.full((1,), _NO_ITEM, device=device)).repeat(num_users, k)

    def add(self, first: int, scores: Float[Tensor, "user item"]) -> None:
        """Take the scores, in fp32, of neighbouring items from `first` on, all below 2³² - 1; -inf for one left out."""
        keys = _keys(scores, torch.arange(first, first + scores.shape[1], device=scores.device))
        of_tile = keys.topk(min(self.k, scores.shape[1]), sorted=False).values
        self.keys = torch.cat([self.keys, of_tile], 1).topk(self.k).values

    def best(self) -> tuple[Int[np.ndarray, "user k"], Float[np.ndarray, "user k"]]:
        """Return items and scores, the best first; where there were fewer than k, item -1 and score -inf."""
        bits = (self.keys >> _ITEM_BITS).int()
        scores = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32)
        items = (_NO_ITEM - (self.keys & _NO_ITEM)).masked_fill(scores == -torch.inf, -1)
        return items.cpu().numpy(), scores.cpu().numpy()


def _keys(scores: Float[Tensor, "user item"], items: Int[Tensor, " item"]) -> Int[Tensor, "user item"]:
    bits = (scores + 0.0).view(torch.int32)  # there is one zero only
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # two negative numbers have their bits the other way round
    return (ordered.long() << _ITEM_BITS) + (_NO_ITEM - items)
