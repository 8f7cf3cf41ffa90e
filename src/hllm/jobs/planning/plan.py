"""Plan a recipe before anything is trained: parameters, steps, operations, memory, disk and time."""

import math
from pathlib import Path

import torch

from hllm.config import Config
from hllm.jobs.planning.cost import FP32_BYTES, StageCost, stage_cost
from hllm.jobs.planning.facts import gather_facts
from hllm.jobs.planning.speed import EFFICIENCY, gemm_rate
from hllm.models.build import outline_model
from hllm.models.recommender import SequentialRecommender
from hllm.precision import choose_device, resolve_precision
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import StageConfig
from hllm.training.stages import set_learning

_NAMES = {"item_llm": "item tier", "item": "item tier", "user": "user tier"}  # other parts are called as they are


class TierPlan(Config):
    """One part of the model."""

    name: str
    parameters: int
    trained: int
    """Parameters that learn in some stage."""


class StagePlan(Config):
    """One stage. Numbers of a step are expectations for a full batch."""

    name: str
    epochs: int
    windows: float
    """Training windows in an epoch."""
    steps: int
    """Optimizer steps in all epochs."""
    items_per_step: float
    """Items that are encoded, or looked up if frozen: each distinct one of a batch that is in memory at once."""
    tokens_per_step: float
    """Tokens of text that the item tier reads."""
    positions_per_step: float
    """Positions that the user tier reads, those that pad a batch included."""
    negatives_per_target: float
    flops_per_step: float
    training_flops: float
    """Of all steps."""
    other_flops: float
    """Of encoding the catalogue and of the validations."""
    memory_bytes: dict[str, float]
    """At the fullest moment of a step, by what takes it."""
    seconds: float | None
    """On this machine."""

    @property
    def flops(self) -> float:
        """Return all operations of the stage."""
        return self.training_flops + self.other_flops


class Plan(Config):
    """An estimate; nothing in it was run, but for products of matrices to see how fast they are."""

    about: str
    data: str
    counted: bool
    """Whether the data were read; else sizes are published ones."""
    num_users: int
    num_items: int
    num_interactions: int
    tokens_per_item: float | None
    tiers: tuple[TierPlan, ...]
    stages: tuple[StagePlan, ...]
    checkpoint_bytes: float
    """Of the best checkpoint and of those to go on from."""
    table_bytes: float
    """Of the item vectors."""
    device: str
    precision: str
    flops_per_second: float | None
    """Of products of matrices on this machine, as measured."""
    efficiency: float
    """Share of it that training is taken to reach."""
    missing: tuple[str, ...]
    """Things that are not on this machine."""
    assumed: tuple[str, ...]

    @property
    def flops(self) -> float:
        """Return all operations of the run."""
        return sum(stage.flops for stage in self.stages)

    @property
    def seconds(self) -> float | None:
        """Return the time of the run on this machine, where its speed was measured."""
        return None if self.flops_per_second is None else self.flops / (self.flops_per_second * self.efficiency)

    @property
    def parameters(self) -> int:
        """Return the number of weights."""
        return sum(tier.parameters for tier in self.tiers)


def plan_recipe(recipe: Recipe, base: Path, *, measure: bool = True) -> Plan:
    """Estimate what training costs; takes seconds and no more memory than the data, whatever the model's size.

    `measure=False` neither reads the data of known sets nor times this machine. It takes a GPU in bf16, so the result
    is the same everywhere. Raises ConfigError and DataError for what training would refuse at its start. Data sets
    and models that are known and not at hand are no error: they are outlined, and listed in `missing`.
    """
    facts = gather_facts(recipe, base, count=measure)
    outline = outline_model(recipe.model, num_items=facts.num_items, num_actions=facts.num_actions, base=base)
    device = choose_device() if measure else torch.device("cuda")
    precision = resolve_precision(recipe.precision, device) if measure else "bf16"
    learnable = frozenset(name for name, parameter in outline.named_parameters() if parameter.requires_grad)
    costs = []
    for stage in recipe.stages:
        set_learning(outline, stage, learnable)
        fused = device.type == "cuda"
        costs.append(stage_cost(recipe, stage, facts, outline, precision=precision, fused_attention=fused))
    rate = gemm_rate(_width(outline), precision, device) if measure else None
    speed = None if rate is None else rate * EFFICIENCY[device.type, precision]
    weights = FP32_BYTES * sum(parameter.numel() for parameter in outline.parameters())
    state = max(cost.memory_bytes["optimizer"] + cost.memory_bytes.get("moving average", 0.0) for cost in costs)
    return Plan(
        about=recipe.about,
        data=facts.name,
        counted=facts.counted,
        num_users=facts.num_users,
        num_items=facts.num_items,
        num_interactions=facts.num_interactions,
        tokens_per_item=float(facts.token_lengths.mean()) if facts.token_lengths.size else None,
        tiers=_tiers(outline, frozenset[str]().union(*(cost.trained for cost in costs))),
        stages=tuple(_stage(stage, cost, speed) for stage, cost in zip(recipe.stages, costs, strict=True)),
        checkpoint_bytes=weights + recipe.checkpoints.keep * (weights + state),
        table_bytes=float(FP32_BYTES * facts.num_items * outline.user_encoder.dim),
        device=device.type,
        precision=precision,
        flops_per_second=rate,
        efficiency=EFFICIENCY[device.type, precision],
        missing=facts.missing,
        assumed=facts.assumed,
    )


def _stage(stage: StageConfig, cost: StageCost, speed: float | None) -> StagePlan:
    """Join settings and costs; the last step of an epoch may be smaller, so operations follow the windows."""
    training = stage.epochs * cost.windows / stage.batch_size * cost.step_flops
    return StagePlan(
        name=stage.name,
        epochs=stage.epochs,
        windows=cost.windows,
        steps=stage.epochs * math.ceil(cost.windows / stage.batch_size),
        items_per_step=cost.items,
        tokens_per_step=cost.tokens,
        positions_per_step=cost.positions,
        negatives_per_target=cost.negatives,
        flops_per_step=cost.step_flops,
        training_flops=training,
        other_flops=cost.other_flops,
        memory_bytes=cost.memory_bytes,
        seconds=None if speed is None else (training + cost.other_flops) / speed,
    )


def _tiers(outline: SequentialRecommender, trained: frozenset[str]) -> tuple[TierPlan, ...]:
    """Count the parameters of each part; those that two parts share stand with the first."""
    tiers: dict[str, list[int]] = {}
    for part, parameters in outline.parts().items():
        counts = tiers.setdefault(_NAMES.get(part, part), [0, 0])
        counts[0] += sum(parameter.numel() for parameter in parameters.values())
        counts[1] += sum(parameter.numel() for name, parameter in parameters.items() if name in trained)
    return tuple(TierPlan(name=name, parameters=size, trained=learnt) for name, (size, learnt) in tiers.items() if size)


def _width(outline: SequentialRecommender) -> int:
    """Return the width of the wider of both tiers: the size of the products that take most of the time."""
    reader = outline.item_encoder.reader
    return max(0 if reader is None else reader.backbone.width, outline.user_encoder.dim)
