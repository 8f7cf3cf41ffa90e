"""A walk that learns nothing finds a user's community, which popularity cannot.

That the walk is three rounds of the paper's message passing stands in tests/evaluation/test_baselines.py.
"""

import random

import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.schema import DataConfig
from hllm.data.split import split_dataset
from hllm.evaluation.baselines import build_baseline
from hllm.evaluation.evaluate import evaluate
from hllm.evaluation.protocol import EvaluationConfig
from hllm.retrieval.exact import ExactRetriever

COMMUNITIES, ITEMS, BOUGHT = 3, 12, 8


@pytest.fixture(scope="module")
def world():
    """Each user has 8 of the 12 items of one community, in any order."""
    draw = random.Random(1)
    ids = [f"{community}-{n}" for community in range(COMMUNITIES) for n in range(ITEMS)]
    rows = [
        {"user_id": user, "item_id": f"{user % COMMUNITIES}-{n}", "timestamp": step}
        for user in range(60)
        for step, n in enumerate(draw.sample(range(ITEMS), k=BOUGHT))
    ]
    dataset = build_dataset(pl.DataFrame(rows), pl.DataFrame({"item_id": ids, "title": ids}), DataConfig())
    return dataset, split_dataset(dataset, LeaveOneOutSplit())


def share_found(world, baseline: str) -> float:
    """Return how many users have their last item among as many as are left of their community."""
    left = ITEMS - BOUGHT + 1
    config = EvaluationConfig(cutoffs=(left,))
    found = evaluate(baseline, ExactRetriever(build_baseline(baseline, *world)), *world, "test", config)
    return found.all_items[f"recall@{left}"].mean


def test_the_walk_finds_the_community(world):
    assert share_found(world, "co-occurrence") > 0.95


def test_popularity_does_not(world):
    assert share_found(world, "popularity") < 0.4, "5 of 29 items would be .17"
