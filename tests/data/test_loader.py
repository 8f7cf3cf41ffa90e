import numpy as np
import pytest
import torch

from hllm.data.batch import pad, sequence_batch, text_batch
from hllm.data.loader import TrainingLoader, training_windows
from hllm.data.negatives import NegativesConfig, choose_negatives
from hllm.data.split import SplitConfig, split_dataset


def loader(dataset, **changed) -> TrainingLoader:
    given = {"max_history": 4, "batch_size": 5, "negatives": NegativesConfig(num_sampled=3), "seed": 1, "stage": 0}
    return TrainingLoader(dataset, split_dataset(dataset, SplitConfig()), None, **(given | changed))


def test_every_training_item_but_a_users_first_is_a_target_exactly_once(dataset):
    split = split_dataset(dataset, SplitConfig())
    windows = training_windows(dataset, split, 4)
    assert all(2 <= len(window) <= 5 for window in windows)
    targets = sorted(int(i) for window in windows for i in window[1:])
    expected = sorted(int(i) for u in range(dataset.num_users) for i in dataset.history(u)[: split.train_end[u]][1:])
    assert targets == expected


def test_a_batch_holds_each_item_once_and_its_rows_point_to_the_right_items(dataset):
    windows = [np.array([5, 3, 5, 9]), np.array([3, 7])]
    batch = sequence_batch(windows, np.array([0, 7, 20]), None)
    index = batch.items.index
    assert index.tolist() == [0, 3, 5, 7, 9, 20]
    assert batch.mask.tolist() == [[True, True, True], [True, False, False]]
    assert index[batch.history][batch.mask].tolist() == [5, 3, 5, 3]
    assert index[batch.targets][batch.mask].tolist() == [3, 5, 9, 7]
    assert index[batch.negatives].tolist() == [0, 7, 20]


def test_the_order_is_a_function_of_seed_stage_epoch_and_step(dataset):
    def fingerprints(batches):
        return [(b.items.index.tolist(), b.history.tolist()) for b in batches]

    first = fingerprints(loader(dataset).batches(epoch=1))
    assert fingerprints(loader(dataset).batches(epoch=1)) == first
    for other in (
        loader(dataset).batches(epoch=2),
        loader(dataset, seed=2).batches(1),
        loader(dataset, stage=1).batches(1),
    ):
        assert fingerprints(other) != first


def test_an_epoch_visits_every_window_once(dataset):
    batches = list(loader(dataset).batches(0))
    assert len(batches) == loader(dataset).steps_per_epoch
    assert sum(len(b.history) for b in batches) == len(loader(dataset).windows)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (NegativesConfig(kind="catalogue"), set(range(10))),
        (NegativesConfig(kind="in-batch"), {2, 4}),
    ],
)
def test_negatives_that_need_no_draw(config, expected, rng):
    chosen = choose_negatives(config, batch_items=np.array([4, 2, 4]), num_items=10, rng=rng)
    assert chosen.tolist() == sorted(expected)


def test_sampled_negatives_are_distinct_and_uniform(rng):
    config = NegativesConfig(kind="sampled", num_sampled=4)
    draws = [choose_negatives(config, batch_items=np.array([0]), num_items=10, rng=rng) for _ in range(2000)]
    assert all(len(set(d.tolist())) == 4 for d in draws)
    counts = np.bincount(np.concatenate(draws), minlength=10)
    assert np.abs(counts - 800).max() < 5 * np.sqrt(800 * 0.6), "five standard deviations"
    mixed = choose_negatives(NegativesConfig(num_sampled=4), batch_items=np.array([0, 1]), num_items=10, rng=rng)
    assert {0, 1} <= set(mixed.tolist())
    assert (
        len(choose_negatives(NegativesConfig(num_sampled=99), batch_items=np.array([0]), num_items=10, rng=rng)) == 10
    )


def test_padding_is_on_the_right():
    padded, mask = pad([np.array([1, 2]), np.array([], dtype=np.int64), np.array([3])])
    assert padded.tolist() == [[1, 2], [0, 0], [3, 0]]
    assert mask.tolist() == [[True, True], [False, False], [True, False]]


def test_items_known_only_by_text_have_no_index():
    batch = text_batch([[5, 6], [7]])
    assert torch.equal(batch.index, torch.tensor([-1, -1]))
    assert batch.tokens.tolist() == [5, 6, 7]
    assert batch.lengths.tolist() == [2, 1]
