import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hllm.batches import windows
from hllm.batches.windows import TrainingWindows, WindowConfig, training_windows, windows_of
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.split import split_dataset


def test_every_training_item_but_a_users_first_is_a_target_exactly_once(dataset):
    split = split_dataset(dataset, LeaveOneOutSplit())
    of_training = dataset.item_index[split.training]
    windows = [of_training[s:e] for s, e in training_windows(dataset, split, WindowConfig(max_history=4)).bounds]
    assert all(2 <= len(window) <= 5 for window in windows)
    targets = sorted(int(i) for window in windows for i in window[1:])
    expected = sorted(int(i) for u in range(dataset.num_users) for i in dataset.history(u)[1:-2])
    assert targets == expected


def test_only_the_latest_window_or_blocks_that_share_nothing(dataset):
    """User u9 has 15 interactions, 13 of them for training: blocks of 5 drop the oldest 3."""
    split = split_dataset(dataset, LeaveOneOutSplit())
    user = dataset.users.to_list().index("u9")
    first = int(dataset.offsets[user]) - 2 * user  # of each user before, two interactions are held out
    last = first + 13

    def of_user(kind):
        windows = training_windows(dataset, split, WindowConfig(max_history=4, windows=kind)).bounds.tolist()
        return sorted(window for window in windows if first <= window[0] < last)

    assert of_user("latest") == [[last - 5, last]]
    assert of_user("blocks") == [[last - 10, last - 5], [last - 5, last]]


@pytest.mark.parametrize(
    ("stride", "windows"),
    [
        (None, [[8, 13], [6, 11], [4, 9], [2, 7], [0, 5]]),  # half of 4
        (1, [[start, start + 5] for start in range(8, -1, -1)]),
        (3, [[8, 13], [5, 10], [2, 7], [0, 4]]),
        (4, [[8, 13], [4, 9], [0, 5]]),
    ],
)
def test_strides_are_windows_that_overlap_by_hand(stride, windows):
    """Of 13 items and 4 + 1 in a window; the last window is the first that holds the oldest item."""
    config = WindowConfig(max_history=4, windows="strides", window_stride=stride)
    assert [list(window) for window in windows_of(13, config)] == windows
    assert windows_of(5, config) == [(0, 5)]
    assert windows_of(1, config) == []


@given(length=st.integers(2, 60), max_history=st.integers(1, 12), stride=st.integers(1, 12))
def test_with_strides_every_item_but_the_first_is_a_target(length, max_history, stride):
    stride = min(stride, max_history)
    windows = windows_of(length, WindowConfig(max_history=max_history, windows="strides", window_stride=stride))
    assert {i for start, end in windows for i in range(start + 1, end)} == set(range(1, length))
    assert len(set(windows)) == len(windows)
    assert all(2 <= end - start <= max_history + 1 for start, end in windows)
    whole = WindowConfig(max_history=max_history)
    if stride == max_history:
        assert windows == windows_of(length, whole)


def slow_windows(length, config):
    """One window after another, from the latest back, as the settings of a stage describe them."""
    size, windows, end = config.max_history + 1, [], length
    while end >= 2:
        windows.append((max(0, end - size), end))
        match config.windows:
            case "latest":
                break
            case "blocks":
                end -= size
                if end < size:
                    break
            case "strides":
                if windows[-1][0] == 0:
                    break
                end -= config.window_stride or max(1, config.max_history // 2)
            case "all-targets":
                end -= config.max_history
    return windows


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    max_history=st.integers(1, 12),
    kind=st.sampled_from(["all-targets", "latest", "blocks", "strides"]),
    stride=st.none() | st.integers(1, 12),
)
def test_every_kind_of_window_against_a_loop(lengths, max_history, kind, stride):
    stride = min(stride, max_history) if stride and kind == "strides" else None
    config = WindowConfig(max_history=max_history, windows=kind, window_stride=stride)
    for length in lengths:
        assert windows_of(length, config) == slow_windows(length, config)


@pytest.mark.parametrize("kind", ["all-targets", "latest", "blocks", "strides"])
def test_windows_of_many_users_stand_user_by_user(dataset, kind):
    split = split_dataset(dataset, LeaveOneOutSplit())
    config = WindowConfig(max_history=3, windows=kind)
    found = training_windows(dataset, split, config)
    expected, start = [], 0
    for user, length in enumerate(split.training_lengths(dataset).tolist()):
        expected += [(user, start + first, start + last) for first, last in slow_windows(length, config)]
        start += length
    assert [
        (user, *bounds) for user, bounds in zip(found.users.tolist(), found.bounds.tolist(), strict=True)
    ] == expected


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_windows_that_hold_an_item_against_sets(monkeypatch, rng, at_once):
    """Windows overlap, and hold items twice; each counts once."""
    monkeypatch.setattr(windows, "_WINDOWS_AT_ONCE", at_once)
    item_index = rng.integers(0, 5, 40)
    bounds = np.array([(0, 4), (2, 9), (2, 9), (9, 12), (10, 40), (39, 40)])
    found = TrainingWindows(bounds, np.zeros(6, dtype=np.int64)).holding(item_index, 7)
    assert found.tolist() == [sum(item in item_index[start:end] for start, end in bounds) for item in range(7)]


def test_strides_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match='window_stride has no effect on windows = "all-targets"'):
        WindowConfig(max_history=4, window_stride=3)
    with pytest.raises(ValueError, match="window_stride 5 is beyond max_history 4: some items would be no target"):
        WindowConfig(max_history=4, windows="strides", window_stride=5)
