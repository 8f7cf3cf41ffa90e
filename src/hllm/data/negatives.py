"""Which items a training batch is contrasted with, besides each position's own target."""

from typing import Literal

import numpy as np
from jaxtyping import Int
from pydantic import Field

from hllm.config import Config


class NegativesConfig(Config):
    """Negatives are shared by all positions of a batch; each distinct item counts once."""

    kind: Literal["sampled", "in-batch", "mixed", "catalogue"] = "mixed"
    """"sampled": uniform over the catalogue. "in-batch": the batch's own items. "mixed": both.
    "catalogue": every item there is (a full softmax; right for small catalogues)."""
    num_sampled: int = Field(default=256, ge=1)
    """How many items "sampled" and "mixed" draw for each batch, without replacement."""


def choose_negatives(
    config: NegativesConfig,
    *,
    batch_items: Int[np.ndarray, " item"],
    num_items: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, " negative"]:
    """Return distinct item indices, sorted. A position's own target may be among them; the loss masks it by id."""
    if config.kind == "catalogue":
        return np.arange(num_items)
    if config.kind == "in-batch":
        return np.unique(batch_items)
    drawn = rng.choice(num_items, size=min(config.num_sampled, num_items), replace=False)
    return np.union1d(drawn, batch_items) if config.kind == "mixed" else np.sort(drawn)
