"""The settings of one stage of training."""

from typing import Literal

from pydantic import Field, model_validator

from hllm.batches.loader import ReuseConfig, Windows
from hllm.batches.negatives import NegativesConfig
from hllm.batches.points import PointsConfig
from hllm.config import Config
from hllm.losses.contrastive import LossConfig
from hllm.objectives.masked_item import MaskedItemConfig

RANKING_METRICS = ("auc", "gauc")
"""What `select_by` may name besides metrics of lists."""


class StageConfig(Config):
    """One stretch of training with its own schedule."""

    name: str = "train"
    """Shown in progress and metrics."""
    item_tier: Literal["train", "frozen"] = "train"
    """"frozen" encodes the catalogue once and trains the projector and the user tier on these vectors."""
    user_tier: Literal["train", "frozen"] = "train"
    """"frozen" trains the item tier against a user tier that stays as it is."""
    start: Literal["last", "best"] = "last"
    """Which weights the stage begins with: those the stage before ended with, or the best so far."""
    objective: Literal["next-item", "masked-item", "ranking"] = "next-item"
    """"masked-item" hides items and asks for them, for user tiers that read both ways (BERT4Rec). "ranking" learns the
    labels of candidates, beside the next item, for a model with the table model.ranking."""
    max_history: int | None = Field(default=None, ge=1)
    """Most items of a history that this stage trains on. None: model.max_history, which is the limit and what
    validations read, as serving does."""
    windows: Windows | None = None
    """How histories become windows in this stage; "latest" is the cheapest. None: as model.windows says."""
    epochs: int = Field(default=1, ge=0)
    """Passes over the training windows. 0: the model is validated and kept as it is."""
    batch_size: int = Field(default=64, ge=1)
    """Windows in an optimizer step."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Windows that are in memory at once; gradients add up to those of batch_size. None: all of them."""
    gradient_cache: bool = False
    """Share one pool of negatives in the whole batch, though it is taken in micro-batches: the exact gradient of the
    large batch, for a second pass over the items. False: each micro-batch has negatives of its own."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Peak rate of everything that the two rates below do not cover."""
    item_learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate of the item tier's language model. None: learning_rate."""
    user_learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate of the user tier. None: learning_rate."""
    item_optimizer: Literal["adamw", "muon"] = "adamw"
    """What moves the matrices of the Item LLM's layers. "muon" moves them as far in rare directions as in the one that
    all items share; all else is AdamW's."""
    warmup: float = Field(default=0.1, ge=0, le=1)
    """Share of the stage's steps in which the rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate goes on after the warm-up: falls to 0 by the end of the stage, or stays."""
    weight_decay: float = Field(default=0.01, ge=0)
    """On what `decay` says."""
    decay: Literal["matrices", "all"] = "matrices"
    """What decays: "matrices" spares norms, biases, the [ITEM] vector and the scale; "all" spares nothing."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's two decay rates of its running means; the first is Muon's too."""
    max_gradient_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm; inf leaves them as they are."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay, for each step, of a running mean of the weights, which is validated and kept instead of the weights. 0:
    none."""
    early_stopping: int = Field(default=0, ge=0)
    """End the stage after so many validations in a row that did not improve select_by. 0: never."""
    validate_every: int = Field(default=1, ge=0)
    """Epochs between two validations; the stage's last epoch is validated too. 0: none, for a stage that only prepares
    the next one."""
    negatives: NegativesConfig = NegativesConfig()
    """What each position's target is told apart from."""
    reuse: ReuseConfig = ReuseConfig()
    """Which items the Item LLM does not read anew in a step."""
    loss: LossConfig = LossConfig()
    """How the target is told apart from the negatives."""
    masking: MaskedItemConfig = MaskedItemConfig()
    """For objective = "masked-item"."""
    ranking: PointsConfig = PointsConfig()
    """For objective = "ranking"."""

    @property
    def only_ranks(self) -> bool:
        """Return whether the stage learns candidates alone, without a next-item loss."""
        return self.objective == "ranking" and self.ranking.generative_weight == 0

    @model_validator(mode="after")
    def _agree(self) -> "StageConfig":
        if self.gradient_cache and self.micro_batch_size is None:
            raise ValueError("gradient_cache = true needs micro_batch_size: what is in memory at once")
        if self.only_ranks and self.loss.matryoshka:
            raise ValueError(
                "loss.matryoshka is of the next-item loss, which ranking.generative_weight = 0 leaves out: the first "
                "numbers of the vectors would not be trained"
            )
        if self.item_tier == self.user_tier == "frozen":
            raise ValueError("item_tier and user_tier are both frozen: there is nothing to train")
        if not self.validate_every and (self.early_stopping or not self.epochs):
            what = "early_stopping" if self.early_stopping else "epochs = 0"
            raise ValueError(f"{what} needs validations, and validate_every is 0: set it to 1 or more")
        if self.reuse.on and self.item_tier == "frozen":
            raise ValueError('item_tier = "frozen" reuses all item vectors as it is: leave out reuse')
        if self.reuse.on and self.ema:
            raise ValueError("ema validates averaged weights, whose item vectors reuse would train on: leave out one")
        if self.item_optimizer == "muon" and self.item_tier == "frozen":
            raise ValueError('item_tier = "frozen" trains no Item LLM: leave out item_optimizer')
        if self.loss.kind in ("bce", "gbce") and self.negatives.kind == "catalogue":
            raise ValueError(f'loss.kind = "{self.loss.kind}" needs sampled negatives, found "catalogue"')
        return self


class CheckpointsConfig(Config):
    """When training is saved, besides after every validation."""

    every_s: float = Field(default=600.0, gt=0)
    """Seconds of training between two checkpoints."""
    every_steps: int | None = Field(default=None, ge=1)
    """Steps between two checkpoints. None: only every_s counts."""
    keep: int = Field(default=2, ge=1)
    """How many of the last checkpoints are kept, besides the best one."""
