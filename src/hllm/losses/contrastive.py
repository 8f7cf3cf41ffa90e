"""Contrastive losses: pull a user's embedding towards the next item, away from other items, chunk by chunk.

Every loss here walks over chunks of queries, so no more than a chunk's logits exist at any time. The forward pass makes
the gradients too, which are as large as the inputs, and keeps only those.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from hllm.config import Config
from hllm.errors import ConfigError
from hllm.losses.chunked import Pairing, Sums, chunked_sums
from hllm.precision import fast_fp32_products, take_rows

Kind = Literal["info-nce", "bce", "gbce"]
Mask = Literal["id", "cosine"]
Similarity = Literal["cosine", "dot"]


class LossConfig(Config):
    """The loss by which a position's target is told apart from its negatives."""

    kind: Kind = "info-nce"
    """"info-nce": softmax over target and negatives. "bce": each of them is yes or no by itself (SASRec). "gbce": the
    same, with the target's probability to a power that undoes the overconfidence of few negatives (gSASRec)."""
    mask: Mask = "id"
    """Negatives that are left out for being the target. "id": the same item. "cosine", the reference's rule: items with
    a cosine to the target that exceeds cosine_threshold, whatever their ids."""
    cosine_threshold: float = Field(default=0.99, ge=-1, le=1)
    """For mask = "cosine"."""
    log_q: Literal[False, True, "refined"] = False
    """Subtract from each negative's logit the log of how often it is expected among the position's negatives, so that
    the loss estimates the softmax over the catalogue. "refined": by the formula of arXiv:2507.09331, which weights each
    position by its chance of error. For kind = "info-nce"."""
    calibration: float = Field(default=0.75, ge=0, le=1)
    """t of kind = "gbce": 0 is BCE, 1 makes the scores those of a model trained with every negative."""
    matryoshka: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Sizes, such as [64, 128]: the loss is also taken of the first so many numbers of the vectors, and is the mean
    over these and the whole. Then the first numbers alone can score (hllm evaluate --dims). (): the whole only."""

    effective_with = {  # noqa: RUF012
        "cosine_threshold": ("mask", ("cosine",)),
        "log_q": ("kind", ("info-nce",)),
        "calibration": ("kind", ("gbce",)),
    }

    @model_validator(mode="after")
    def _prefixes_are_distinct(self) -> "LossConfig":
        if list(self.matryoshka) != sorted(set(self.matryoshka)):
            raise ValueError(f"matryoshka is {list(self.matryoshka)}; expected sizes that rise, each once")
        if self.matryoshka and self.mask == "cosine":
            raise ValueError(
                'matryoshka needs mask = "id": a few numbers of two items are often as close as mask = "cosine" takes '
                "for the same item"
            )
        return self

    @property
    def described(self) -> str:
        """Return the kind and all other options, for tables."""
        options = self.said(without=("kind",))
        return self.kind + (f" ({options})" if options else "")

    @property
    def needs_sampled(self) -> bool:
        """Return whether the negatives must be a sample: each counts by itself, and all would drown the target."""
        return self.kind in ("bce", "gbce")

    @property
    def num_products(self) -> int:
        """Return how many products of each target with each negative a step takes, forward and backward."""
        return 4 if self.mask == "cosine" else 3


class Odds(NamedTuple):
    """Odds say how often items are expected among the negatives of queries: what logQ corrects for."""

    log_q: Float[Tensor, "window item"]
    """The log of each item's expected count, for the queries of a window; one row if it is the same for all."""
    num_expected: Float[Tensor, " window"]
    """Sum of the expected counts over the whole catalogue."""
    windows: Int[Tensor, " query"]
    """The window of each query."""


class Contrast(NamedTuple):
    """The loss, and two shares over this call's queries, whatever `count` and `weights` are."""

    loss: Float[Tensor, ""]
    """In nats, differentiable."""
    masked: Float[Tensor, ""]
    """Share of (query, negative) pairs that the mask left out; 1 without negatives, 0 without queries."""
    top1: Float[Tensor, ""]
    """Share of queries whose positive has the highest logit, before log_q, of those that the mask left."""


def info_nce(
    user: Float[Tensor, "query dim"],
    positive: Float[Tensor, "query dim"],
    negatives: Float[Tensor, "negative dim"],
    *,
    positive_ids: Int[Tensor, " query"],
    negative_ids: Int[Tensor, " negative"],
    scale: Float[Tensor, ""] | float,
    similarity: Similarity = "cosine",
    mask: Mask = "id",
    cosine_threshold: float = 0.99,
    log_q: Float[Tensor, " negative"] | None = None,
    count: int | float | None = None,
    chunk_size: int | None = None,
) -> Contrast:
    """Cross-entropy of each positive against itself and negatives that all queries share.

    In plain terms: each user vector shall be more like the vector of the item that came next than like those of the
    negatives. Of query u, positive p and negatives n the loss is the mean of -ln(eᵖ / (eᵖ + Σ eⁿ)), where p and n stand
    for `scale` · similarity(u, ·). Take `contrast` instead if a recipe chooses the loss, if each query has negatives of
    its own, or if targets have weights.

    A logit is `scale` (1 / temperature) times the cosine, or the dot product. It is computed in fp32 (fp64 for fp64
    inputs) also under autocast. There the factors of a product may be rounded (`fast_fp32_products`), but sums and
    results are fp32. A negative that the mask takes for the query's positive leaves that query's softmax. If none is
    left, the loss is 0, and so is its gradient.

    The result is the sum over queries divided by `count` (None: their number). So the results of micro-batches add up
    to the loss and the gradients of the whole step, if they get its count. Without queries it is 0.

    `log_q`, the log of each negative's expected count among the draws, is subtracted from its logit. The sum of
    exp(logit - log_q) over the draws then has the sum of exp(logit) over all items (the masked ones left out) as
    its mean. So the loss estimates the softmax over the catalogue. The positive, which is always there, is not
    corrected.

    `chunk_size` queries are worked on at a time; None: as many as keep the logits at the size of `negatives`, or
    8 MB. Equal inputs give equal results to the bit. It cannot be differentiated twice.

    Source: InfoNCE, arXiv:1807.03748; cosine with a learnt scale as in HLLM, arXiv:2409.12740, section 3; log_q as
    in sampled softmax, Jean et al., arXiv:1412.2007, section 3, and Yi et al., RecSys 2019, section 3.
    Differs from the reference: negatives are masked by item id, not by a cosine above 0.99 (`mask` = "cosine"),
    which lets all negatives vanish, and the loss with them, once the embeddings draw together.
    """
    pairing = Pairing(positive_ids, negative_ids, None, log_q, cosine_threshold if mask == "cosine" else None)
    with _exact_sums(user.device):
        user, positive, negatives = _comparable(similarity, user, positive, negatives)
        sums = chunked_sums(scale * user, positive, negatives, pairing, chunk_size=chunk_size)
    return _means(sums, pairing, len(user) if count is None else count)


def contrast(
    config: LossConfig,
    user: Float[Tensor, "query dim"],
    positive: Float[Tensor, "query dim"],
    items: Float[Tensor, "item dim"],
    negatives: Int[Tensor, "query k"] | Int[Tensor, " negative"],
    *,
    positive_ids: Int[Tensor, " query"],
    scale: Float[Tensor, ""] | float,
    similarity: Similarity = "cosine",
    log_q: Float[Tensor, " item"] | Odds | None = None,
    num_items: int | None = None,
    weights: Float[Tensor, " query"] | None = None,
    count: int | float | None = None,
    chunk_size: int | None = None,
) -> Contrast:
    """Return the loss that `config` names; `info_nce` says what is common to all.

    In plain terms: `negatives` and `positive_ids` are rows of `items`. The negatives are shared by all queries, or
    there are k for each query, which are gathered for a chunk of queries at a time (a sampled softmax for each
    position). "bce" asks of each item by itself whether it came next: it is the mean of -ln σ(positive logit) and of
    -ln(1 - σ(logit)) of each negative left. Without negatives the first remains. "gbce" is the same with the positive's
    probability to the power `gbce_exponent`. Take "info-nce" if the logits shall rank the catalogue; take "gbce" if few
    negatives are drawn and the probabilities shall be right.

    `log_q` is used if `config` says so: the log of each item's expected count for all queries, or the odds of each
    query. `num_items`, the size of the catalogue, is needed by "gbce". Raises ValueError if `config` needs one of them
    and it is None.

    With log_q = "refined" the loss of a query is -sg(1 - P) · ln(eᵖ / Σ e^(n - ln Q′)). There Q′ = q / (Σq - q₊) is the
    chance of each negative by its expected count q, among all items but the positive, whose own is q₊. P = eᵖ / (eᵖ +
    mean of e^(n - ln Q′)) estimates the positive's chance from the negatives that the mask leaves, and `sg` stops its
    gradient. In plain terms: the positive is always there and never drawn, so it stays out of the sum that the draws
    estimate. What is left is a softmax over the negatives, weighted by the model's chance of error. log_q = true has
    the same gradient but for P, which it takes from the sum over the draws instead of their mean.

    `weights` multiply the losses of the queries (None: 1). Without a `count` the sum is then divided by theirs.

    With `matryoshka` the loss is the mean over the prefixes and the whole vectors, with one scale for all of them. Each
    is walked over in chunks, one after another. `masked` and `top1` are those of the whole. Raises ConfigError for a
    prefix that is not shorter than the vectors.

    Source: SASRec, arXiv:1808.09781, section III-E, for "bce"; the mean over k negatives, and "gbce", as in gSASRec,
    arXiv:2308.07192; "refined" as in Khrylchenko et al., "Correcting the LogQ Correction", arXiv:2507.09331, section 3;
    matryoshka as in arXiv:2205.13147, equation 1, with equal weights that add up to 1.
    """
    check_prefixes(config, user.shape[1])
    items, pairing = _pairing(config, items, negatives, positive_ids, log_q)
    exponent = _exponent(config, negatives.shape[-1], num_items)
    if count is None:
        count = len(user) if weights is None else float(weights.sum())

    def of_first(size: int) -> Contrast:
        with _exact_sums(user.device):
            users, positives, others = _comparable(similarity, user[:, :size], positive[:, :size], items[:, :size])
            sums = chunked_sums(
                scale * users, positives, others, pairing, exponent=exponent, weights=weights, chunk_size=chunk_size
            )
        return _means(sums, pairing, count)

    whole = of_first(user.shape[1])
    if not config.matryoshka:
        return whole
    losses = torch.stack([*(of_first(size).loss for size in config.matryoshka), whole.loss])
    return whole._replace(loss=losses.mean())


def check_prefixes(config: LossConfig, dim: int) -> None:
    """Raise ConfigError unless all of `config.matryoshka` are shorter than vectors of `dim` numbers."""
    if config.matryoshka and config.matryoshka[-1] >= dim:
        raise ConfigError(
            f"loss.matryoshka is {list(config.matryoshka)}, but the model's vectors have {dim} numbers; expected sizes "
            f"below {dim}, and the whole is always trained"
        )


def gbce_exponent(num_negatives: int, num_items: int, calibration: float) -> float:
    """Return gSASRec's β = α(t(1 - 1/α) + 1/α) = 1 - t(1 - α), for the sampling rate α = k / (items - 1).

    Source: arXiv:2308.07192, definition of β. α is at most 1 here, where more negatives than other items are given.
    """
    rate = min(1.0, num_negatives / max(1, num_items - 1))
    return 1 - calibration * (1 - rate)


def _exponent(config: LossConfig, num_negatives: int, num_items: int | None) -> float | None:
    """Return the power of the positive's probability in a binary cross-entropy, None for the softmax."""
    match config.kind:
        case "info-nce":
            return None
        case "bce":
            return 1.0
        case "gbce":
            if num_items is None:
                raise ValueError('loss.kind = "gbce", but num_items is None: pass the number of items in the catalogue')
            return gbce_exponent(num_negatives, num_items, config.calibration)


def _pairing(
    config: LossConfig,
    items: Float[Tensor, "item dim"],
    negatives: Int[Tensor, "query k"] | Int[Tensor, " negative"],
    positive_ids: Int[Tensor, " query"],
    log_q: Float[Tensor, " item"] | Odds | None,
) -> tuple[Float[Tensor, "negative dim"], Pairing]:
    """Return the embeddings that may be negatives, and which of them meet which query."""
    if config.log_q and log_q is None:
        raise ValueError("loss.log_q = true, but log_q is None: pass the log of each item's expected count")
    odds = log_q if isinstance(log_q, Odds) else None
    if config.log_q == "refined" and odds is None:
        raise ValueError('loss.log_q = "refined", but log_q is no Odds: it needs the number of negatives to expect')
    windows, others = (None, None) if odds is None else (odds.windows, _expected_others(odds, positive_ids))
    by_item = None if not config.log_q else log_q if odds is None else odds.log_q
    assert not isinstance(by_item, Odds), "odds have logs"
    threshold = config.cosine_threshold if config.mask == "cosine" else None
    refined = others if config.log_q == "refined" else None
    if negatives.ndim == 2:
        every = torch.arange(len(items), device=items.device)
        return items, Pairing(positive_ids, every, negatives, by_item, threshold, windows, refined)
    by_item = None if by_item is None else by_item[..., negatives]
    return take_rows(items, negatives), Pairing(positive_ids, negatives, None, by_item, threshold, windows, refined)


def _expected_others(odds: Odds, positive_ids: Int[Tensor, " query"]) -> Float[Tensor, " query"]:
    """Return how many negatives besides its positive each query is expected to meet."""
    return odds.num_expected[odds.windows] - odds.log_q[odds.windows, positive_ids].exp()


@contextmanager
def _exact_sums(device: torch.device) -> Iterator[None]:
    """Keep autocast from making the logits bf16; the factors of their products may be rounded."""
    fast = fast_fp32_products() if torch.is_autocast_enabled(device.type) else nullcontext()
    with fast, torch.autocast(device.type, enabled=False):
        yield


def _comparable(similarity: Similarity, *embeddings: Float[Tensor, "_ dim"]) -> list[Float[Tensor, "_ dim"]]:
    """Return the embeddings in one dtype, fp32 or fp64, in the form in which their dot products are compared."""
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in embeddings), torch.float32)
    same = [x.to(dtype) for x in embeddings]
    return [_unit(x) for x in same] if similarity == "cosine" else same


def _means(sums: Sums, pairing: Pairing, count: int | float) -> Contrast:
    """Divide the loss by `count`, and the numbers by how many queries and pairs there are."""
    queries, dtype = len(pairing.positive_ids), sums.loss.dtype
    pairs = queries * pairing.num_negatives
    return Contrast(
        sums.loss / (count or 1),
        (sums.masked / pairs if pairs else sums.masked + min(1, queries)).to(dtype),
        (sums.top1 / max(1, queries)).to(dtype),
    )


def _unit(vectors: Float[Tensor, "row dim"]) -> Float[Tensor, "row dim"]:
    """Return F.normalize(vectors, eps=1e-6), with a backward pass of fewer passes over memory."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors * lengths.clamp_min(1e-6).reciprocal()
