"""These metrics judge a ranker, which scores single impressions that were taken (positive) or not."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from hllm.errors import DataError

NUM_BINS = 15


def auc(scores: Float[np.ndarray, " impression"], labels: Bool[np.ndarray, " impression"]) -> float:
    """Return the probability that a random positive scores above a random negative, ties counting half.

    Raises DataError if one of the two is missing.

    Source: the Mann-Whitney statistic; Hanley & McNeil, Radiology 143(1), 1982.
    """
    value = grouped_auc(scores, labels, np.zeros(len(scores), dtype=np.int64)).aucs
    if not len(value) or np.isnan(value[0]):
        raise DataError(
            f"AUC needs positive and negative impressions; {labels.sum():,} of {len(labels):,} are positive"
        )
    return float(value[0])


@dataclass(frozen=True)
class GroupedAuc:
    """AUC among each user's own impressions."""

    users: Shaped[np.ndarray, " user"]
    """Distinct, in ascending order."""
    aucs: Float[np.ndarray, " user"]
    """NaN for users whose impressions are all positive or all negative."""
    impressions: Int[np.ndarray, " user"]

    @property
    def num_left_out(self) -> int:
        """Return how many users have no AUC."""
        return int(np.isnan(self.aucs).sum())

    @property
    def value(self) -> float:
        """Return GAUC: the mean of the users' AUC weighted by their impressions, users without one left out.

        Raises DataError if no user has one.
        """
        has_auc = ~np.isnan(self.aucs)
        if not has_auc.any():
            raise DataError(
                f"GAUC needs a user with positive and negative impressions; none of {len(has_auc):,} has both"
            )
        return float(np.average(self.aucs[has_auc], weights=self.impressions[has_auc]))


def grouped_auc(
    scores: Float[np.ndarray, " impression"],
    labels: Bool[np.ndarray, " impression"],
    users: Shaped[np.ndarray, " impression"],
) -> GroupedAuc:
    """Return each user's AUC, ties counting half, and through it GAUC. Raises DataError for scores that are NaN.

    Source: GAUC as in Zhu et al., "Optimized Cost per Click in Taobao Display Advertising", KDD 2017.
    """
    if np.isnan(scores).any():
        raise DataError(f"{np.isnan(scores).sum():,} of {len(scores):,} scores are NaN; AUC needs scores that compare")
    names, group, impressions = np.unique(users, return_inverse=True, return_counts=True)
    order = np.lexsort((scores, group))
    group, ordered_scores, positive = group[order], scores[order], labels[order]
    # Equal scores of a user share the mean of the ranks they cover.
    tie_starts = np.flatnonzero(
        np.r_[True, (np.diff(group) != 0) | (ordered_scores[1:] != ordered_scores[:-1])][: len(group)]
    )
    tie_ends = np.append(tie_starts[1:], len(group))
    starts = np.cumsum(impressions) - impressions
    rank = np.repeat((tie_starts + 1 + tie_ends) / 2, tie_ends - tie_starts) - starts[group]
    positives = np.bincount(group[positive], minlength=len(names))
    negatives = impressions - positives
    rank_sums = np.bincount(group[positive], weights=rank[positive], minlength=len(names))
    pairs = (positives * negatives).astype(np.float64)
    pairs[pairs == 0] = np.nan
    return GroupedAuc(names, (rank_sums - positives * (positives + 1) / 2) / pairs, impressions)


def log_loss(logits: Float[np.ndarray, " impression"], labels: Bool[np.ndarray, " impression"]) -> float:
    """Return the mean negative log-likelihood, in nats, of the labels under sigmoid(logits); NaN without impressions.

    From logits, because a probability that was rounded to 0 or 1 would make it infinite.

    Source: the Bernoulli likelihood, ln(1 + exp(∓logit)).
    """
    losses = np.logaddexp(0.0, np.where(labels, -logits, logits).astype(np.float64))
    return float(losses.mean()) if len(losses) else float("nan")


def calibration(probabilities: Float[np.ndarray, " impression"], labels: Bool[np.ndarray, " impression"]) -> float:
    """Return the mean prediction over the share of positives; NaN if none is positive.

    Source: He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, section 2.2.
    """
    return float(probabilities.astype(np.float64).sum() / labels.sum()) if labels.any() else float("nan")


def calibration_error(
    probabilities: Float[np.ndarray, " impression"],
    labels: Bool[np.ndarray, " impression"],
    *,
    num_bins: int = NUM_BINS,
) -> float:
    """Return the expected calibration error of probabilities of being positive; NaN without impressions.

    Bins are of equal width, ((b - 1)/B, b/B]; each weighs as many impressions as it has. Where all predictions are
    small, as for clicks, they fall into few bins, and the number says little beyond the mean.
    Raises DataError for values outside 0 … 1.

    Source: Naeini et al., AAAI 2015; bins as in Guo et al., ICML 2017, section 2.
    """
    is_outside = ~((probabilities >= 0) & (probabilities <= 1))
    if is_outside.any():
        raise DataError(f"{is_outside.sum():,} of {len(is_outside):,} probabilities are not between 0 and 1")
    if not len(labels):
        return float("nan")
    bins = np.maximum(np.ceil(probabilities.astype(np.float64) * num_bins).astype(np.int64) - 1, 0)
    gaps = np.bincount(bins, weights=probabilities.astype(np.float64) - labels, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def ranker_metrics(
    logits: Float[np.ndarray, " impression"],
    labels: Bool[np.ndarray, " impression"],
    users: Shaped[np.ndarray, " impression"],
) -> dict[str, float]:
    """Return AUC, GAUC, log loss, calibration and expected calibration error of logits."""
    probabilities = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return {
        "auc": auc(logits, labels),
        "gauc": grouped_auc(logits, labels, users).value,
        "log_loss": log_loss(logits, labels),
        "calibration": calibration(probabilities, labels),
        "calibration_error": calibration_error(probabilities, labels),
    }


class WeightedRankerMetrics:
    """The metrics of `ranker_metrics` where each impression counts as often as a weight says: for the bootstrap.

    The work that does not depend on the weights, above all the sorting, is done once.
    """

    def __init__(
        self,
        logits: Float[np.ndarray, " impression"],
        labels: Bool[np.ndarray, " impression"],
        users: Shaped[np.ndarray, " impression"],
    ) -> None:
        """Take impressions. Raises DataError for scores that are NaN."""
        self.grouped = grouped_auc(logits, labels, users)
        self.kept = ~np.isnan(self.grouped.aucs)
        self.user = np.unique(users, return_inverse=True)[1]
        self.labels = labels.astype(np.float64)
        self.order = np.argsort(logits, kind="stable")
        ordered_scores = logits[self.order]
        self.opening = np.flatnonzero(np.r_[True, ordered_scores[1:] != ordered_scores[:-1]])  # of equal scores
        wide_logits = logits.astype(np.float64)
        self.losses = np.logaddexp(0.0, np.where(labels, -wide_logits, wide_logits))
        self.probabilities = np.exp(-np.logaddexp(0.0, -wide_logits))
        self.bins = np.maximum(np.ceil(self.probabilities * NUM_BINS).astype(np.int64) - 1, 0)

    def __call__(self, user_weights: Float[np.ndarray, " user"]) -> dict[str, float]:
        """Return the metrics with every user, in ascending order, counting so often; NaN where one is not defined."""
        weights = user_weights[self.user]
        positive, total = weights * self.labels, weights.sum()
        gaps = np.bincount(self.bins, weights=weights * self.probabilities - positive, minlength=NUM_BINS)
        share = (user_weights * self.grouped.impressions)[self.kept]
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "auc": self._auc(positive, weights - positive),
                "gauc": float(np.divide((share * self.grouped.aucs[self.kept]).sum(), share.sum())),
                "log_loss": float(np.divide((weights * self.losses).sum(), total)),
                "calibration": float(np.divide((weights * self.probabilities).sum(), positive.sum())),
                "calibration_error": float(np.divide(np.abs(gaps).sum(), total)),
            }

    def _auc(self, positive: Float[np.ndarray, " impression"], negative: Float[np.ndarray, " impression"]) -> float:
        ups, downs = (np.add.reduceat(weights[self.order], self.opening) for weights in (positive, negative))
        weights_below = np.cumsum(downs) - downs
        return float(np.divide((ups * (weights_below + downs / 2)).sum(), ups.sum() * downs.sum()))
