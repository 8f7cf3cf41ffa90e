import numpy as np
import pytest
import torch

from hllm.data.batch import pad, text_batch
from hllm.data.loader import TrainingLoader, WindowConfig, training_windows
from hllm.data.negatives import NegativeSampler, NegativesConfig
from hllm.data.split import SplitConfig, split_dataset

from ..conftest import batch_of


def loader(dataset, **changed) -> TrainingLoader:
    given = {
        "windows": WindowConfig(max_history=4),
        "batch_size": 5,
        "negatives": NegativesConfig(num_sampled=3),
        "seed": 1,
        "stage": 0,
    }
    return TrainingLoader(dataset, split_dataset(dataset, SplitConfig()), None, **(given | changed))


def test_every_training_item_but_a_users_first_is_a_target_exactly_once(dataset):
    split = split_dataset(dataset, SplitConfig())
    windows = [dataset.item_index[s:e] for s, e in training_windows(dataset, split, WindowConfig(max_history=4))]
    assert all(2 <= len(window) <= 5 for window in windows)
    targets = sorted(int(i) for window in windows for i in window[1:])
    expected = sorted(int(i) for u in range(dataset.num_users) for i in dataset.history(u)[: split.train_end[u]][1:])
    assert targets == expected


def test_a_batch_holds_each_item_once_and_its_rows_point_to_the_right_items(dataset):
    windows = [np.array([5, 3, 5, 9]), np.array([3, 7])]
    batch = batch_of(windows, shared=[0, 7, 20])
    index = batch.items.index
    assert index.tolist() == [0, 3, 5, 7, 9, 20]
    assert batch.mask.tolist() == [[True, True, True], [True, False, False]]
    assert index[batch.history][batch.mask].tolist() == [5, 3, 5, 3]
    assert index[batch.targets][batch.mask].tolist() == [3, 5, 9, 7]
    assert index[batch.negatives].tolist() == [0, 7, 20]


def test_the_order_is_a_function_of_seed_stage_epoch_and_step(dataset):
    def fingerprints(batches):
        return [(b.items.index.tolist(), b.history.tolist()) for (b,) in batches]

    first = fingerprints(loader(dataset).steps(epoch=1))
    assert fingerprints(loader(dataset).steps(epoch=1)) == first
    for other in (
        loader(dataset).steps(epoch=2),
        loader(dataset, seed=2).steps(1),
        loader(dataset, stage=1).steps(1),
    ):
        assert fingerprints(other) != first


def test_an_epoch_visits_every_window_once(dataset):
    batches = list(loader(dataset).steps(0))
    assert len(batches) == loader(dataset).steps_per_epoch
    assert sum(len(b.history) for (b,) in batches) == len(loader(dataset).windows)


def test_only_the_latest_window_or_blocks_that_share_nothing(dataset):
    """User u9 has 15 interactions, 13 of them for training: blocks of 5 drop the oldest 3."""
    split = split_dataset(dataset, SplitConfig())
    user = dataset.users.to_list().index("u9")
    first, last = int(dataset.offsets[user]), int(dataset.offsets[user]) + 13

    def of_user(kind):
        windows = training_windows(dataset, split, WindowConfig(max_history=4, windows=kind)).tolist()
        return sorted(window for window in windows if first <= window[0] < last)

    assert of_user("latest") == [[last - 5, last]]
    assert of_user("blocks") == [[last - 10, last - 5], [last - 5, last]]


def test_steps_can_begin_anywhere_in_an_epoch(dataset):
    whole, tail = (list(loader(dataset).steps(1, start)) for start in (0, 2))
    assert len(tail) == len(whole) - 2
    for (ours,), (theirs,) in zip(tail, whole[2:], strict=True):
        assert torch.equal(ours.history, theirs.history)
        assert torch.equal(ours.items.index, theirs.items.index)


def test_micro_batches_share_out_a_steps_windows(dataset):
    whole, shared = (list(loader(dataset, micro_batch_size=size).steps(0)) for size in (None, 2))
    assert [len(b.history) for b in shared[0]] == [2, 2, 1]
    for (one,), parts in zip(whole, shared, strict=True):
        theirs = torch.cat([part.items.index[part.targets][part.mask] for part in parts])
        assert torch.equal(one.items.index[one.targets][one.mask], theirs)


def test_part_of_a_batch_keeps_each_sequence_its_own(dataset):
    (batch,) = next(
        loader(dataset, negatives=NegativesConfig(kind="sampled", num_sampled=3, per_position=True)).steps(0)
    )
    part = batch[2:4]
    before, inside = int(batch.mask[:2].sum()), int(batch.mask[2:4].sum())
    assert torch.equal(part.history, batch.history[2:4])
    assert torch.equal(part.own_negatives, batch.own_negatives[before : before + inside])
    assert batch.own_negatives.shape == (batch.num_targets, 3)


def draw(config, windows, rng, counts=None, batch_size=1):
    counts = np.ones(10, dtype=np.int64) if counts is None else counts
    return NegativeSampler(config, counts, batch_size).draw([np.array(w) for w in windows], rng)


@pytest.mark.parametrize(("kind", "expected"), [("catalogue", set(range(10))), ("in-batch", {2, 4})])
def test_negatives_that_need_no_draw(kind, expected, rng):
    assert draw(NegativesConfig(kind=kind), [[4, 2, 4]], rng).shared.tolist() == sorted(expected)


def test_sampled_negatives_are_distinct_and_uniform(rng):
    config = NegativesConfig(kind="sampled", num_sampled=4)
    draws = [draw(config, [[0]], rng).shared for _ in range(2000)]
    assert all(len(set(d.tolist())) == 4 for d in draws)
    counts = np.bincount(np.concatenate(draws), minlength=10)
    assert np.abs(counts - 800).max() < 5 * np.sqrt(800 * 0.6), "five standard deviations"
    assert {0, 1} <= set(draw(NegativesConfig(num_sampled=4), [[0, 1]], rng).shared.tolist())
    assert len(draw(NegativesConfig(num_sampled=99), [[0]], rng).shared) == 10


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (NegativesConfig(kind="sampled", num_sampled=4), [[0]]),
        (NegativesConfig(kind="sampled", num_sampled=4, popularity_power=0.5), [[0]]),
        (NegativesConfig(kind="sampled", num_sampled=4, per_position=True, popularity_power=1.0), [[0, 1]]),
        (NegativesConfig(kind="pooled", num_sampled=6, exclude_own=False), [[0], [1]]),
    ],
)
def test_expected_counts_are_how_often_items_are_drawn(config, windows, rng):
    counts = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 55])
    seen, expected = np.zeros(10), None
    for _ in range(3000):
        drawn = draw(config, windows, rng, counts, batch_size=2)
        seen += np.bincount(drawn.shared if drawn.per_position is None else drawn.per_position.ravel(), minlength=10)
        expected = drawn.counts
    assert np.abs(seen / 3000 - expected).max() < 0.1
    if config.popularity_power == 1.0:
        assert seen[9] / seen.sum() == pytest.approx(0.55, abs=0.03), "as often as in the data"


def test_items_of_the_batch_are_expected_as_often_as_they_occur(rng):
    """In-batch: each position of a batch is an item by its share of the training data."""
    counts = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 55])
    seen = np.zeros(10)
    for _ in range(3000):
        window = rng.choice(10, size=6, p=counts / 100)
        drawn = draw(NegativesConfig(num_sampled=3), [window], rng, counts)
        seen[drawn.shared] += 1
    assert np.abs(seen / 3000 - drawn.counts).max() < 0.05


def test_pooled_negatives_are_each_windows_share_without_its_own_items(rng):
    config = NegativesConfig(kind="pooled", num_sampled=400)
    pool = draw(config, [[0, 1, 2], [3, 4]], rng, batch_size=2).shared
    assert len(pool) == 400
    assert set(pool[:200]) == set(range(3, 10))
    assert set(pool[200:]) == {0, 1, 2, 5, 6, 7, 8, 9}


def test_negatives_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match='per_position = true needs kind = "sampled"'):
        NegativesConfig(kind="mixed", per_position=True)
    with pytest.raises(ValueError, match='popularity_power has no effect on kind = "pooled"'):
        NegativesConfig(kind="pooled", popularity_power=0.5)


def test_padding_is_on_the_right():
    padded, mask = pad([np.array([1, 2]), np.array([], dtype=np.int64), np.array([3])])
    assert padded.tolist() == [[1, 2], [0, 0], [3, 0]]
    assert mask.tolist() == [[True, True], [False, False], [True, False]]


def test_items_known_only_by_text_have_no_index():
    batch = text_batch([[5, 6], [7]])
    assert torch.equal(batch.index, torch.tensor([-1, -1]))
    assert batch.tokens.tolist() == [5, 6, 7]
    assert batch.lengths.tolist() == [2, 1]
