"""Definitions say what every metric means, which values it can have and which of them are good."""

# Proved by tests/metrics/test_beyond_accuracy.py.

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Definition:
    """One metric in words; formulas and sources stand where it is computed, and in docs/metrics.md."""

    meaning: str
    bounds: tuple[float, float]
    """Least and greatest value; infinity where nothing bounds it."""
    better: Literal["higher", "lower", "neither"]


_SHARE = (0.0, 1.0)
_UNBOUNDED = (0.0, math.inf)

ONE_TARGET = {
    "recall": Definition(
        "expected share of users whose target is among the first k (one target: also called hit rate)", _SHARE, "higher"
    ),
    "ndcg": Definition("expected 1/log2(1 + rank) if rank <= k else 0 (one target: the ideal is 1)", _SHARE, "higher"),
    "mrr": Definition("expected 1/rank if rank <= k else 0", _SHARE, "higher"),
    "precision": Definition("recall / k (one target: at most 1/k)", _SHARE, "higher"),
    "map": Definition("expected 1/rank if rank <= k else 0 (one target: the same as mrr)", _SHARE, "higher"),
}
SEVERAL_TARGETS = {
    "recall": Definition("expected share of the query's targets among the first k", _SHARE, "higher"),
    "ndcg": Definition(
        "expected sum of 1/log2(1 + rank) over targets with rank <= k, over that of min(k, targets) at the top",
        _SHARE, "higher",
    ),
    "mrr": Definition("expected 1/rank of the query's first target if rank <= k else 0", _SHARE, "higher"),
    "precision": Definition("expected share of targets among the first k", _SHARE, "higher"),
    "map": Definition(
        "expected sum of precision@rank over targets with rank <= k, over the number of all targets", _SHARE, "higher"
    ),
    "hit_rate": Definition("probability that at least one target is among the first k", _SHARE, "higher"),
}  # fmt: skip
RANKING_METRICS = ("auc", "gauc")
"""Metrics of scored candidates by which a checkpoint can be selected, as by those of lists."""
RANKER = {
    "auc": Definition(
        "probability that a positive impression scores above a negative one, ties counting half", _SHARE, "higher"
    ),
    "gauc": Definition(
        "mean over users, weighted by impressions, of the auc among the user's own impressions", _SHARE, "higher"
    ),
    "log_loss": Definition("mean negative log-likelihood of the labels, in nats", _UNBOUNDED, "lower"),
    "calibration": Definition("mean prediction over the share of positives; 1 is right", _UNBOUNDED, "neither"),
    "calibration_error": Definition(
        "mean over impressions of the gap between mean prediction and share of positives in their bin of 15",
        _SHARE, "lower",
    ),
}  # fmt: skip
BEYOND_ACCURACY = {
    "coverage": Definition("share of the catalogue that is among the first k of any user", _SHARE, "higher"),
    "gini": Definition(
        "inequality of how often each item of the catalogue is among the first k (0: all as often)", _SHARE, "lower"
    ),
    "novelty": Definition(
        "mean of -log2 of an item's share of training interactions, in bits, an unseen item counting as seen once",
        _UNBOUNDED, "higher",
    ),
    "popularity": Definition("mean number of training interactions of a recommended item", _UNBOUNDED, "neither"),
    "diversity": Definition("mean of 1 - cosine of the embeddings over pairs of a list's items", (0.0, 2.0), "higher"),
    "category_diversity": Definition(
        "share of pairs of a list's items without a common category, of the pairs that have categories",
        _SHARE, "higher",
    ),
    "serendipity": Definition(
        "share of the first k that are targets and not among a simple recommender's first k", _SHARE, "higher"
    ),
    "miscalibration": Definition(
        "KL divergence, in nats, from the list's category shares (with 1 % of the history's) to the history's",
        (0.0, math.log(100)), "lower",
    ),
}  # fmt: skip

ALL = {**ONE_TARGET, "hit_rate": SEVERAL_TARGETS["hit_rate"], **RANKER, **BEYOND_ACCURACY}
DEFINITIONS = {name: definition.meaning for name, definition in ONE_TARGET.items()}
"""Definitions of the metrics that `ranking_metrics` returns."""
DEFINITIONS_OF_SEVERAL = {name: definition.meaning for name, definition in SEVERAL_TARGETS.items()}
"""Definitions of the metrics that `several_target_metrics` returns."""
RANKER_MEANINGS = {name: definition.meaning for name, definition in RANKER.items()}
"""Definitions of the metrics that `ranker_metrics` returns."""
