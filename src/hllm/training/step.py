"""One optimizer step's gradients, from batches that fit in memory: added up, or cached so that one pool is shared.

Source of the cached form: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
arXiv:2101.06983. The cut is at the item embeddings: a query's loss needs every item embedding but only its own
history, so sequences can be taken one part at a time once all items are embedded.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor

from hllm.data.batch import SequenceBatch
from hllm.models.recommender import SequentialRecommender
from hllm.objectives.objective import Objective, Outcome

Autocast = Callable[[], AbstractContextManager[object]]


def accumulate(
    model: SequentialRecommender,
    objective: Objective,
    batches: Sequence[SequenceBatch],
    autocast: Autocast,
    *,
    between: Callable[[], None],
) -> tuple[Outcome, Float[Tensor, "item dim"]]:
    """Add the gradients of `batches`, each with negatives of its own; return the step's outcome and some embeddings.

    The loss is the mean over the queries of all batches, whatever their sizes. `between` is called before each
    batch. Returns the last batch's item embeddings for the alarms.
    """
    count = sum(batch.num_targets for batch in batches)
    outcomes = []
    for batch in batches:
        between()
        with autocast():
            items = model.item_encoder(batch.items)
            outcome = objective(model, items, batch, count)
        outcome.loss.backward()
        outcomes.append(outcome)
    return _corrected(model, outcomes, count), items.detach()


def cached(
    model: SequentialRecommender,
    objective: Objective,
    batch: SequenceBatch,
    autocast: Autocast,
    *,
    size: int,
    between: Callable[[], None],
) -> tuple[Outcome, Float[Tensor, "item dim"]]:
    """Give the gradients of the whole batch with `size` sequences, and their share of the items, in memory at once.

    The items are encoded twice: first without gradients, to make the embeddings that all sequences share; then,
    part by part, to take the embeddings' gradient back through the item tier. Random numbers drawn in the first
    pass, by dropout for example, are drawn again in the second.
    """
    count = batch.num_targets
    parts = -(-len(batch.mask) // size)
    per_part = -(-len(batch.items) // parts)
    slices = [slice(start, start + per_part) for start in range(0, len(batch.items), per_part)]
    states, embedded = [], []
    for part in slices:
        between()
        states.append(_random_state())
        with torch.no_grad(), autocast():
            embedded.append(model.item_encoder(batch.items[part]))
    items = torch.cat(embedded).float().requires_grad_()  # gradients of many parts add up here
    outcomes = []
    for start in range(0, len(batch.mask), size):
        between()
        with autocast():
            outcome = objective(model, items, batch[start : start + size], count)
        outcome.loss.backward()
        outcomes.append(outcome)
    assert items.grad is not None
    after = _random_state()
    for part, state in zip(slices, states, strict=True):
        between()
        _set_random_state(state)
        with autocast():
            again = model.item_encoder(batch.items[part])
        if again.requires_grad:
            again.backward(items.grad[part].to(again.dtype))
    _set_random_state(after)
    return _corrected(model, outcomes, count), items.detach()


def _corrected(model: SequentialRecommender, outcomes: Sequence[Outcome], count: int) -> Outcome:
    """Join outcomes whose losses were divided by `count` into one; their gradients become those of a mean."""
    queries = sum(outcome.num_queries for outcome in outcomes)
    factor = count / max(1, queries)  # 1 unless the objective asks for other positions than the targets
    if factor != 1:
        torch._foreach_mul_([p.grad for p in model.parameters() if p.grad is not None], factor)
    numbers = {
        name: torch.stack([outcome.numbers[name] * outcome.num_queries for outcome in outcomes]).sum() / max(1, queries)
        for name in outcomes[0].numbers
    }
    return Outcome(factor * torch.stack([outcome.loss.detach() for outcome in outcomes]).sum(), queries, numbers)


def _random_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
