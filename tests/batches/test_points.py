"""Points of training windows: where, which candidates, which labels."""

import numpy as np
import pytest

from hllm.batches.points import PointSampler, PointsConfig, draw_others
from hllm.data.labels import UNKNOWN

# Two users: items 0 1 2 3 and 4 5.
ITEMS, LENGTHS = np.array([0, 1, 2, 3, 4, 5]), np.array([4, 2])
WINDOWS = np.array([[0, 4], [4, 6]])


def sampler(labels=None, num_items=9, **values) -> PointSampler:
    return PointSampler(PointsConfig(**values), ITEMS, LENGTHS, labels, num_items)


def test_the_last_points_by_hand(rng):
    """Of 0 1 2 3 the last two are asked about, 2 behind position 1 and 3 behind 2; 4 5 has one point, and one more
    without a label."""
    found = sampler(per_window=2, which="last", num_negatives=3).draw(WINDOWS, rng)
    assert found.anchors.tolist() == [[1, 2], [0, 0]]
    assert found.candidates[:, :, 0].tolist() == [[2, 3], [5, 4]]
    assert found.labels[..., 0].tolist() == [[[1, 0, 0, 0]] * 2, [[1, 0, 0, 0], [UNKNOWN] * 4]]


def test_sampled_negatives_are_never_items_of_the_user(rng):
    found = sampler(per_window=3, num_negatives=500).draw(WINDOWS, rng).candidates
    assert set(found[0, :, 1:].ravel()) == {4, 5, 6, 7, 8}
    assert set(found[1, 0, 1:]) == {0, 1, 2, 3, 6, 7, 8}


def test_a_user_who_has_met_everything_has_no_negatives(rng):
    found = sampler(num_items=6).draw(WINDOWS, rng)
    assert found.labels[0, 0, :, 0].tolist() == [1, 0, 0, 0, 0]
    everything = PointSampler(PointsConfig(), np.arange(4), np.array([4]), None, 4).draw(np.array([[0, 4]]), rng)
    assert everything.labels[0, 0, :, 0].tolist() == [1, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize("withheld", [[], [6, 8], [7], [6, 7, 8]])
def test_withheld_items_are_drawn_by_nobody_and_the_others_evenly(rng, withheld):
    """With withheld items the draws are those of a catalogue without them."""
    points = PointSampler(PointsConfig(per_window=1, num_negatives=6000), ITEMS, LENGTHS, None, 9,
                          withheld=np.array(withheld, dtype=np.int64))  # fmt: skip
    drawn = points.draw(WINDOWS[:1], rng).candidates[0, 0, 1:]
    left = sorted({4, 5, 6, 7, 8} - set(withheld))
    assert np.unique(drawn).tolist() == left
    counts = np.bincount(drawn, minlength=9)[left]
    assert np.abs(counts / (6000 / len(left)) - 1).max() < 0.15


def test_other_items_are_drawn_evenly(rng):
    counts = np.bincount(draw_others(np.array([0, 3, 4]), 7, (40_000,), rng), minlength=7)
    assert counts[[0, 3, 4]].sum() == 0
    assert np.abs(counts[[1, 2, 5, 6]] / 10_000 - 1).max() < 0.05


def test_points_are_asked_only_where_a_label_is_known(rng):
    labels = np.array([[1, 1], [-1, -1], [0, -1], [1, 0], [1, 1], [-1, -1]])
    found = sampler(labels, per_window=5).draw(WINDOWS, rng)
    assert found.anchors.tolist() == [[1, 2], [0, 0]]
    assert found.candidates.tolist() == [[[2], [3]], [[4], [4]]]
    assert found.labels[:, :, 0].tolist() == [[[0, -1], [1, 0]], [[-1, -1], [-1, -1]]]


def test_random_points_are_all_places_in_time(rng):
    chosen = {tuple(sampler(per_window=2).draw(WINDOWS[:1], rng).anchors[0].tolist()) for _ in range(50)}
    assert chosen == {(0, 1), (0, 2), (1, 2)}


@pytest.mark.parametrize("which", ["random", "last"])
def test_the_same_stream_gives_the_same_points(which):
    one, two = (sampler(per_window=2, which=which).draw(WINDOWS, np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(getattr(one, name), getattr(two, name)) for name in vars(one))


def test_withheld_items_are_never_drawn(rng):
    sampler = PointSampler(PointsConfig(num_negatives=50), ITEMS, LENGTHS, None, 20, withheld=np.arange(10, 19))
    drawn = sampler.draw(np.array([[0, int(LENGTHS[0])]]), rng)
    negatives = set(drawn.candidates[drawn.labels[..., 0] == 0].tolist())
    assert negatives == set(range(20)) - set(range(10, 19)) - set(ITEMS[: LENGTHS[0]].tolist())
