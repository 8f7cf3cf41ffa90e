import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from hllm.metrics.beyond_accuracy import beyond_accuracy
from hllm.metrics.definitions import ALL, BEYOND_ACCURACY
from hllm.metrics.exposure import coverage, gini, novelty, popularity
from hllm.metrics.lists import category_diversity, diversity, miscalibration, serendipity

ITEMS = np.array([[0, 1, 2], [0, 3, -1], [-1, -1, -1]])
COUNTS = np.array([8, 4, 2, 0, 2])  # 16 training interactions
CATEGORIES = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=bool)


def test_coverage_by_hand():
    """Items 0 to 3 of five."""
    assert coverage(ITEMS, 5) == 4 / 5


def test_gini_by_hand():
    """Exposures 0, 1, 1, 1, 2: (-4·0 - 2·1 + 0·1 + 2·1 + 4·2) / (5 · 4)."""
    assert gini(ITEMS, 5) == pytest.approx(8 / 20)


def test_gini_is_0_for_equal_exposure_and_1_for_a_single_item():
    assert gini(np.array([[0, 1], [2, 3]]), 4) == 0
    assert gini(np.array([[3], [3]]), 4) == 1
    assert gini(np.array([[0], [0]]), 1) == 0
    assert math.isnan(gini(np.array([[-1]]), 4))


def test_novelty_by_hand():
    """-log2 of 8/16, 4/16, 2/16 are 1, 2, 3 bits; item 3, never seen, counts as seen once: 4 bits."""
    found = novelty(ITEMS, COUNTS)
    assert found[:2].tolist() == [2.0, 2.5]
    assert np.isnan(found[2])


def test_popularity_by_hand():
    found = popularity(ITEMS, COUNTS)
    assert found[:2].tolist() == [pytest.approx(14 / 3), 4.0]
    assert np.isnan(found[2])


def test_diversity_against_every_pair(rng, monkeypatch):
    monkeypatch.setattr("hllm.metrics.lists._TILE_NUMBERS", 100)
    embeddings = rng.normal(size=(40, 5)).astype(np.float32)
    embeddings[7] = 0  # has cosine 0 with all
    items = np.stack([rng.choice(40, size=6, replace=False) for _ in range(30)])
    items[3, 4:] = -1
    items[4, 1:] = -1
    items[5, 0] = 7
    found = diversity(items, embeddings)
    for row, value in zip(items, found, strict=True):
        distances = []
        for a, b in itertools.combinations([i for i in row if i >= 0], 2):
            lengths = np.linalg.norm(embeddings[a]) * np.linalg.norm(embeddings[b])
            distances.append(1 - (embeddings[a] @ embeddings[b] / lengths if lengths else 0))
        assert value == pytest.approx(np.mean(distances), abs=1e-6) if distances else np.isnan(value)


def test_diversity_of_equal_and_opposite_items():
    embeddings = np.array([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    assert diversity(np.array([[0, 1], [0, 2]]), embeddings) == pytest.approx([0, 2])


def test_category_diversity_by_hand():
    """0 and 1 share a category; 0-2 and 1-2 do not: 2/3. 0 and 3 share none: 1. Item 4 has none and is left out."""
    found = category_diversity(np.array([[0, 1, 2], [0, 3, 4], [4, 0, -1]]), CATEGORIES)
    assert found[:2] == pytest.approx([2 / 3, 1])
    assert np.isnan(found[2])


def test_serendipity_by_hand():
    """First user: 1 is a target but expected, 2 is a target and a surprise: 1/3. Second: no target is listed."""
    expected = np.array([[1, 4, 0], [0, 1, -1], [0, 1, 2]])
    targets = np.array([[2, 1], [4, -1], [0, -1]])
    assert serendipity(ITEMS, expected, targets) == pytest.approx([1 / 3, 0, 0])


def test_what_a_popularity_list_recommends_is_never_serendipitous():
    assert serendipity(ITEMS, ITEMS, ITEMS).tolist() == [0, 0, 0]


def test_miscalibration_by_hand():
    """History 0, 1: p = (3/4, 1/4, 0). List 0, 3: q = (1/2, 1/2, 0). List 2: only the 1 % of p is common."""
    histories = [np.array([0, 1, 4])] * 3 + [np.array([4]), np.array([0, 3])]
    items = np.array([[0, 3], [2, -1], [-1, -1], [0, 3], [3, 0]])
    found = miscalibration(items, histories, CATEGORIES)
    q = 0.99 * 0.5 + 0.01 * np.array([0.75, 0.25])
    assert found[0] == pytest.approx(0.75 * math.log(0.75 / q[0]) + 0.25 * math.log(0.25 / q[1]))
    assert found[1] == pytest.approx(math.log(100))
    assert np.isnan(found[2:4]).all(), "no list; a history without categories"
    assert found[4] == pytest.approx(0)


def everything(**changes) -> dict:
    facts = {
        "items": ITEMS,
        "training_counts": COUNTS,
        "embeddings": np.eye(5),
        "categories": CATEGORIES,
        "histories": [np.array([4, 1]), np.array([2]), np.array([], dtype=np.int64)],
        "targets": np.array([[2], [3], [0]]),
        "expected": np.array([[0, 1, 2], [0, 1, 2], [0, 1, 2]]),
        "cutoffs": (1, 2),
    }
    return beyond_accuracy(**{**facts, **changes})


def test_all_metrics_at_each_cut_off_read_that_many_columns():
    found = everything()
    assert set(found) == {f"{name}@{k}" for name in BEYOND_ACCURACY for k in (1, 2)}
    assert found["coverage@1"] == 1 / 5
    assert found["coverage@2"] == 3 / 5
    assert found["novelty@2"][:2].tolist() == [1.5, 2.5]
    assert found["serendipity@2"].tolist() == [0, 0.5, 0]


def test_every_value_lies_within_its_bounds(rng):
    found = everything(items=rng.integers(-1, 5, size=(3, 3)), cutoffs=(1, 2, 3))
    for name, value in found.items():
        low, high = BEYOND_ACCURACY[name.split("@")[0]].bounds
        known = np.array(value)[~np.isnan(value)]
        assert ((known >= low - 1e-12) & (known <= high + 1e-12)).all(), name


def test_what_is_not_given_is_left_out():
    found = beyond_accuracy(ITEMS, COUNTS, cutoffs=(3,))
    assert set(found) == {"coverage@3", "gini@3", "novelty@3", "popularity@3"}


def test_a_cut_off_beyond_the_table_is_refused():
    with pytest.raises(ValueError, match="cut-off 5 needs as many recommendations for each user; there are 3"):
        everything(cutoffs=(1, 5))


def test_the_documentation_defines_every_metric():
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    missing = [name for name in ALL if f"`{name}" not in text]
    assert not missing
