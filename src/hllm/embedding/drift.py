"""Measure how far items' vectors moved from one model to the next: cosines, and neighbours that stayed."""

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hllm.config import Config
from hllm.random import stream

NEIGHBOURS = 10
SAMPLE = 1000
_WORST = 10
_NUMBERS_AT_ONCE = 1 << 24


class MovedItem(Config):
    """An item, and the cosine of its vector with the one before."""

    item_id: str
    title: str
    cosine: float
    new_text: bool
    """Its text is another than before."""


class Drift(Config):
    """The movement of the vectors of items that both models know."""

    num_items: int
    cosine_mean: float
    cosine_p5: float
    """A twentieth of the items has at most this cosine with its vector of before."""
    cosine_min: float
    worst: tuple[MovedItem, ...]
    """The items that moved most, the farthest first."""
    overlap_at_10: float
    """Of an item's ten nearest neighbours among these items, the share that is the same; the mean over a sample."""
    num_sampled: int


def measure_drift(
    before: Float[Tensor, "item dim"],
    after: Float[Tensor, "item dim"],
    ids: pl.Series,
    titles: pl.Series,
    *,
    new_text: Int[np.ndarray, " updated"],
    seed: int = 0,
) -> Drift:
    """Compare two vectors of each item, which stand in the same order; needs at least two items.

    `new_text` are the rows of items with another text than before. Cosines are taken in fp64. Neighbours are sought for
    up to 1,000 items drawn at random.
    """
    parts = zip(_parts(before), _parts(after), strict=True)
    cosines = np.concatenate([F.cosine_similarity(a.double(), b.double()).cpu().numpy() for a, b in parts])
    sample = np.sort(stream(seed, "drift").permutation(len(before))[:SAMPLE])
    ours, theirs = (_neighbours(vectors, sample) for vectors in (before, after))
    shared = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(ours, theirs, strict=True)]
    worst = np.argsort(cosines, kind="stable")[:_WORST]
    return Drift(
        num_items=len(before),
        cosine_mean=float(cosines.mean()),
        cosine_p5=float(np.percentile(cosines, 5)),
        cosine_min=float(cosines.min()),
        worst=tuple(
            MovedItem(
                item_id=str(ids[row]), title=str(titles[row]), cosine=float(cosines[row]), new_text=row in new_text
            )
            for row in worst.tolist()
        ),
        overlap_at_10=float(np.mean(shared)),
        num_sampled=len(sample),
    )


def _parts(vectors: Float[Tensor, "item dim"]) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = vectors.split(max(1, _NUMBERS_AT_ONCE // vectors.shape[1]))
    return parts


def _neighbours(vectors: Float[Tensor, "item dim"], rows: Int[np.ndarray, " row"]) -> Int[np.ndarray, "row k"]:
    """Return each row's nearest other items by cosine: ten, or all there are."""
    unit = F.normalize(vectors.float(), dim=-1, eps=1e-6)
    k, neighbours = min(NEIGHBOURS, len(unit) - 1), []
    for part in np.array_split(rows, -(-len(rows) * len(unit) // _NUMBERS_AT_ONCE)):
        scores = unit[part] @ unit.T
        scores[torch.arange(len(part)), torch.from_numpy(part)] = -torch.inf
        neighbours.append(scores.topk(k, dim=1).indices.cpu().numpy())
    return np.concatenate(neighbours)
