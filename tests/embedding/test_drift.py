"""Four vectors in the plane, at 0, 10, 90 and 100 degrees; afterwards the second stands at 95."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from hllm.embedding import drift
from hllm.embedding.drift import measure_drift


def at(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


IDS, TITLES = pl.Series([1, 2, 3, 4]), pl.Series(["one", "two", "three", "four"])
NONE = np.zeros(0, dtype=np.int64)


def test_cosines_and_neighbours_by_hand(monkeypatch):
    monkeypatch.setattr(drift, "NEIGHBOURS", 1)
    found = measure_drift(at(0, 10, 90, 100), 3 * at(0, 95, 90, 100.5), IDS, TITLES, new_text=np.array([3]))
    cosines = [1, math.cos(math.radians(85)), 1, math.cos(math.radians(0.5))]
    assert found.cosine_mean == pytest.approx(np.mean(cosines))
    assert found.cosine_min == pytest.approx(cosines[1])
    assert found.cosine_p5 == pytest.approx(cosines[1] + 0.15 * (cosines[3] - cosines[1])), "between first and second"
    assert [item.title for item in found.worst] == ["two", "four", "one", "three"]
    assert [item.new_text for item in found.worst] == [False, True, False, False]
    # Nearest before: 2, 1, 4, 3; after: 3 (at 90), 3 (5 degrees away), 2, 2.
    assert found.overlap_at_10 == 0.0


def test_vectors_that_only_turned_have_the_same_neighbours():
    before = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    turned = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))[0]
    ids = pl.Series(range(40))
    found = measure_drift(before, before @ turned, ids, ids.cast(pl.String), new_text=NONE)
    assert found.overlap_at_10 == 1.0
    assert found.cosine_mean < 0.5
    assert measure_drift(before, before, ids, ids, new_text=NONE).cosine_min == pytest.approx(1.0)


def test_parts_make_no_difference(monkeypatch):
    before, after = (torch.randn(50, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    ids = pl.Series(range(50))
    whole = measure_drift(before, after, ids, ids, new_text=NONE)
    monkeypatch.setattr(drift, "_NUMBERS_AT_ONCE", 70)
    parts = measure_drift(before, after, ids, ids, new_text=NONE)
    assert parts.overlap_at_10 == whole.overlap_at_10
    assert parts.cosine_mean == pytest.approx(whole.cosine_mean)


def test_at_most_a_thousand_items_are_asked_for_neighbours():
    vectors = torch.randn(1200, 4, generator=torch.Generator().manual_seed(0))
    ids = pl.Series(range(1200))
    found = measure_drift(vectors, vectors, ids, ids, new_text=NONE)
    assert (found.num_items, found.num_sampled, found.overlap_at_10) == (1200, 1000, 1.0)
