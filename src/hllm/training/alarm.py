"""Alarms: what is not finite is skipped and counted, a collapse stops training with advice, a spike is told."""

import math
from collections import deque
from statistics import fmean, pstdev

from hllm.errors import TrainingError

MAX_SKIPPED = 10
COLLAPSED_COSINE = 0.995
COLLAPSED_RANK = 1.5
MASKED_SHARE = 0.5
PATIENCE = 100
SPIKE_WINDOW = 100
SPIKE_DEVIATIONS = 6.0

_ADVICE = 'Lower item_learning_rate, set model.item.whiten = true, or begin with a stage whose item_tier is "frozen"'


class Alarm:
    """Watches every step's numbers; raises TrainingError when they say that nothing is being learnt.

    Item embeddings that all point the same way (mean cosine above 0.995, or an effective rank below 1.5) or
    negatives that are mostly masked are borne for 100 steps in a row: an untrained [ITEM] vector starts near .99
    and needs some to spread. `skipped`, `collapsed` and `masked` count what an earlier start of the stage saw; the
    losses that a spike is measured by, and the last effective rank, are forgotten between starts.
    """

    def __init__(self, skipped: int = 0, collapsed: int = 0, masked: int = 0) -> None:
        self.skipped = skipped
        self.collapsed = collapsed
        self.masked = masked
        self._losses: deque[float] = deque(maxlen=SPIKE_WINDOW)
        self._rank = math.inf

    @property
    def counts(self) -> dict[str, int]:
        """Return what the alarm has to remember when training is resumed."""
        return {"skipped": self.skipped, "collapsed": self.collapsed, "masked": self.masked}

    def is_finite(self, step: int, loss: float, gradient_norm: float) -> bool:
        """Tell whether the step may change the weights; raise after 10 that may not."""
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            return True
        self.skipped += 1
        if self.skipped >= MAX_SKIPPED:
            raise TrainingError(
                f"step {step} has loss {loss} and gradient norm {gradient_norm}, the {self.skipped}th step of this "
                "stage that is not finite; none of them changed the weights. Lower learning_rate, or set precision = "
                '"fp32"'
            )
        return False

    def check_spread(self, step: int, mean_cosine: float, effective_rank: float | None) -> None:
        """Take one step's spread of the item embeddings; a rank of None leaves the one known before."""
        self._rank = self._rank if effective_rank is None else effective_rank
        bad = mean_cosine > COLLAPSED_COSINE or self._rank < COLLAPSED_RANK
        self.collapsed = self.collapsed + 1 if bad else 0
        if self.collapsed >= PATIENCE:
            raise TrainingError(
                f"the item embeddings have collapsed: mean cosine {mean_cosine:.4f}, effective rank {self._rank:.1f}, "
                f"for {PATIENCE} steps up to step {step}. {_ADVICE}"
            )

    def check_masked(self, step: int, share: float) -> None:
        """Take one step's share of masked negatives."""
        self.masked = self.masked + 1 if share > MASKED_SHARE else 0
        if self.masked >= PATIENCE:
            raise TrainingError(
                f"{share:.0%} of the negatives are masked as the target itself, for {PATIENCE} steps to step {step}: "
                "there is too little to tell apart. Raise objective.negatives.num_sampled or batch_size; with "
                'objective.loss.mask = "cosine" this is the collapse that the rule invites: set it to "id"'
            )

    def is_spike(self, loss: float) -> bool:
        """Tell whether the loss is far above its last 100 values: more than 6 standard deviations."""
        known = list(self._losses)
        self._losses.append(loss)
        if len(known) < SPIKE_WINDOW // 2:
            return False
        return loss > fmean(known) + SPIKE_DEVIATIONS * max(pstdev(known), 1e-3)
