"""Map vectors of the Item LLM to the user tier's width, optionally through a fixed whitening of its raw outputs."""

# Proved by tests/models/test_checkpoint.py.

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Projector(nn.Module):
    """A linear map; with `whiten`, of inputs that are first centred and decorrelated by fixed statistics.

    Raw language-model vectors share one large common direction (mean cosine .4 to .99), which hides the
    differences between items. Removing it once, before training, spares the tiers many steps.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, width: int, dim: int, *, whiten: bool) -> None:
        super().__init__()
        self.whiten = whiten
        self.linear = nn.Linear(width, dim)
        nn.init.normal_(self.linear.weight, std=width**-0.5)
        nn.init.zeros_(self.linear.bias)
        if whiten:
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("whitening", torch.eye(width))

    def forward(self, vectors: Float[Tensor, "item width"]) -> Float[Tensor, "item dim"]:
        """Map the pooled outputs of the Item LLM to the embedding space of the user tier."""
        if self.whiten:
            with torch.autocast(vectors.device.type, enabled=False):
                vectors = (vectors.float() - self.mean) @ self.whitening
        projected: Tensor = self.linear(vectors)
        return projected

    @torch.no_grad()
    def fit_whitening(self, vectors: Float[Tensor, "item width"], *, shrinkage: float = 0.1) -> None:
        """Set the statistics to those of `vectors`: ZCA, eigenvalues raised by `shrinkage` times their mean.

        The shrinkage keeps directions that hardly vary from being blown up into noise.

        Source: ZCA whitening, Kessy et al., arXiv:1512.00809, section 2.
        """
        vectors = vectors.float()
        self.mean.copy_(vectors.mean(0))
        centred = vectors - self.mean
        values, basis = torch.linalg.eigh(centred.T @ centred / len(centred))
        values = values.clamp_min(0) + shrinkage * values.mean() + torch.finfo(values.dtype).tiny
        self.whitening.copy_((basis * values.rsqrt()) @ basis.T)
