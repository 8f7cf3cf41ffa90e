"""Rank among a sample of the catalogue, for comparison with papers that report it; never the default."""

import warnings

import numpy as np
from jaxtyping import Int

from hllm.errors import ConfigError, HllmWarning
from hllm.metrics import UNREACHABLE, TargetRanks
from hllm.random import stream

WARNING = (
    "metrics among {candidates} sampled candidates are reported as sampled_…/{candidates}: they are not the metrics of "
    "the full ranking, and may order models differently (Krichene & Rendle, KDD 2020, doi:10.1145/3394486.3403226)"
)


def warn_of_sampling(candidates: int) -> None:
    """Say once for each evaluation what sampled metrics are worth."""
    warnings.warn(WARNING.format(candidates=candidates), HllmWarning, stacklevel=3)


def sampled_ranks(
    ranks: TargetRanks, num_ranked: Int[np.ndarray, " target"], candidates: int, *, seed: int
) -> TargetRanks:
    """Return the place of each target among `candidates` other items, drawn evenly from the `num_ranked` - 1 ranked.

    No scores are needed: of a sample without replacement, the number of items above the target is hypergeometric,
    and so is the number of those level with it among the rest. ConfigError if fewer items than that are ranked.
    """
    ranks, others = ranks.checked(), num_ranked - 1
    if len(others) and others.min() < candidates:
        raise ConfigError(
            f"evaluation.sampled_candidates is {candidates}, but a target is ranked among only {others.min()} other "
            "items; lower it, or leave it out and use the full ranking"
        )
    rng, reachable = stream(seed, "candidates"), ranks.better != UNREACHABLE
    above = np.where(reachable, ranks.better, 0).astype(np.int64)
    level = np.where(reachable, ranks.tied, 0).astype(np.int64)
    better = rng.hypergeometric(above, others - above, candidates)
    tied = rng.hypergeometric(level, others - above - level, candidates - better)
    return TargetRanks(np.where(reachable, better, UNREACHABLE), np.where(reachable, tied, 0))
