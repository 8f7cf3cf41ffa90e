"""One optimizer step's gradients, from batches that fit in memory: added up, or cached so that one pool is shared.

Several processes share a step: each encodes its shard of a batch's items, gets the others' embeddings, and takes its
share of the sequences. Losses are divided by the targets of all, so that gradients add up to those of one process.

Source of the cached form: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
arXiv:2101.06983. The cut is at the item embeddings: a query's loss needs every item embedding but only its own
history, so sequences can be taken one part at a time once all items are embedded.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hllm.batches.batch import ItemBatch, SequenceBatch
from hllm.batches.item_plan import ItemPlan, plan_items
from hllm.distributed import Group
from hllm.models.recommender import SequentialRecommender
from hllm.objectives.objective import Objective, Outcome
from hllm.training.parallel import Parallel

Autocast = Callable[[], AbstractContextManager[object]]


def accumulate(
    model: SequentialRecommender,
    objective: Objective,
    batches: Sequence[SequenceBatch],
    autocast: Autocast,
    *,
    between: Callable[[], None],
    parallel: Parallel,
) -> tuple[Outcome, Float[Tensor, "item dim"]]:
    """Add the gradients of `batches`, each with negatives of its own; return the step's outcome and some embeddings.

    The loss is the weighted mean over the queries of all batches, whatever their sizes. `between` is called before each
    batch. Returns the last batch's item embeddings for the alarms.
    """
    count, group = sum(batch.target_weight for batch in batches), parallel.group
    outcomes = []
    for batch in batches:
        between()
        own, weight = _own_sequences(batch, group)
        plan = plan_items(batch.items.lengths.numpy(), num_shards=group.size)
        with autocast():
            shard = _encode(model, batch.items, plan.shard(group.rank))
            items = F.embedding(_rows(plan.inverse, shard), group.gather(shard, plan.shard_sizes))
            outcome = _weighted(objective(model, items, own, count), weight)
        outcome.loss.backward()
        outcomes.append(outcome)
        _share_memory(model, batch.items, plan, group)
    return _corrected(model, outcomes, count, parallel), items.detach()


def cached(
    model: SequentialRecommender,
    objective: Objective,
    batch: SequenceBatch,
    autocast: Autocast,
    *,
    size: int,
    between: Callable[[], None],
    parallel: Parallel,
) -> tuple[Outcome, Float[Tensor, "item dim"]]:
    """Give the gradients of the whole batch with `size` sequences, and their share of the items, in memory at once.

    The items are encoded twice: first without gradients, to make the embeddings that all sequences share; then,
    part by part, to take the embeddings' gradient back through the item tier. Random numbers drawn in the first
    pass, by dropout for example, are drawn again in the second. Parts hold items of like length, and equal tokens.
    """
    count, group = batch.target_weight, parallel.group
    rounds = -(-len(batch.mask) // (size * group.size))
    plan = plan_items(batch.items.lengths.numpy(), num_shards=rounds * group.size)
    parts = [plan.shard(group.rank * rounds + number) for number in range(rounds)]
    states, embedded = [], []
    for part in parts:
        between()
        states.append(_random_state())
        with torch.no_grad(), autocast():
            embedded.append(_encode(model, batch.items, part))
    own_rows = torch.cat(embedded).float()
    in_order = group.gather(own_rows, np.add.reduceat(plan.shard_sizes, range(0, rounds * group.size, rounds)).tolist())
    items = in_order[_rows(plan.inverse, in_order)].requires_grad_()  # gradients of many parts add up here
    own, weight = _own_sequences(batch, group)
    outcomes = []
    for start in range(0, len(own.mask), size):
        between()
        with autocast():
            outcome = _weighted(objective(model, items, own[start : start + size], count), weight)
        outcome.loss.backward()
        outcomes.append(outcome)
    assert items.grad is not None
    group.add_up([items.grad])
    after = _random_state()
    for part, state in zip(parts, states, strict=True):
        between()
        _set_random_state(state)
        with autocast():
            again = _encode(model, batch.items, part)
        if again.requires_grad:
            again.backward(items.grad[_rows(part, items)].to(again.dtype))
    _set_random_state(after)
    _share_memory(model, batch.items, plan, group)
    return _corrected(model, outcomes, count, parallel), items.detach()


def _own_sequences(batch: SequenceBatch, group: Group) -> tuple[SequenceBatch, int]:
    """Return this process's share of the sequences and 1; where there are too few for all, any one of them and 0."""
    if group.size == 1:
        return batch, 1
    share = group.slice_of(len(batch.mask))
    return (batch[share], 1) if share.start < share.stop else (batch[:1], 0)


def _weighted(outcome: Outcome, weight: int) -> Outcome:
    """Return the outcome, or nothing of it where the weight is 0; without user embeddings, which take memory."""
    if weight:
        return replace(outcome, users=None)
    return Outcome(0 * outcome.loss, 0, outcome.numbers, 0)


def _encode(model: SequentialRecommender, items: ItemBatch, rows: Int[np.ndarray, " row"]) -> Float[Tensor, "row dim"]:
    """Return the embeddings of some rows; if none of them is read, still a part of the graph of one that is.

    So every process has a gradient for every weight that any has one for.
    """
    read = items.lengths.numpy() > 0
    parts = [model.item_encoder(items.take(rows))] if len(rows) else []
    if not len(rows) or (read.any() and not read[rows].any()):
        parts.append(model.item_encoder(items.take(np.array([read.argmax()])))[:0])
    return torch.cat(parts) if len(parts) > 1 else parts[0]


@torch.no_grad()
def _share_memory(model: SequentialRecommender, items: ItemBatch, plan: ItemPlan, group: Group) -> None:
    """Let every process remember the items that the shards of all have read."""
    memory = model.item_encoder.remembered
    if group.size == 1 or memory is None:
        return
    has_text = items.lengths.numpy() > 0
    per_process = np.split(plan.order, plan.shard_offsets[:: len(plan.shard_sizes) // group.size][1:-1])
    rows_read = [rows[has_text[rows]] for rows in per_process]
    if any(map(len, rows_read)):
        own, every = (
            items.index[_rows(rows, items.index)] for rows in (rows_read[group.rank], np.concatenate(rows_read))
        )
        memory[every] = group.gather(memory[own], [len(rows) for rows in rows_read])


def _rows(rows: Int[np.ndarray, " row"], beside: Tensor) -> Int[Tensor, " row"]:
    return torch.from_numpy(rows).to(beside.device, non_blocking=True)


def _corrected(
    model: SequentialRecommender, outcomes: Sequence[Outcome], count: int | float, parallel: Parallel
) -> Outcome:
    """Join outcomes whose losses were divided by `count` into one, and gradients of all processes into those of a mean.

    The factor is 1 unless the objective asks for other positions than the targets.
    """
    names = list(outcomes[0].numbers)
    sums = torch.zeros(3 + len(names), dtype=torch.float64, device=outcomes[0].loss.device)
    for outcome in outcomes:
        sums[0] += outcome.loss.detach()
        sums[1] += outcome.num_queries
        sums[2] += outcome.weight
        for place, name in enumerate(names, 3):
            sums[place] += outcome.numbers[name] * outcome.num_queries
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    parallel.add_up(sums, gradients)
    queries, weight = sums[1:3].tolist()
    factor = count / (weight or 1)
    if factor != 1:
        torch._foreach_mul_(gradients, factor)
    means = dict(zip(names, (sums[3:] / max(1, queries)).float(), strict=True))
    return Outcome((factor * sums[0]).float(), int(queries), means, weight)


def _random_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
