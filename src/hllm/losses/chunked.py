"""Sums of a contrastive loss over queries, with no more than a chunk's logits in memory at any time.

Autograd would keep every logit for the backward pass. Here the sweep over chunks makes the gradients as well, which
are only as large as the inputs, and the backward pass multiplies them by the gradient of the sum.
"""

# Proved by tests/losses/test_contrastive.py.

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_NUMBERS = 2**21  # 8 MB of fp32: enough for fast products, small enough to stay in a cache
_LOWEST = -1e30  # the highest of no logits; with -inf the gradient of a row with nothing left would be NaN


@dataclass(frozen=True)
class Pairing:
    """The negatives that each query meets; an `item` is a row of the negatives' embeddings."""

    positive_ids: Int[Tensor, " query"]
    negative_ids: Int[Tensor, " item"]
    rows: Int[Tensor, "query k"] | None
    """Each query's own negatives; None: every item is a negative of every query."""
    log_q: Float[Tensor, " item"] | Float[Tensor, "window item"] | None
    """Subtracted from the item's logits."""
    cosine_threshold: float | None
    """Mask a negative whose cosine with the positive exceeds this; None: whose id is the positive's."""
    windows: Int[Tensor, " query"] | None = None
    """The row of a `log_q` of two dimensions that is each query's."""
    num_expected: Float[Tensor, " query"] | None = None
    """How many negatives besides its positive each query is expected to meet: for the refined softmax. None: for the
    plain one."""

    @property
    def num_negatives(self) -> int:
        """Return how many negatives each query meets."""
        return len(self.negative_ids) if self.rows is None else self.rows.shape[1]


class Sums(NamedTuple):
    """Sums over all queries; only the loss has a gradient."""

    loss: Float[Tensor, ""]
    masked: Int[Tensor, ""]
    """(query, negative) pairs left out."""
    top1: Int[Tensor, ""]
    """Queries whose positive has the highest logit."""


def chunked_sums(
    user: Float[Tensor, "query dim"],
    positive: Float[Tensor, "query dim"],
    negatives: Float[Tensor, "item dim"],
    pairing: Pairing,
    *,
    exponent: float | None = None,
    weights: Float[Tensor, " query"] | None = None,
    chunk_size: int | None = None,
) -> Sums:
    """Sum over queries the softmax cross-entropy, or with an `exponent` the binary one; logits are dot products.

    In plain terms: the softmax asks which of the items came next, the binary one asks it of each item by itself.
    `exponent` is the power of the positive's probability, and `weights` multiply the queries' losses. All three inputs
    have one dtype and are used as they are. `contrastive.contrast` is the same with means, and normalises the vectors.
    """
    if chunk_size is None:
        width = len(negatives) if pairing.rows is None else pairing.rows.shape[1] * negatives.shape[1]
        chunk_size = max(1, max(_CHUNK_NUMBERS, negatives.numel()) // max(1, width))
    with_gradients = torch.is_grad_enabled()  # inside `forward` it never is
    sums = _Sums.apply(user, positive, negatives, pairing, exponent, weights, chunk_size, with_gradients)  # type: ignore[no-untyped-call]
    return Sums(*sums)


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        user: Float[Tensor, "query dim"],
        positive: Float[Tensor, "query dim"],
        negatives: Float[Tensor, "item dim"],
        pairing: Pairing,
        exponent: float | None,
        weights: Float[Tensor, " query"] | None,
        chunk_size: int,
        with_gradients: bool,
    ) -> tuple[Float[Tensor, ""], Int[Tensor, ""], Int[Tensor, ""]]:
        inputs = (user, positive, negatives)
        wanted = (with_gradients and needed for needed in ctx.needs_input_grad[:3])
        gradients = [torch.zeros_like(x) if want else None for x, want in zip(inputs, wanted, strict=True)]
        losses = user.new_zeros(len(user))
        limits = None  # of a negative's product with the unit positive
        if pairing.cosine_threshold is not None:
            limits = pairing.cosine_threshold * negatives.norm(dim=-1)
        masked, top1 = torch.zeros(2, dtype=torch.long, device=user.device)
        for start in range(0, len(user), chunk_size):
            part = slice(start, start + chunk_size)
            chunk = _chunk(user[part], positive[part], negatives, pairing, limits, part)
            if exponent is not None:
                losses[part], slopes = _binary(chunk, exponent)
            elif pairing.num_expected is not None:
                losses[part], slopes = _refined_softmax(chunk, pairing.num_expected[part])
            else:
                losses[part], slopes = _softmax(chunk)
            if weights is not None:
                losses[part] *= weights[part]
                slopes = slopes.times(weights[part])
            masked += chunk.masked.sum()
            top1 += chunk.top1.sum()
            _add_gradients(gradients, user, positive, part, chunk, slopes)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(masked, top1)
        return losses.sum(), masked, top1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss: Float[Tensor, ""], *_: Any) -> tuple[Any, ...]:
        gradients = (None if gradient is None else gradient * loss for gradient in ctx.saved_tensors)
        return (*gradients, None, None, None, None, None)


class _Chunk(NamedTuple):
    positive: Float[Tensor, " query"]
    """Logit of each query's positive."""
    negatives: Float[Tensor, "query negative"]
    """Logits; -inf where masked."""
    highest: Float[Tensor, " query"]
    """Highest logit of the negatives, at least _LOWEST."""
    masked: Int[Tensor, " query"]
    top1: Bool[Tensor, " query"]
    vectors: Float[Tensor, "negative dim"] | Float[Tensor, "query negative dim"]
    rows: Int[Tensor, "query negative"] | None


class _Slopes(NamedTuple):
    """Derivatives of each query's loss by its logits."""

    positive: Float[Tensor, " query"]
    negatives: Float[Tensor, "query negative"]
    """To be multiplied by `factor`, which is cheaper to do where the matrix has been multiplied away."""
    factor: Float[Tensor, " query"]

    def times(self, weights: Float[Tensor, " query"]) -> "_Slopes":
        """Return the slopes of the losses multiplied by `weights`."""
        return _Slopes(self.positive * weights, self.negatives, self.factor * weights)


def _chunk(
    user: Float[Tensor, "query dim"],
    positive: Float[Tensor, "query dim"],
    negatives: Float[Tensor, "item dim"],
    pairing: Pairing,
    limits: Float[Tensor, " item"] | None,
    part: slice,
) -> _Chunk:
    """Compute the logits of some queries; `part` is where they are in `pairing`."""
    rows = None if pairing.rows is None else pairing.rows[part]
    vectors = negatives if rows is None else F.embedding(rows, negatives)
    positive_logit = (user * positive).sum(-1)
    logits = _products(user, vectors)
    masked = _leave_out(logits, positive, vectors, pairing, limits, part)
    highest = _highest(logits)
    top1 = positive_logit >= highest
    if pairing.log_q is not None:
        logits.sub_(_log_q(pairing, rows, part))
        highest = _highest(logits)
    return _Chunk(positive_logit, logits, highest, masked, top1, vectors, rows)


def _leave_out(
    logits: Float[Tensor, "query negative"],
    positive: Float[Tensor, "query dim"],
    vectors: Float[Tensor, "negative dim"] | Float[Tensor, "query negative dim"],
    pairing: Pairing,
    limits: Float[Tensor, " item"] | None,
    part: slice,
) -> Int[Tensor, " query"]:
    """Set the logits of masked negatives to -inf; return how many each query has."""
    rows = None if pairing.rows is None else pairing.rows[part]
    if limits is None and rows is None and logits.device.type == "cpu":
        return _leave_out_ids(logits, pairing.positive_ids[part], pairing.negative_ids)
    if limits is None:
        out = pairing.positive_ids[part, None] == _of(pairing.negative_ids, rows)
    else:
        out = _products(F.normalize(positive, dim=-1), vectors) > _of(limits, rows)
    logits.masked_fill_(out, -torch.inf)
    return out.view(torch.uint8).sum(-1, dtype=torch.int32)  # as bytes: ten times as fast as the sum of a bool


def _leave_out_ids(
    logits: Float[Tensor, "query negative"], ids: Int[Tensor, " query"], negative_ids: Int[Tensor, " negative"]
) -> Int[Tensor, " query"]:
    """Mask negatives with a query's own id by looking it up, at a tenth of the time of comparing every pair.

    How many there are decides shapes, for which a GPU would have to wait.
    """
    ascending, order = negative_ids.sort()
    first = torch.searchsorted(ascending, ids)
    counts = torch.searchsorted(ascending, ids, right=True) - first
    rows = torch.repeat_interleave(counts)
    nth = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
    logits[rows, order[first[rows] + nth]] = -torch.inf
    return counts


def _softmax(chunk: _Chunk) -> tuple[Float[Tensor, " query"], _Slopes]:
    """Return -ln softmax of the positive, from ln(1 + Σ exp(negative - positive)); the chunk's logits are used up."""
    weights = chunk.negatives.sub_(chunk.highest[:, None]).exp_()
    total = weights.sum(-1)
    loss = F.softplus(chunk.highest + total.log() - chunk.positive)  # 0 where nothing is left: total is 0
    factor = 1 / (total + torch.exp(chunk.positive - chunk.highest))
    return loss, _Slopes(-total * factor, weights, factor)


def _refined_softmax(chunk: _Chunk, num_expected: Float[Tensor, " query"]) -> tuple[Float[Tensor, " query"], _Slopes]:
    """Return -(1 - P) ln(eᵖ / Σ e^(n - ln Q′)), whose 1 - P has no gradient; the chunk's logits are used up.

    The logits are n - ln q, and Q′ is q divided by `num_expected`. P = eᵖ / (eᵖ + mean of e^(n - ln Q′)). Without
    negatives the loss is 0.
    """
    weights = chunk.negatives.sub_(chunk.highest[:, None]).exp_()
    total = weights.sum(-1).clamp_min(torch.finfo(weights.dtype).tiny)
    odds = chunk.highest + (total * num_expected).log() - chunk.positive  # ln(Σ e^(n - ln Q′) / eᵖ)
    left = chunk.negatives.shape[1] - chunk.masked
    error = torch.sigmoid(odds - left.clamp_min(1).log())  # 1 - P
    error = torch.where((left > 0) & (num_expected > 0), error, 0.0)
    return torch.where(error > 0, error * odds, 0.0), _Slopes(-error, weights, error / total)


def _binary(chunk: _Chunk, exponent: float) -> tuple[Float[Tensor, " query"], _Slopes]:
    """Return the mean of -ln σ(positive)^exponent and all -ln(1 - σ(negative)); the chunk's logits are used up."""
    factor = 1 / (1 + chunk.negatives.shape[1] - chunk.masked).to(chunk.positive.dtype)
    loss = factor * (exponent * F.softplus(-chunk.positive) + F.softplus(chunk.negatives).sum(-1))
    slope = -exponent * factor * torch.sigmoid(-chunk.positive)
    return loss, _Slopes(slope, chunk.negatives.sigmoid_(), factor)


def _add_gradients(
    gradients: list[Tensor | None],
    user: Float[Tensor, "query dim"],
    positive: Float[Tensor, "query dim"],
    part: slice,
    chunk: _Chunk,
    slopes: _Slopes,
) -> None:
    """Add a chunk's share to the gradients of user, positive and negatives, as far as they are wanted."""
    of_user, of_positive, of_negatives = gradients
    slope, factor = slopes.positive[:, None], slopes.factor[:, None]
    if of_user is not None:
        of_user[part] = slope * positive[part] + factor * _mixture(slopes.negatives, chunk.vectors)
    if of_positive is not None:
        of_positive[part] = slope * user[part]
    if of_negatives is None:
        return
    if chunk.rows is None:
        of_negatives.addmm_(slopes.negatives.T, factor * user[part])
    else:
        each = slopes.negatives[:, :, None] * (factor * user[part])[:, None]
        # unlike index_add_ and index_put_, adds up in the same order every time, on CPU and CUDA
        of_negatives += torch.ops.aten.embedding_dense_backward(each, chunk.rows, len(of_negatives), -1, False)


def _of(
    values: Shaped[Tensor, " item"], rows: Int[Tensor, "query k"] | None
) -> Shaped[Tensor, " item"] | Shaped[Tensor, "query k"]:
    return values if rows is None else values[rows]


def _log_q(
    pairing: Pairing, rows: Int[Tensor, "query k"] | None, part: slice
) -> Float[Tensor, " item"] | Float[Tensor, "query item"] | Float[Tensor, "query k"]:
    """Return what is subtracted from the logits of the queries in `part`."""
    assert pairing.log_q is not None, "the caller has seen to it"
    if pairing.windows is None or len(pairing.log_q) == 1:
        return _of(pairing.log_q.view(-1), rows)
    of_query = pairing.log_q[pairing.windows[part]]
    return of_query if rows is None else of_query.gather(1, rows)


def _products(
    queries: Float[Tensor, "query dim"], vectors: Float[Tensor, "negative dim"] | Float[Tensor, "query negative dim"]
) -> Float[Tensor, "query negative"]:
    return queries @ vectors.T if vectors.ndim == 2 else torch.bmm(vectors, queries[:, :, None]).squeeze(-1)


def _mixture(
    weights: Float[Tensor, "query negative"],
    vectors: Float[Tensor, "negative dim"] | Float[Tensor, "query negative dim"],
) -> Float[Tensor, "query dim"]:
    return weights @ vectors if vectors.ndim == 2 else torch.bmm(weights[:, None], vectors).squeeze(1)


def _highest(logits: Float[Tensor, "query negative"]) -> Float[Tensor, " query"]:
    if not logits.shape[1]:
        return logits.new_full((len(logits),), _LOWEST)
    return logits.amax(-1).clamp_(min=_LOWEST)
