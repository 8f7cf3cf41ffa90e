"""The settings of one stage of training."""

# Proved by tests/training/test_training.py.

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from hllm.batches.loader import ReuseConfig
from hllm.batches.negatives import NegativesConfig
from hllm.batches.points import PointsConfig
from hllm.batches.windows import WindowConfig, Windows
from hllm.config import Config
from hllm.losses.contrastive import LossConfig
from hllm.models.build import ModelConfig, require_separate_tiers
from hllm.objectives.next_item import NextItemConfig
from hllm.objectives.objective import GoalConfig, ObjectiveConfig, TermConfig


class StageConfig(Config):
    """One stretch of training with its own schedule."""

    name: str = "train"
    """Shown in progress and metrics."""
    item_tier: Literal["train", "frozen"] = "train"
    """"frozen" encodes the catalogue once and trains the projector and the user tier on these vectors."""
    user_tier: Literal["train", "frozen"] = "train"
    """"frozen" trains the item tier against a user tier that stays as it is."""
    start: Literal["last", "best"] = "last"
    """The weights that the stage begins with: those at the end of the stage before, or the best so far."""
    objective: SerializeAsAny[ObjectiveConfig] = NextItemConfig()
    """The loss that is learnt; without a kind it is "next-item". "next-item": tell the item that followed from others.
    "masked-item": hide items and ask for them. "ranking": the labels of candidates."""
    terms: tuple[SerializeAsAny[TermConfig], ...] = ()
    """Losses that are added to the objective's, each times its weight; every kind once. "next-item" beside "ranking"
    teaches to retrieve too."""
    max_history: int | None = Field(default=None, ge=1)
    """Most items of a history that this stage trains on. None: model.max_history, which is the limit and what
    validations read, as serving does."""
    windows: Windows = "all-targets"
    """How a long history is cut for training. "all-targets": from the latest backwards, neighbours share an item, so
    that every item but the first is a target once. "latest": only the latest window, which is the cheapest. "blocks":
    as the HLLM paper's code, windows that share nothing; the oldest items that do not fill one are dropped. "strides":
    from the latest backwards, each window_stride before the last, until one holds the oldest item. There an item is a
    target once in every window that it is in, but not as the window's first."""
    window_stride: int | None = Field(default=None, ge=1)
    """"strides" only: items between the ends of neighbouring windows, max_history at most. None: half of
    max_history."""
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
    """The optimizer of the matrices of the Item LLM's layers. "muon" moves them as far in rare directions as in the one
    that all items share. AdamW moves all else."""
    warmup: float = Field(default=0.1, ge=0, le=1)
    """Share of the stage's steps in which the rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """The rate after the warm-up: "constant" keeps it, the others let it fall to 0 by the end of the stage."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decay of the parameters that `decay` names."""
    decay: Literal["matrices", "all"] = "matrices"
    """Parameters that decay: "matrices" spares norms, biases, the [ITEM] vector and the scale; "all" spares nothing."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's two decay rates of its running means; Muon takes the first."""
    max_gradient_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm; inf leaves them as they are."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay, for each step, of a running mean of the weights. The mean is validated and kept instead of the weights.
    0: there is none."""
    early_stopping: int = Field(default=0, ge=0)
    """End the stage after so many validations in a row that did not improve select_by. 0: never."""
    validate_every: int = Field(default=1, ge=0)
    """Epochs between two validations; the stage's last epoch is validated too. 0: none, for a stage that only prepares
    the next one."""
    reuse: ReuseConfig = ReuseConfig()
    """Items that the Item LLM does not read anew in a step."""

    effective_with = {  # noqa: RUF012
        "window_stride": ("windows", ("strides",)),
        "item_learning_rate": ("item_tier", ("train",)),
        "user_learning_rate": ("user_tier", ("train",)),
        "item_optimizer": ("item_tier", ("train",)),
    }

    @property
    def described(self) -> str:
        """Return what the stage trains, by which losses, for tables."""
        if not self.epochs:
            return "nothing (0 epochs: the weights stay as they are)"
        frozen = [f"frozen {tier}s" for tier in ("item", "user") if getattr(self, f"{tier}_tier") == "frozen"]
        return " + ".join(goal.described for goal in self.goals) + "".join(f", {each}" for each in frozen)

    @property
    def goals(self) -> tuple[GoalConfig, ...]:
        """Return the objective and the terms beside it."""
        return (self.objective, *self.terms)

    @property
    def negatives(self) -> NegativesConfig | None:
        """Return the negatives that the stage's batches hold, if any."""
        return next((goal.drawn_negatives for goal in self.goals if goal.drawn_negatives is not None), None)

    @property
    def points(self) -> PointsConfig | None:
        """Return the candidates that the stage's batches hold, if any."""
        return next((goal.drawn_points for goal in self.goals if goal.drawn_points is not None), None)

    @property
    def loss(self) -> LossConfig | None:
        """Return the loss that tells targets and negatives apart, if there is one."""
        return next((goal.contrastive_loss for goal in self.goals if goal.contrastive_loss is not None), None)

    @property
    def retrieves(self) -> bool:
        """Return whether the stage teaches the model to retrieve."""
        return any(goal.facts.retrieves for goal in self.goals)

    @property
    def ranks(self) -> bool:
        """Return whether the stage teaches the heads of model.ranking."""
        return any(goal.facts.ranks for goal in self.goals)

    def windows_of(self, model: ModelConfig) -> WindowConfig:
        """Return how the stage cuts histories for this model; ValueError for a stride that cannot be."""
        return WindowConfig(self.max_history or model.max_history, self.windows, self.window_stride)

    def check(self, model: ModelConfig) -> None:
        """Raise ValueError if the stage cannot train this model; the message begins with a key of the stage."""
        for goal in self.goals:
            goal.check(model)
        for tier in ("item", "user"):
            if getattr(self, f"{tier}_tier") == "frozen":
                require_separate_tiers(model, frozen=tier)
        if not model.item.facts.reads_text:
            if self.item_tier == "frozen":
                raise ValueError('item_tier = "frozen" needs model.item.kind = "llm": ids have nothing to start from')
            if self.reuse.on:
                raise ValueError('reuse needs model.item.kind = "llm": ids are not read, so nothing is saved')
            if self.item_optimizer == "muon":
                raise ValueError(
                    'item_optimizer = "muon" needs model.item.kind = "llm": it moves the matrices of layers'
                )
            if self.item_learning_rate is not None:
                raise ValueError('item_learning_rate needs model.item.kind = "llm": it is a language model\'s')
        if self.max_history is not None and self.max_history > model.max_history:
            raise ValueError(
                f"max_history {self.max_history} is beyond model.max_history, which is {model.max_history} and the "
                "most that the model reads anywhere"
            )
        self.windows_of(model)

    @field_validator("objective", mode="before")
    @classmethod
    def _next_item_unless_said(cls, value: Any) -> Any:
        return {"kind": "next-item", **value} if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _agree(self) -> "StageConfig":
        if self.gradient_cache and self.micro_batch_size is None:
            raise ValueError("gradient_cache = true needs micro_batch_size: the number of windows in memory at once")
        if self.item_tier == self.user_tier == "frozen":
            raise ValueError("item_tier and user_tier are both frozen: there is nothing to train")
        if not self.validate_every and (self.early_stopping or not self.epochs):
            what = "early_stopping" if self.early_stopping else "epochs = 0"
            raise ValueError(f"{what} needs validations, and validate_every is 0: set it to 1 or more")
        if self.reuse.on and self.item_tier == "frozen":
            raise ValueError('item_tier = "frozen" reuses all item vectors as it is: leave out reuse')
        if self.reuse.on and self.ema:
            raise ValueError("ema validates averaged weights, whose item vectors reuse would train on: leave out one")
        return self

    @model_validator(mode="after")
    def _terms_stand_beside_the_objective(self) -> "StageConfig":
        if self.terms and not self.objective.facts.makes_users:
            raise ValueError(
                f'objective.kind = "{self.objective.kind}" makes no user embedding at every position, which terms '
                "need: leave out terms"
            )
        if len({term.kind for term in self.terms}) < len(self.terms):
            raise ValueError("terms: every kind may occur once")
        if sum(goal.drawn_negatives is not None for goal in self.goals) > 1:
            raise ValueError("objective and terms both have negatives, and a batch holds those of one")
        return self


class CheckpointsConfig(Config):
    """Training is saved after every validation, and at these times."""

    every_s: float = Field(default=600.0, gt=0)
    """Seconds of training between two checkpoints."""
    every_steps: int | None = Field(default=None, ge=1)
    """Steps between two checkpoints. None: only every_s counts."""
    keep: int = Field(default=2, ge=1)
    """Number of last checkpoints that are kept, besides the best one."""
