import numpy as np

from hllm.metrics.slices import NEVER, age_slices, first_seen, length_slices, popularity_slices


def members(slices) -> dict[str, list[int]]:
    assert sum(mask.astype(int) for mask in slices.values()).tolist() == [1] * len(next(iter(slices.values())))
    return {name: np.flatnonzero(mask).tolist() for name, mask in slices.items()}


def test_the_head_is_the_most_popular_fifth_of_the_catalogue():
    counts = np.array([9, 0, 1, 8, 2, 0, 1, 3, 0, 1])
    assert members(popularity_slices(counts, np.arange(10))) == {"head": [0, 3], "tail": [1, 2, 4, 5, 6, 7, 8, 9]}


def test_items_as_popular_as_the_best_of_the_tail_are_in_the_tail():
    """Two of ten would be the head, but three share the second place."""
    counts = np.array([9, 5, 5, 5, 1, 1, 1, 1, 1, 1])
    assert members(popularity_slices(counts, np.arange(10)))["head"] == [0]


def test_equal_popularity_has_no_head_and_a_head_of_all_no_tail():
    assert members(popularity_slices(np.full(10, 3), np.arange(10)))["head"] == []
    assert members(popularity_slices(np.full(10, 3), np.arange(10), head_share=1.0))["tail"] == []


def test_lengths_fall_into_the_slices_that_name_them():
    lengths = np.array([0, 1, 5, 6, 10, 11, 20, 21, 50, 51, 4000])
    expected = {"0": [0], "1-5": [1, 2], "6-10": [3, 4], "11-20": [5, 6], "21-50": [7, 8], ">50": [9, 10]}
    assert members(length_slices(lengths)) == expected


def test_the_first_time_of_an_item_is_its_earliest_in_training():
    assert first_seen(np.array([2, 0, 2]), np.array([50, 10, 40]), 3).tolist() == [10, NEVER, 40]


def test_ages_are_counted_from_the_first_training_interaction_to_the_query():
    """Item 0 is first seen at day 10, item 1 never; a query before an item is first seen finds it new."""
    day = 86_400
    first = np.array([10 * day, NEVER])
    targets = np.array([0, 0, 0, 0, 0, 0, 0, 1])
    seconds = np.array([9 * day, 10 * day, 11 * day, 11 * day + 1, 17 * day, 375 * day, 375 * day + 1, 375 * day])
    expected = {
        "new": [0, 7],
        "0-1 days": [1, 2],
        "1-7 days": [3, 4],
        "7-30 days": [],
        "30-365 days": [5],
        ">365 days": [6],
    }
    assert members(age_slices(first, targets, seconds)) == expected
