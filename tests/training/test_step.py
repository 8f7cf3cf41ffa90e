import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from hllm.batches.item_plan import plan_items
from hllm.batches.loader import BatchContents, TrainingLoader
from hllm.batches.negatives import NegativesConfig
from hllm.batches.windows import WindowConfig
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.split import split_dataset
from hllm.losses.contrastive import LossConfig
from hllm.models.build import ModelConfig, build_model
from hllm.objectives.next_item import NextItem
from hllm.runs.run import Run
from hllm.training.ema import MovingAverage
from hllm.training.fit import catalogue_tokens
from hllm.training.parallel import Replicated
from hllm.training.step import accumulate, cached
from tests.conftest import recipe_values


@pytest.fixture
def world(dataset, tiny_llama, tmp_path):
    """A text model with a learnt [ITEM] vector, and its training batches of 8 windows."""
    values = recipe_values(tiny_llama, tiny_llama)["model"]
    values["item"] |= {"whiten": False, "pooling": "item"}
    config = ModelConfig.from_dict(values, where="test")
    torch.manual_seed(0)
    model = build_model(config, num_items=dataset.num_items, num_actions=0, base=tmp_path)
    tokens = catalogue_tokens(Run(tmp_path), dataset, config.item.text_prompt, tiny_llama)

    def batches(micro_batch_size=None, negatives=None):
        loader = TrainingLoader(
            dataset, split_dataset(dataset, LeaveOneOutSplit()), tokens,
            BatchContents(
                WindowConfig(5), 8, micro_batch_size, negatives or NegativesConfig(num_sampled=6), counts_expected=True
            ),
            seed=1, stage=0,
        )  # fmt: skip
        return next(loader.steps(0))

    return model, NextItem(LossConfig(), dataset.num_items), batches


def gradients(model, make):
    model.zero_grad()
    outcome, _ = make()
    return outcome, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert (ours[name] - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max())), name


def nothing():
    pass


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("per_position", [False, True])
@pytest.mark.parametrize("log_q", [False, True, "refined"])
def test_cached_gradients_are_those_of_the_whole_batch(world, size, per_position, log_q):
    """Against the plain way: one forward pass over everything and autograd."""
    model, objective, batches = world
    objective = replace(objective, loss=LossConfig(log_q=log_q))
    negatives = NegativesConfig(kind="sampled" if per_position else "mixed", num_sampled=6, per_position=per_position)
    (batch,) = batches(negatives=negatives)

    def direct():
        outcome = objective(model, model.item_encoder(batch.items), batch, batch.num_targets)
        outcome.loss.backward()
        return outcome, None

    expected, theirs = gradients(model, direct)
    outcome, ours = gradients(
        model,
        lambda: cached(
            model, objective, batch, contextlib.nullcontext, size=size, between=nothing, parallel=Replicated()
        ),
    )
    assert outcome.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    assert outcome.num_queries == batch.num_targets
    assert_same(ours, theirs, 1e-5)


def test_micro_batches_divide_by_the_weight_of_the_whole_step(world):
    """Weights of 0 to 2, of which one micro-batch has more than the other; the loss by hand from single targets."""
    model, objective, batches = world
    (batch,) = batches(negatives=NegativesConfig(kind="catalogue"))
    weights = torch.linspace(0, 2, batch.mask.numel()).reshape(batch.mask.shape)
    weighted = replace(batch, weights=weights)
    options = {"autocast": contextlib.nullcontext, "between": nothing, "parallel": Replicated()}
    single = []
    for row, column in batch.mask.nonzero().tolist():
        alone = torch.zeros_like(weights)
        alone[row, column] = 1
        with torch.no_grad():
            single.append(
                objective(model, model.item_encoder(batch.items), replace(batch, weights=alone), 1).loss.item()
            )
    expected = float((torch.tensor(single) * weights[batch.mask]).sum() / weights[batch.mask].sum())
    ways = {
        "one batch": lambda: accumulate(model, objective, [weighted], **options),
        "micro-batches": lambda: accumulate(model, objective, [weighted[:2], weighted[2:]], **options),
        "cached": lambda: cached(model, objective, weighted, size=3, **options),
    }
    found = {name: gradients(model, way) for name, way in ways.items()}
    for outcome, ours in found.values():
        assert outcome.loss.item() == pytest.approx(expected, rel=1e-5)
        assert outcome.num_queries == batch.num_targets
        assert_same(ours, found["one batch"][1], 1e-5)


def test_dropout_in_the_item_tier_is_drawn_alike_in_both_passes(world):
    """With dropout the gradient must be that of the very embeddings the loss saw: compare with one pass, same draws."""
    model, objective, batches = world
    (batch,) = batches()
    encode = model.item_encoder.forward
    model.item_encoder.forward = lambda items: torch.nn.functional.dropout(encode(items), 0.5)

    def in_one_pass():
        torch.manual_seed(3)
        plan = plan_items(batch.items.lengths.numpy(), num_shards=2)
        items = torch.cat([model.item_encoder(batch.items.take(plan.shard(part))) for part in range(2)])[plan.inverse]
        outcome = objective(model, items, batch, batch.num_targets)
        outcome.loss.backward()
        return outcome, None

    def in_two():
        torch.manual_seed(3)
        return cached(model, objective, batch, contextlib.nullcontext, size=4, between=nothing, parallel=Replicated())

    _, theirs = gradients(model, in_one_pass)
    _, ours = gradients(model, in_two)
    assert_same(ours, theirs, 1e-5)


def test_micro_batches_add_up_to_the_batch(world):
    """With the whole catalogue as negatives every micro-batch has the same ones, so the sums must agree."""
    model, objective, batches = world
    catalogue = NegativesConfig(kind="catalogue")
    run = [
        gradients(
            model,
            lambda size=size: accumulate(
                model,
                objective,
                batches(size, catalogue),
                contextlib.nullcontext,
                between=nothing,
                parallel=Replicated(),
            ),
        )
        for size in (None, 3)
    ]
    (whole, theirs), (parts, ours) = run
    assert float(parts.loss) == pytest.approx(float(whole.loss), rel=1e-6)
    assert float(parts.numbers["top1"]) == pytest.approx(float(whole.numbers["top1"]))
    assert_same(ours, theirs, 1e-5)


def test_the_average_follows_the_weights_and_can_stand_in_for_them():
    layer = torch.nn.Linear(1, 1, bias=False)
    values = [1.0, 3.0, 2.0]
    layer.weight.data.fill_(values[0])
    average = MovingAverage(layer, 0.75)
    expected = values[0]
    for value in values[1:]:
        layer.weight.data.fill_(value)
        average.update()
        expected = 0.75 * expected + 0.25 * value
    with average.in_place():
        assert layer.weight.item() == pytest.approx(expected)
    assert layer.weight.item() == 2.0
    other = MovingAverage(torch.nn.Linear(1, 1, bias=False), 0.75)
    other.load(average.state())
    assert np.isclose(other.state()["weight"].item(), expected)
