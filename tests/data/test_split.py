import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm.data.build import build_dataset
from hllm.data.dataset import Dataset
from hllm.data.schema import DataConfig
from hllm.data.split import NONE, SplitConfig, split_dataset
from hllm.errors import DataError

NUM_ITEMS = 6
logs = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, NUM_ITEMS - 1), st.integers(0, 20)), min_size=8, max_size=60
)


def dataset_of(log: list[tuple[int, int, int]]) -> Dataset:
    items = pl.DataFrame({"item_id": range(NUM_ITEMS), "title": [f"item {i}" for i in range(NUM_ITEMS)]})
    return build_dataset(
        pl.DataFrame(log, schema=["user_id", "item_id", "timestamp"], orient="row"), items, DataConfig()
    )


@given(logs)
@settings(max_examples=150, deadline=None)
def test_leave_one_out_takes_each_users_last_two_items(log):
    dataset = dataset_of(log)
    lengths = np.diff(dataset.offsets)
    try:
        split = split_dataset(dataset, SplitConfig())
    except DataError:
        assert lengths.max() < 4
        return
    for user, length in enumerate(lengths):
        if length < 3:
            assert (split.train_end[user], split.validation[user], split.test[user]) == (length, NONE, NONE)
        else:
            assert (split.train_end[user], split.validation[user], split.test[user]) == (
                length - 2,
                length - 2,
                length - 1,
            )
    assert split.in_training(dataset).sum() + 2 * (lengths >= 3).sum() == len(log), "train + validation + test = all"


@given(logs)
@settings(max_examples=150, deadline=None)
def test_nothing_in_training_is_as_late_as_a_temporal_target(log):
    dataset = dataset_of(log)
    try:
        split = split_dataset(dataset, SplitConfig(kind="temporal", validation_share=0.2, test_share=0.2))
    except DataError:
        return
    trained = dataset.timestamps[split.in_training(dataset)]
    for user in range(dataset.num_users):
        times = dataset.timestamps[dataset.offsets[user] : dataset.offsets[user + 1]]
        for part in ("validation", "test"):
            position = split.targets(part)[user]
            if position == NONE:
                continue
            assert position >= 1, "a target has a history"
            assert times[position] > trained.max()
            assert position >= split.train_end[user]
        if NONE not in (split.validation[user], split.test[user]):
            assert split.validation[user] < split.test[user]
            assert times[split.validation[user]] < times[split.test[user]]


@given(logs)
@settings(max_examples=50, deadline=None)
def test_a_split_is_a_function_of_the_data(log):
    try:
        first = split_dataset(dataset_of(log), SplitConfig())
    except DataError:
        return
    assert first.fingerprint == split_dataset(dataset_of(log), SplitConfig()).fingerprint


def test_the_temporal_split_by_hand():
    """Ten events at times 0 … 9, shares .2 and .2: training is 0 … 5, validation 6 and 7, test 8 and 9."""
    users = [0, 1, 0, 1, 0, 1, 0, 0, 1, 0]
    split = split_dataset(
        dataset_of([(u, t % NUM_ITEMS, t) for t, u in enumerate(users)]),
        SplitConfig(kind="temporal", validation_share=0.2, test_share=0.2),
    )
    assert split.train_end.tolist() == [3, 3]
    assert split.validation.tolist() == [4, NONE]  # user 0's last event in 6 … 7 is her fifth
    assert split.test.tolist() == [5, 3]


def test_splits_that_leave_nothing_are_explained():
    short = dataset_of([(u, 1, t) for u in range(4) for t in range(2)])
    with pytest.raises(DataError, match="leaves no validation target"):
        split_dataset(short, SplitConfig())
    with pytest.raises(
        DataError, match="leaves no user with two training interactions, so nothing to learn from; the longest of 4"
    ):
        split_dataset(dataset_of([(u, 1, t) for u in range(4) for t in range(3)]), SplitConfig())
    with pytest.raises(DataError, match="needs real times: all interactions have the same one"):
        split_dataset(dataset_of([(0, 1, 5)] * 9), SplitConfig(kind="temporal"))
    with pytest.raises(DataError, match="must be above 0"):
        split_dataset(dataset_of([(0, 1, t) for t in range(9)]), SplitConfig(kind="temporal", test_share=0.95))


def test_training_counts_leave_the_targets_out():
    split_counts = dataset_of([(0, 0, 0), (0, 1, 1), (0, 1, 2), (0, 2, 3), (0, 3, 4)])
    counts = split_dataset(split_counts, SplitConfig()).train_counts(split_counts)
    assert counts.tolist() == [1, 2, 0, 0, 0, 0]
