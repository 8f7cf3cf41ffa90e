"""Spread of embeddings: numbers that tell a useful space from a collapsed one."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def mean_cosine(embeddings: Float[Tensor, "item dim"]) -> Float[Tensor, ""]:
    """Return the mean cosine over all pairs of different rows: near 1 when the embeddings have collapsed.

    Uses |sum of unit vectors|² = n + 2 · (sum over pairs), so it costs one pass. 0 for fewer than two rows.
    """
    unit = F.normalize(embeddings.float(), dim=-1, eps=1e-6)
    count = len(unit)
    if count < 2:
        return unit.new_zeros(())
    return (unit.sum(0).square().sum() - unit.square().sum()) / (count * (count - 1))


def effective_rank(embeddings: Float[Tensor, "item dim"]) -> Float[Tensor, ""]:
    """Return how many dimensions the rows' directions fill: 1 if all are parallel, at most min(item, dim).

    It is exp of the entropy of the unit rows' singular values, taken as shares of their sum, from the eigenvalues
    of the smaller Gram matrix in fp64: one product, and a cube of the smaller side. 0 if every row is 0.

    Source: Roy & Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007.
    """
    with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
        unit = F.normalize(embeddings.double(), dim=-1, eps=1e-6)
        gram = unit @ unit.T if len(unit) < unit.shape[1] else unit.T @ unit
        values = torch.linalg.eigvalsh(gram)
        # rounding leaves eigenvalues of 1e-16 where 0 is meant, and their roots would count
        values = torch.where(values > 1e-12 * values.sum(), values, 0).sqrt()
        if not values.any():
            return values.new_zeros((), dtype=torch.float32)
        shares = values / values.sum()
        rank: Tensor = torch.special.entr(shares).sum().exp().float()
        return rank
