"""Histories keep all that is known of their elements, whichever users or elements are taken."""

import numpy as np
import pytest
import torch

from hllm.retrieval.histories import Histories, histories_of

ITEMS = [np.array([4, -2, 7]), np.zeros(0, dtype=np.int64), np.array([-1])]
TIMES = [np.array([10, 20, 30]), np.zeros(0, dtype=np.int64), np.array([5])]
ACTIONS = [np.array([1, 0, 1]), np.zeros(0, dtype=np.int64), np.array([0])]
TEXTS = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


@pytest.fixture
def histories() -> Histories:
    return Histories(ITEMS, TIMES, ACTIONS, TEXTS)


def lists(columns) -> list[list[int]]:
    return [column.tolist() for column in columns]


@pytest.mark.parametrize(
    "rows", [slice(1, None), np.array([1, 2]), np.array([False, True, True])], ids=["slice", "rows", "mask"]
)
def test_some_users_keep_times_actions_and_texts(histories, rows):
    some = histories[rows]
    assert len(some) == 2
    assert lists(some.items) == [[], [-1]]
    assert lists(some.times) == [[], [5]]
    assert lists(some.actions) == [[], [0]]
    assert some.texts is TEXTS


def test_rows_may_repeat_and_be_in_any_order(histories):
    assert lists(histories[np.array([2, 0, 2])].times) == [[5], [10, 20, 30], [5]]
    assert len(histories[np.zeros(0, dtype=np.int64)]) == 0


def test_a_user_has_the_items_alone_and_a_text_counts_as_known(histories):
    assert lists(histories) == [[4, 7], [], []]
    assert histories[0].tolist() == [4, 7]
    assert histories.lengths.tolist() == [3, 0, 1]
    assert histories.known.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("number", "items", "times"),
    [
        (0, [[], [], []], [[], [], []]),
        (2, [[-2, 7], [], [-1]], [[20, 30], [], [5]]),
        (9, [[4, -2, 7], [], [-1]], [[10, 20, 30], [], [5]]),
    ],
)
def test_the_latest_elements_keep_their_times(histories, number, items, times):
    latest = histories.latest(number)
    assert (lists(latest.items), lists(latest.times)) == (items, times)
    assert latest.texts is TEXTS


def test_bare_items_have_no_times_in_whatever_part(histories):
    part = Histories(ITEMS)[:2].latest(1)
    assert (part.times, part.actions, part.texts) == (None, None, None)


def test_a_logged_history_ends_before_a_position(trained):
    dataset = trained.dataset
    start = int(dataset.offsets[3])
    found = histories_of(dataset, np.array([3, 3]), np.array([start, start + 2]))
    assert lists(found) == [[], dataset.item_index[start : start + 2].tolist()]
    assert lists(found.times) == [[], dataset.seconds_or_zero[start : start + 2].tolist()]
