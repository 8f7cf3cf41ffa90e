"""The ranking objective against its formula, and what gradient accumulation makes of it."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from hllm.batches.loader import BatchContents, TrainingLoader
from hllm.batches.negatives import NegativesConfig
from hllm.batches.points import PointsConfig
from hllm.batches.windows import WindowConfig
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.split import split_dataset
from hllm.losses.contrastive import LossConfig
from hllm.models.build import ModelConfig, build_model
from hllm.objectives.next_item import NextItem, NextItemTermConfig
from hllm.objectives.objective import Objective
from hllm.objectives.ranking import RankingObjectiveConfig
from hllm.objectives.terms import build_objective
from hllm.training.parallel import Replicated
from hllm.training.step import accumulate, cached


@pytest.fixture
def world(dataset, tmp_path):
    """A small model with two targets, two thirds of whose labels are known, and its training batches."""
    labels = np.random.default_rng(1).integers(-1, 2, (dataset.num_interactions, 2))
    dataset = replace(dataset, labels=labels, label_names=("like", "buy"))
    split = split_dataset(dataset, LeaveOneOutSplit())

    def build(fusion="early", **changed):
        ranking = {"fusion": fusion, "width": 8, "targets": ["like", "buy"]} | changed
        values = {"max_history": 5, "item": {"kind": "id"}, "user": {"kind": "sasrec", "dim": 16, "dropout": 0.0},
                  "ranking": ranking}  # fmt: skip
        torch.manual_seed(0)
        return build_model(ModelConfig.from_dict(values, where="test"), num_items=30, num_actions=0, base=tmp_path)

    def batches(micro_batch_size=None, labelled=True, negatives=True, **values):
        contents = BatchContents(
            WindowConfig(5), 8, micro_batch_size, NegativesConfig(kind="catalogue") if negatives else None,
            PointsConfig(per_window=3, **values), dataset.label_names if labelled else (),
        )  # fmt: skip
        return next(TrainingLoader(dataset, split, None, contents, seed=1, stage=0).steps(0))

    return build, batches


def objective(weight: float) -> Objective:
    terms = [NextItemTermConfig(weight=weight)] if weight else []
    return build_objective(RankingObjectiveConfig(), terms, num_items=30, dim=16)


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_the_loss_is_the_papers_equation_3(world, fusion):
    """L_cls pair by pair, each history cut and read anew; L_gen by the generative objective alone."""
    build, batches = world
    model, (batch,) = build(fusion), batches()
    items = model.item_encoder(batch.items)
    losses = []
    for row, column, target in np.argwhere((batch.points.labels[:, :, 0] != -1).numpy()):
        anchor, candidate = int(batch.points.anchors[row, column]), batch.points.candidates[row, column, 0]
        last = model.ranker.user_token if fusion == "late" else items[candidate]
        sequence = torch.cat([items[batch.history[row, : anchor + 1]], last[None]])[None]
        ones = torch.ones(1, anchor + 2, dtype=torch.bool)
        user = model.user_encoder.after(model.history(sequence, ones, items=ones.long(), times=ones.long(),
                                                      actions=ones.long()))  # fmt: skip
        probability = torch.sigmoid(model.ranker(user, items[candidate][None]))[0, target]
        label = int(batch.points.labels[row, column, 0, target])
        losses.append(-torch.log(probability if label else 1 - probability))
    assert len(losses) == batch.points.num_labels > 10
    generative = NextItem(LossConfig(), 30)(model, items, batch, batch.num_targets).loss
    outcome = objective(0.3)(model, items, batch, batch.num_targets)
    assert outcome.loss.item() == pytest.approx(0.3 * generative.item() + torch.stack(losses).mean().item(), rel=1e-5)
    assert outcome.numbers["classification"].item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert outcome.numbers["next_item"].item() == pytest.approx(generative.item(), rel=1e-5)


def gradients(model, make):
    model.zero_grad()
    outcome, _ = make()
    return outcome, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_micro_batches_and_the_gradient_cache_give_the_gradients_of_the_whole_batch(world, weight):
    build, batches = world
    model = build()
    options = {"autocast": contextlib.nullcontext, "between": lambda: None, "parallel": Replicated()}
    whole, expected = gradients(
        model, lambda: accumulate(model, objective(weight), batches(negatives=weight > 0), **options)
    )
    (batch,) = batches(negatives=weight > 0)
    others = {"cached": lambda: cached(model, objective(weight), batch, size=3, **options)}
    if not weight:  # negatives are each micro-batch's own; here there are none, but points are drawn in one order
        others["slices"] = lambda: accumulate(model, objective(weight), [batch[:3], batch[3:]], **options)
    for make in others.values():
        outcome, found = gradients(model, make)
        assert outcome.loss.item() == pytest.approx(whole.loss.item(), rel=1e-5)
        for name, number in whole.numbers.items():
            assert outcome.numbers[name].item() == pytest.approx(number.item(), rel=1e-4)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(found[name], value, atol=1e-5), name


def test_all_micro_batches_divide_by_the_labels_of_the_step(world):
    _, batches = world
    parts = batches(micro_batch_size=3)
    assert len(parts) == 3
    own = [int((part.points.labels != -1).sum()) for part in parts]
    assert {part.points.num_labels for part in parts} == {sum(own)}


def test_without_negatives_a_batch_holds_the_windows_items_alone(world):
    _, batches = world
    (batch,) = batches(negatives=False)
    used = set(batch.history[batch.mask].tolist()) | set(batch.targets[batch.mask].tolist())
    assert len(batch.negatives) == 0
    assert set(range(len(batch.items))) == used


def test_a_step_without_any_label_changes_nothing_through_the_heads(world):
    build, batches = world
    model, (batch,) = build(), batches()
    batch.points.labels.fill_(-1)
    outcome = objective(0.0)(model, model.item_encoder(batch.items), batch, batch.num_targets)
    outcome.loss.backward()
    assert outcome.loss.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_sampled_negatives_train_one_head(world):
    build, batches = world
    model, (batch,) = build(targets=[]), batches(labelled=False, num_negatives=2)
    assert batch.points.labels.shape[2:] == (3, 1)
    outcome = objective(1.0)(model, model.item_encoder(batch.items), batch, batch.num_targets)
    assert outcome.loss.isfinite()
