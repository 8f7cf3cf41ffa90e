"""The collapse alarm: stop, with advice, when training has stopped meaning anything."""

import math

from hllm.errors import TrainingError

COLLAPSED_COSINE = 0.995
MASKED_SHARE = 0.5
PATIENCE = 100


class CollapseAlarm:
    """Watches every step's numbers; raises TrainingError when they say that nothing is being learnt.

    Item embeddings that all point the same way (mean cosine above 0.995) or negatives that are mostly masked
    are borne for 100 steps in a row: an untrained [ITEM] vector starts near .99 and needs some to spread.
    """

    def __init__(self) -> None:
        self.steps_collapsed = 0
        self.steps_masked = 0

    def check(self, step: int, loss: float, gradient_norm: float, mean_cosine: float, masked_negatives: float) -> None:
        """Take one step's numbers, before it changes the weights."""
        if not math.isfinite(loss + gradient_norm):
            raise TrainingError(
                f"step {step} has loss {loss} and gradient norm {gradient_norm}: lower learning_rate, or set "
                'precision = "fp32". The last checkpoint is from before it'
            )
        self.steps_collapsed = self.steps_collapsed + 1 if mean_cosine > COLLAPSED_COSINE else 0
        if self.steps_collapsed >= PATIENCE:
            raise TrainingError(
                f"the item embeddings have collapsed: mean cosine {mean_cosine:.4f} for {PATIENCE} steps up to step "
                f"{step}. Lower item_learning_rate, set model.item.whiten = true, or begin with a stage whose "
                'item_tier is "frozen"'
            )
        self.steps_masked = self.steps_masked + 1 if masked_negatives > MASKED_SHARE else 0
        if self.steps_masked >= PATIENCE:
            raise TrainingError(
                f"{masked_negatives:.0%} of the negatives are the target itself, for {PATIENCE} steps to step {step}: "
                "there is too little to tell apart. Raise negatives.num_sampled or batch_size"
            )
