"""The correction for how negatives are drawn, by exact sums over all batches and all draws of small catalogues.

What is drawn, and how often, is proved in tests/batches/test_loader.py.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from hllm.batches.batch import sequence_batch
from hllm.batches.loader import BatchContents, TrainingLoader
from hllm.batches.negatives import ItemWindows, NegativeSampler, NegativesConfig
from hllm.batches.windows import WindowConfig
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.split import split_dataset
from hllm.losses.contrastive import LossConfig, contrast
from hllm.objectives.masked_item import MaskedItemConfig
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import StageConfig
from tests.conftest import recipe_values

NUM_ITEMS = 8
WINDOWS = [np.array(w) for w in ([0, 1, 2], [1, 3], [4, 1, 4, 5], [2, 0], [1, 5, 3])]  # 6 and 7 are in none
LOGITS = torch.randn(NUM_ITEMS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def item_windows():
    return ItemWindows(np.array([sum(item in w for w in WINDOWS) for item in range(NUM_ITEMS)]), len(WINDOWS))


def sampler(config, batch_size):
    occurrences = np.bincount(np.concatenate(WINDOWS), minlength=NUM_ITEMS)
    return NegativeSampler(config, occurrences, batch_size, item_windows=item_windows())


def batch_of(windows, negatives):
    none = [np.zeros(len(w), dtype=np.int64) for w in windows]
    return sequence_batch(windows, negatives, None, users=np.arange(len(windows)), times=none, actions=none)


def sums(batch, log_q=True):
    """For each query the estimate of the sum over the catalogue, from the loss of a user with the given logits."""
    queries = torch.nonzero(batch.mask)[:, 0]
    targets = batch.targets[batch.mask]
    logits = LOGITS[batch.items.index]
    items = torch.eye(len(logits), dtype=torch.float64)
    found = []
    for query, target in enumerate(targets.tolist()):
        user = logits[None].clone().requires_grad_()
        result = contrast(
            LossConfig(log_q=log_q), user, items[[target]], items,
            batch.negatives if batch.own_negatives is None else batch.own_negatives[[query]],
            positive_ids=targets[[query]], scale=1.0, similarity="dot", log_q=batch.odds(queries[[query]]),
        )  # fmt: skip
        (slope,) = torch.autograd.grad(result.loss, user)
        chance_of_error = -slope[0, target].item()  # S / (S + e^p)
        found.append(math.exp(logits[target]) * chance_of_error / (1 - chance_of_error))
    return found


def truth(target, reachable=range(NUM_ITEMS)):
    return sum(math.exp(LOGITS[item]) for item in reachable if item != target)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_in_batch_the_mean_over_all_batches_is_the_sum_over_the_items_that_can_be_there(batch_size):
    """A batch is any choice of so many of the five windows. Once own items weighed ten times too much."""
    every = sampler(NegativesConfig(kind="in-batch"), batch_size)
    for number, window in enumerate(WINDOWS):
        others = [w for n, w in enumerate(WINDOWS) if n != number]
        batches = list(itertools.combinations(others, batch_size - 1))
        estimates = []
        for beside in batches:
            windows = [window, *beside]
            batch = batch_of(windows, every.draw(windows, np.random.default_rng(0)))
            estimates.append(sums(batch)[: len(window) - 1])
        can_be_there = set(window.tolist()) if batch_size == 1 else {0, 1, 2, 3, 4, 5}
        expected = [truth(target, can_be_there) for target in window[1:].tolist()]
        assert np.mean(estimates, axis=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("num_sampled", [1, 3, 8])
def test_mixed_the_chance_of_every_item_by_enumeration(batch_size, num_sampled):
    """Each batch that holds a window, and each set of drawn items, is equally likely: count those with each item."""
    counts = (
        sampler(NegativesConfig(num_sampled=num_sampled), batch_size)
        .draw(WINDOWS[:batch_size], np.random.default_rng(0))
        .counts
    )
    draws = [set(drawn) for drawn in itertools.combinations(range(NUM_ITEMS), num_sampled)]
    for number, window in enumerate(WINDOWS):
        others = [set(w.tolist()) for n, w in enumerate(WINDOWS) if n != number]
        sets = [set().union(*beside, drawn) for beside in itertools.combinations(others, batch_size - 1)
                for drawn in draws]  # fmt: skip
        for item in set(range(NUM_ITEMS)) - set(window.tolist()):
            assert counts[item] == pytest.approx(np.mean([item in present for present in sets]))


def test_mixed_the_estimate_is_the_sum_over_the_catalogue(rng):
    """All pairs of windows, and many draws of one item: the mean is the truth to within five standard errors."""
    mixed = sampler(NegativesConfig(num_sampled=1), 2)
    window = WINDOWS[0]
    estimates = []
    for beside in WINDOWS[1:]:
        for _ in range(40):
            batch = batch_of([window, beside], mixed.draw([window, beside], rng))
            estimates.append(sums(batch)[:2])
    error = np.std(estimates, axis=0) / np.sqrt(len(estimates))
    assert (np.abs(np.mean(estimates, axis=0) - [truth(1), truth(2)]) < 5 * error).all()
    assert (error < 0.2 * truth(1)).all()


def test_items_of_the_own_window_are_certain_and_count_once(rng):
    """The second window has item 4 twice; the first one's queries meet it by its chance, the second one's surely."""
    windows = [WINDOWS[0], WINDOWS[2]]
    batch = batch_of(windows, sampler(NegativesConfig(num_sampled=2), 2).draw(windows, rng))
    odds = batch.odds(torch.tensor([0, 0, 1, 1, 1]))
    index = batch.items.index.tolist()
    # Item 4 is in one of the four other windows, one of which is drawn, or it is among 2 drawn of 8.
    assert odds.log_q[0, index.index(4)].exp().item() == pytest.approx(1 - 3 / 4 * 6 / 8)
    assert odds.log_q[1, index.index(4)].item() == 0
    for row, window in enumerate(windows):
        own = set(window.tolist())
        missed = [1 - 1 / 4 * sum(item in w for w in WINDOWS) for item in range(NUM_ITEMS)]
        expected = sum(1 if item in own else 1 - missed[item] * 6 / 8 for item in range(NUM_ITEMS))
        assert odds.num_expected[row].item() == pytest.approx(expected)


def test_a_part_of_a_batch_has_the_odds_of_its_windows(rng):
    batch = batch_of(WINDOWS, sampler(NegativesConfig(kind="in-batch"), 5).draw(WINDOWS, rng))
    whole, part = batch.odds(torch.arange(5)), batch[2:4].odds(torch.arange(2))
    assert torch.equal(whole.log_q[2:4], part.log_q)
    assert torch.equal(whole.num_expected[2:4], part.num_expected)


@pytest.mark.parametrize("kind", ["sampled", "popular"])
def test_the_refined_estimate_of_each_position_is_exact(kind):
    """Two draws with replacement for each position: the mean over all 64, given that one is not the positive."""
    power = float(kind == "popular")
    config = NegativesConfig(kind="sampled", num_sampled=2, per_position=True, popularity_power=power)
    every = sampler(config, 1)
    window, share = np.array([0, 1]), every.share
    mean = total = 0.0
    for drawn in itertools.product(np.flatnonzero(share), repeat=2):
        if set(drawn) == {1}:
            continue  # nothing is left to estimate from
        batch = batch_of([window], type(every.draw([window], np.random.default_rng(0)))(
            np.zeros(0, dtype=np.int64), np.array([drawn]), 2 * share, 2.0
        ))  # fmt: skip
        probability = math.prod(share[list(drawn)])
        mean += probability * sums(batch, "refined")[0]
        total += probability
    assert mean / total == pytest.approx(truth(1, np.flatnonzero(share)), rel=1e-5)


def test_the_loader_counts_only_if_a_loss_asks_for_it(dataset):
    split = split_dataset(dataset, LeaveOneOutSplit())
    for asked in (False, True):
        contents = BatchContents(WindowConfig(4), 5, negatives=NegativesConfig(kind="in-batch"), counts_expected=asked)
        loader = TrainingLoader(dataset, split, None, contents, seed=1, stage=0)
        (batch,) = next(loader.steps(0))
        assert (batch.expected_counts is not None) == asked
        if asked:
            holding = np.zeros(dataset.num_items, dtype=np.int64)
            for start, end in loader.windows.bounds:
                holding[np.unique(loader.item_index[start:end])] += 1
            num, beside = loader.num_windows, len(batch.mask) - 1
            for item, count in zip(batch.items.index.tolist(), batch.expected_counts.tolist(), strict=True):
                # Choices of the other windows that all lack the item, of all choices beside a window without it.
                absent = math.comb(num - 1 - holding[item], beside) / math.comb(num - 1, beside)
                assert count == pytest.approx(1 - absent, abs=1e-6)


@pytest.mark.parametrize("log_q", [False, True, "refined"])
def test_a_recipe_counts_if_its_loss_corrects(tiny_llama, log_q):
    for values in ({"objective": {"loss": {"log_q": log_q}}},
                   {"objective": {"kind": "ranking"}, "terms": [{"kind": "next-item", "loss": {"log_q": log_q}}]}):  # fmt: skip
        given = recipe_values(tiny_llama, tiny_llama)
        given["model"]["ranking"] = {} if "terms" in values else None
        given["stages"] = [values | {"epochs": 1, "batch_size": 4}]
        recipe = Recipe.from_dict({k: v for k, v in given.items() if v is not None}, where="test")
        assert recipe.batches_in(recipe.stages[0]).counts_expected == bool(log_q)
    masked = StageConfig(objective=MaskedItemConfig(loss=LossConfig(log_q=log_q)))
    assert masked.loss.log_q == log_q


def test_a_batch_costs_no_time_for_the_whole_catalogue(rng):
    """The expected counts are made once for each number of windows, and shared by all batches."""
    every = sampler(NegativesConfig(num_sampled=3), 2)
    first, second, last = (every.draw(WINDOWS[:n], rng) for n in (2, 2, 1))
    assert first.counts is second.counts
    assert last.counts is not first.counts
