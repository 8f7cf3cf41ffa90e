"""Terms beside an objective: the sum by hand, and recipes whose terms cannot be."""

import contextlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from hllm.errors import ConfigError
from hllm.losses.contrastive import LossConfig
from hllm.models.item.ids import IdItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.user.gru4rec import GRU4Rec
from hllm.objectives.next_item import NextItem
from hllm.objectives.objective import Outcome
from hllm.objectives.terms import WithTerms
from hllm.recipe.recipe import Recipe
from hllm.training.parallel import Replicated
from hllm.training.step import accumulate
from tests.conftest import batch_of, recipe_values

WINDOWS = [np.array([5, 3, 5, 9]), np.array([3, 7]), np.array([1, 2, 4, 6, 8])]
TERM = {"kind": "next-item", "negatives": {"kind": "catalogue"}}


@dataclass(frozen=True)
class Shrink:
    """The mean squared length of the user embeddings."""

    def of_users(self, model, items, batch, users, count) -> Outcome:
        lengths = users[batch.mask].square().sum(-1)
        return Outcome(lengths.sum() / count, len(lengths), {"longest": lengths.detach().max()}, len(lengths))


@pytest.fixture
def model() -> SequentialRecommender:
    torch.manual_seed(0)
    return SequentialRecommender(
        IdItemEncoder(10, 8, init_std=1.0), GRU4Rec(dim=8, hidden=8, num_layers=1, dropout=0.0)
    )


def test_a_term_is_added_times_its_weight_and_has_numbers_of_its_own(model):
    batch = batch_of(WINDOWS, shared=[0, 9])
    items = model.item_encoder(batch.items)
    next_item = NextItem(LossConfig(), 10)
    alone = next_item(model, items, batch, 8)
    outcome = WithTerms(next_item, (("shrink", 0.5, Shrink()),))(model, items, batch, 8)
    lengths = model.users(items, batch)[batch.mask].square().sum(-1)
    assert len(lengths) == 8
    assert outcome.loss.item() == pytest.approx(alone.loss.item() + 0.5 * lengths.mean().item())
    assert outcome.numbers["shrink"].item() == pytest.approx(lengths.mean().item())
    assert outcome.numbers["longest"].item() == pytest.approx(lengths.max().item())
    assert outcome.numbers["top1"] == alone.numbers["top1"]


@pytest.mark.parametrize("shared", [[0, 9], [0, 9] * 2000], ids=["distinct", "pooled"])
def test_a_popular_items_gradient_in_bf16_is_that_in_fp32(model, shared):
    """Item 3 is in the history of 3,000 windows, item 7 their target, item 9 a negative: all are met often."""
    batch = batch_of([np.array([3, 7])] * 3000 + [np.array([5, 8])], shared=shared)
    exact = model.item_encoder(batch.items).detach().bfloat16()
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        items = exact.to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = NextItem(LossConfig(), 10)(model, items, batch, 1).loss
        loss.backward()
        gradients.append(items.grad.float())
    assert torch.isclose(gradients[1], gradients[0], rtol=0.03, atol=1e-3 * float(gradients[0].abs().max())).all()


def test_micro_batches_with_a_term_add_up_to_the_batch(model):
    batch = batch_of(WINDOWS, shared=list(range(10)))
    objective = WithTerms(NextItem(LossConfig(), 10), (("shrink", 0.5, Shrink()),))
    results = []
    for batches in ([batch], [batch[:1], batch[1:]]):
        model.zero_grad()
        outcome, _ = accumulate(
            model, objective, batches, contextlib.nullcontext, between=lambda: None, parallel=Replicated()
        )
        results.append((outcome, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (whole, expected), (parts, found) = results
    assert parts.loss.item() == pytest.approx(whole.loss.item(), rel=1e-6)
    assert parts.numbers["shrink"].item() == pytest.approx(whole.numbers["shrink"].item(), rel=1e-6)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"objective": {"kind": "masked-item"}, "terms": [TERM]}, "makes no user embedding at every position"),
        ({"objective": {"kind": "ranking"}, "terms": [TERM, TERM]}, "every kind may occur once"),
        ({"objective": {"kind": "next-item"}, "terms": [TERM]}, "both have negatives"),
        ({"objective": {"kind": "next-itm"}}, "there is no kind 'next-itm'.*did you mean 'next-item'"),
        ({"objective": {"kind": "next-item", "los": {}}}, r"unknown key .*objective.*los'.*did you mean 'loss'"),
        ({"objective": {"kind": "masked-item"}}, '"masked-item" is for "bert4rec", which reads both ways'),
        ({"objective": {"kind": "ranking"}}, r"stages\.0\.objective\.kind = .ranking. needs the table model\.ranking"),
        ({"negatives": {"kind": "catalogue"}}, r"unknown key 'stages\.0\.negatives'"),
        ({"terms": [TERM | {"weight": 0}]}, "greater than 0"),
        ({"windows": "strides", "window_stride": 9}, "window_stride 9 is beyond max_history 8"),
    ],
)
def test_objectives_that_cannot_be_are_explained(tiny_llama, stage, message):
    values = recipe_values(tiny_llama, tiny_llama)
    values["stages"] = [stage]
    with pytest.raises(ConfigError, match=message):
        Recipe.from_dict(values, where="test")


def test_an_override_reaches_into_the_objective(tiny_llama):
    values = recipe_values(tiny_llama, tiny_llama)
    values["stages"] = [{}]
    overrides = ["stages.0.objective.loss.kind=bce", "stages.0.objective.negatives.num_sampled=3"]
    (stage,) = Recipe.from_dict(values, where="test", overrides=overrides).stages
    assert (stage.objective.kind, stage.loss.kind, stage.negatives.num_sampled) == ("next-item", "bce", 3)
