"""Estimate the cost of one stage of training: items, tokens and operations of a step, and memory."""

# Proved by tests/jobs/planning/test_plan.py.

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from hllm.batches.negatives import NegativesConfig
from hllm.jobs.planning.facts import DataFacts
from hllm.jobs.planning.flops import NetworkCost, item_cost, projector_cost, user_cost
from hllm.models.recommender import SequentialRecommender
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import StageConfig
from hllm.training.muon import operations
from hllm.training.optimizer import matrices_of_item_llm

FP32_BYTES = 4  # of a weight, a gradient, a moment
_IN_BATCH = NegativesConfig(kind="in-batch")


@dataclass(frozen=True)
class StageCost:
    """Expectations for a full batch of one stage."""

    windows: float
    """Training windows in an epoch."""
    items: float
    """Distinct items of each batch that shares negatives, added up over a step."""
    tokens: float
    positions: float
    """Padding included."""
    negatives: float
    """For each target."""
    step_flops: float
    other_flops: float
    """Of encoding the catalogue and of the stage's validations."""
    memory_bytes: dict[str, float]
    trained: frozenset[str]
    """Names of the parameters that learn."""


@dataclass(frozen=True)
class _Batch:
    """The expected contents of a batch that shares its negatives."""

    sequences: int
    items: float
    """Distinct ones, negatives among them."""
    read: float
    """Items that the Item LLM reads, at the mean over steps; the vectors of the others are there already."""
    targets: float
    negatives: float
    """For each target."""
    longest: float
    """Positions of its longest sequence, to which the others are padded."""
    suffixes: float
    """Candidates, or [USER] vectors, that the user tier reads behind each sequence."""


@dataclass(frozen=True)
class _Networks:
    """The costs of the model's parts in a stage."""

    item: NetworkCost
    projector: NetworkCost
    user: NetworkCost
    texts: Int[np.ndarray, " sample"]
    """Positions that the item tier reads of some items; empty without text."""
    dim: int
    """Size of item and user embeddings."""

    @property
    def encoding(self) -> float:
        """Return the operations of one item through the item tier's language model."""
        return self.item.forward(self.texts) / max(1, len(self.texts))


def stage_cost(
    recipe: Recipe,
    stage: StageConfig,
    facts: DataFacts,
    outline: SequentialRecommender,
    *,
    precision: str,
    fused_attention: bool,
) -> StageCost:
    """Estimate a stage of the model `outline`, whose parameters are set to learn as in that stage."""
    trained = frozenset(name for name, parameter in outline.named_parameters() if parameter.requires_grad)
    lengths, counts = facts.windows(recipe.windows_in(stage))
    batch = _batch(facts, recipe, stage, lengths, counts)
    networks = _Networks(
        item=item_cost(outline),
        projector=projector_cost(outline),
        user=user_cost(outline),
        texts=_positions_of_texts(facts, outline),
        dim=outline.user_encoder.dim,
    )
    parts = stage.batch_size / batch.sequences
    return StageCost(
        windows=float(counts.sum()),
        items=parts * batch.items,
        tokens=parts * batch.read * float(networks.texts.mean()) if len(networks.texts) else 0.0,
        positions=stage.batch_size * (batch.longest + batch.suffixes),
        negatives=batch.negatives,
        step_flops=parts * _batch_flops(stage, batch, networks)
        + sum(operations(shape, precision) for shape in _by_muon(stage, outline)),
        other_flops=_other_flops(stage, facts, networks, recipe.model.max_history),
        memory_bytes=_memory(stage, batch, networks, facts, outline, precision, fused_attention),
        trained=trained,
    )


def _batch(
    facts: DataFacts,
    recipe: Recipe,
    stage: StageConfig,
    lengths: Int[np.ndarray, " length"],
    counts: Float[np.ndarray, " length"],
) -> _Batch:
    sequences = stage.batch_size if stage.gradient_cache else stage.micro_batch_size or stage.batch_size
    share = counts / counts.sum()
    both_ways = stage.objective.facts.reads_both_ways  # so it reads the whole window
    queries = stage.objective.num_queries((lengths - 1).astype(np.float64))
    targets = sequences * float((share * queries).sum())
    interactions = sequences * float((share * lengths).sum())
    up_to = np.cumsum(share) ** sequences  # chance that no sequence is longer
    longest = float((np.diff(up_to, prepend=0.0) * (lengths - (0 if both_ways else 1))).sum())
    suffixes, others = 0.0, 0.0
    if stage.points is not None and recipe.model.ranking is not None:
        points = float((share * np.minimum(stage.points.per_window, queries)).sum())
        # Labelled candidates are items of the window.
        candidates = 1 if recipe.model.ranking.targets else 1 + stage.points.num_negatives
        others = sequences * points * (candidates - 1)
        suffixes = points * (candidates if recipe.model.ranking.fusion == "early" else 1)

    def distinct(negatives: NegativesConfig) -> float:
        return min(
            float(facts.num_items), facts.expected_distinct(interactions, negatives, sequences, targets) + others
        )

    items = distinct(stage.negatives or _IN_BATCH)
    comparisons = _negatives(facts, stage.negatives, sequences, items) if stage.negatives is not None else 0.0
    num_read = _read(stage, items, distinct(_IN_BATCH))
    return _Batch(sequences, items, num_read, targets, comparisons, longest, suffixes)


def _read(stage: StageConfig, items: float, non_negatives: float) -> float:
    """Return how many of a batch's items are read; `non_negatives` are those that are not negatives alone."""
    if stage.item_tier == "frozen":
        return 0.0
    return (non_negatives if stage.reuse.negatives else items) * stage.reuse.share / stage.reuse.every


def _negatives(facts: DataFacts, config: NegativesConfig, sequences: int, items: float) -> float:
    """Return how many negatives each target of a batch with `items` distinct items is compared with."""
    if config.per_position:
        return float(config.num_sampled)
    if config.takes_batch:
        return items
    if config.counts_repeats:
        return config.num_drawn(sequences, 0.0)
    return facts.expected_distinct(0.0, config, sequences, 0.0)


def _batch_flops(stage: StageConfig, batch: _Batch, networks: _Networks) -> float:
    """Return the operations of one batch; with a gradient cache items are encoded twice and go back once."""
    passes = 2 if stage.gradient_cache else 1
    one, rows = np.ones(1), np.full(batch.sequences, batch.longest + batch.suffixes)
    projector = passes * networks.projector.forward(one) + networks.projector.backward(one)
    item = passes * networks.encoding + networks.item.backward(networks.texts) / max(1, len(networks.texts))
    user = networks.user.forward(rows) + networks.user.backward(rows)
    products = 2 * stage.loss.num_products if stage.loss is not None else 0
    return (
        batch.items * projector + batch.read * item + user + products * batch.targets * batch.negatives * networks.dim
    )


def _other_flops(stage: StageConfig, facts: DataFacts, networks: _Networks, history: int) -> float:
    """Return the operations of the stage's validations and, where vectors are kept, of encoding all items once."""
    frozen = stage.item_tier == "frozen"
    users: float = sum(
        number * networks.user.forward(np.array([min(length, history)]))
        for number, length in zip(facts.users_by_length.tolist(), facts.history_lengths.tolist(), strict=True)
    )
    items = facts.num_items * ((0.0 if frozen else networks.encoding) + networks.projector.forward(np.ones(1)))
    once = facts.num_items * networks.encoding if frozen or stage.reuse.on else 0.0
    ranking = 2.0 * facts.num_users * facts.num_items * networks.dim
    validations = max(1, -(-stage.epochs // stage.validate_every)) if stage.validate_every else 0
    return validations * (items + users + ranking) + once


def _memory(
    stage: StageConfig,
    batch: _Batch,
    networks: _Networks,
    facts: DataFacts,
    outline: SequentialRecommender,
    precision: str,
    fused: bool,
) -> dict[str, float]:
    """Return the bytes of each use, at the fullest moment of a step."""
    frozen = stage.item_tier == "frozen"
    sequences = stage.micro_batch_size or stage.batch_size
    activations = networks.user.activation_bytes(
        np.full(sequences, batch.longest + batch.suffixes), precision, fused_attention=fused
    )
    if not frozen and len(networks.texts):
        items = batch.read * stage.reuse.every * sequences / batch.sequences  # in a step that reads any
        of_texts = networks.item.activation_bytes(networks.texts, precision, fused_attention=fused)
        activations += items * of_texts / len(networks.texts)
    weights = sum(parameter.numel() for parameter in outline.parameters())
    learnt = sum(parameter.numel() for parameter in outline.parameters() if parameter.requires_grad)
    in_use = networks.user.weights + (0 if frozen else networks.item.weights)
    reader = outline.item_encoder.reader
    width = 0 if reader is None else reader.backbone.width
    sizes = {
        "weights": FP32_BYTES * weights,
        "gradients": FP32_BYTES * learnt,
        "optimizer": FP32_BYTES * (2 * learnt - sum(map(math.prod, _by_muon(stage, outline)))),
        "moving average": FP32_BYTES * learnt if stage.ema else 0,
        "bf16 copies": 2 * in_use if precision == "bf16" else 0,
        "cached items": FP32_BYTES * facts.num_items * width if frozen or stage.reuse.on else 0,
        "activations": activations,
    }
    return {name: float(size) for name, size in sizes.items() if size}


def _by_muon(stage: StageConfig, outline: SequentialRecommender) -> list[tuple[int, ...]]:
    """Return the shapes of the matrices that Muon moves; it keeps one mean of each, AdamW two."""
    names = matrices_of_item_llm(outline) if stage.item_optimizer == "muon" else frozenset()
    learning = (item for item in outline.named_parameters() if item[1].requires_grad)
    return [tuple(parameter.shape) for name, parameter in learning if name in names]


def _positions_of_texts(facts: DataFacts, outline: SequentialRecommender) -> Int[np.ndarray, " sample"]:
    """Return how many positions the item tier reads of each sampled item, [ITEM] vectors included."""
    reader = outline.item_encoder.reader
    item_tokens = 0 if reader is None or reader.item_token is None else len(reader.item_token)
    positions: Int[np.ndarray, " sample"] = facts.token_lengths + item_tokens
    return positions
