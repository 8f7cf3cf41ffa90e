"""Contrastive losses: pull a user's embedding towards the next item, away from other items."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from hllm.config import Config


class LossConfig(Config):
    """How a target is told apart from its negatives."""

    kind: Literal["info-nce", "bce", "gbce"] = "info-nce"
    """"info-nce": cross-entropy over the target and its negatives; with the catalogue as negatives, a full softmax.
    "bce": each negative is a no. "gbce": the same, made less sure of itself (gSASRec)."""
    mask: Literal["id", "cosine"] = "id"
    """Which negatives leave the loss: those that are the target, or, as in the HLLM paper's code, those whose cosine
    with the target exceeds cosine_threshold."""
    cosine_threshold: float = Field(default=0.99, gt=0, le=1)
    """For mask = "cosine"."""
    log_q: bool = False
    """Correct for how often each negative is drawn, so that the loss estimates the full softmax."""
    calibration: float = Field(default=0.75, ge=0, le=1)
    """"gbce" only: t of the paper; 0 is bce, 1 gives calibrated probabilities."""


_MASKED = -1e9  # exp of it is exactly 0; -inf would make the gradient of a row with nothing left NaN


class InfoNCE(NamedTuple):
    """The loss, and how many negatives the mask left in it."""

    loss: Float[Tensor, ""]
    masked: Float[Tensor, ""]
    """Share of (query, negative) pairs left out because both name the same item; 1 if there are no negatives."""
    top1: Float[Tensor, ""]
    """Share of queries whose positive has the highest logit."""


def info_nce(
    user: Float[Tensor, "query dim"],
    positive: Float[Tensor, "query dim"],
    negatives: Float[Tensor, "negative dim"],
    *,
    positive_ids: Int[Tensor, " query"],
    negative_ids: Int[Tensor, " negative"],
    scale: Float[Tensor, ""] | float,
) -> InfoNCE:
    """Mean cross-entropy, in nats, of each positive against negatives shared by the whole batch.

    A logit is the cosine times `scale` (1 / temperature), in fp32 whatever the inputs. A negative that is the
    query's positive item (equal ids) leaves that query's softmax. With no negatives left the loss is 0.

    Source: InfoNCE, arXiv:1807.03748; cosine with a learnt scale as in HLLM, arXiv:2409.12740, section 3.
    Differs from the reference: negatives are masked by item id, not by a cosine above 0.99, which lets all
    negatives vanish, and the loss with them, once the embeddings draw together.
    """
    with torch.autocast(user.device.type, enabled=False):  # autocast would make the products bf16 again
        user, positive, negatives = (F.normalize(x.float(), dim=-1, eps=1e-6) for x in (user, positive, negatives))
        positive_logit = scale * (user * positive).sum(-1)  # (query,)
        same = positive_ids[:, None] == negative_ids
        negative_logits = (scale * user @ negatives.T).masked_fill(same, _MASKED)  # (query, negative)
        # -log softmax of the positive, without a copy of the matrix to put the positive beside the negatives
        loss = F.softplus(torch.logsumexp(negative_logits, dim=-1) - positive_logit).mean()
    with torch.no_grad():
        masked = same.float().mean() if same.numel() else loss.new_ones(())
        top1 = (positive_logit >= negative_logits.amax(-1)).float().mean() if same.numel() else loss.new_ones(())
    return InfoNCE(loss, masked, top1)


def mean_cosine(embeddings: Float[Tensor, "item dim"]) -> Float[Tensor, ""]:
    """Return the mean cosine over all pairs of different rows: near 1 when the embeddings have collapsed.

    Uses |sum of unit vectors|² = n + 2 · (sum over pairs), so it costs one pass. 0 for fewer than two rows.
    """
    unit = F.normalize(embeddings.float(), dim=-1, eps=1e-6)
    count = len(unit)
    if count < 2:
        return unit.new_zeros(())
    return (unit.sum(0).square().sum() - unit.square().sum()) / (count * (count - 1))
