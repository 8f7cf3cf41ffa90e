"""HSTU's bias by time tells what depends on time; a model that knows the order alone does not."""

import random

import polars as pl
import pytest

from hllm import Recipe, Recommender

NUM_USERS, NUM_ITEMS, LENGTH = 120, 20, 10
MINUTE, MONTH = 60, 30 * 86_400
STAGE = {
    "epochs": 20,
    "batch_size": 16,
    "learning_rate": 1e-2,
    "objective": {"negatives": {"kind": "catalogue"}},
    "validate_every": 20,
}


def world() -> tuple[pl.DataFrame, dict[int, str]]:
    """Return interactions, and what comes next of each user.

    An item is followed by the next one in number if it came a minute after the one before, by the seventh next if a
    month after.
    """
    draw = random.Random(2)
    rows, due = [], {}
    for user in range(NUM_USERS):
        item, time = draw.randrange(NUM_ITEMS), 0
        for _ in range(LENGTH):
            gap = draw.choice([MINUTE, MONTH])
            time += gap
            rows.append({"user_id": user, "item_id": f"item-{item}", "timestamp": time})
            item = (item + (1 if gap == MINUTE else 7)) % NUM_ITEMS
        due[user] = f"item-{item}"
    return pl.DataFrame(rows), due


def share_due(user_tier: dict) -> float:
    """Train on the world; return how many users are first shown what comes next."""
    interactions, due = world()
    items = pl.DataFrame({"item_id": [f"item-{n}" for n in range(NUM_ITEMS)]}).with_columns(title=pl.col("item_id"))
    model = {"max_history": LENGTH, "item": {"kind": "id"}, "user": {"dim": 32, "dropout": 0.0} | user_tier}
    values = {"about": "a small world", "precision": "fp32", "data": {}, "model": model, "stages": [STAGE]}
    recommender = Recommender.fit(interactions, items, recipe=Recipe.from_dict(values, where="test"))
    lists = recommender.recommend(k=1, exclude_seen=False)
    return sum(due[user] == item for user, item in zip(lists["user_id"], lists["item_id"], strict=True)) / len(lists)


def test_with_the_bias_by_time_the_next_item_is_known():
    assert share_due({"kind": "hstu", "time_bias": True}) > 0.9


def test_without_it_the_next_item_is_one_of_two():
    assert 0.3 < share_due({"kind": "hstu"}) < 0.7


@pytest.mark.slow
def test_sasrec_knows_one_of_two():
    assert 0.3 < share_due({"kind": "sasrec", "positions": "end"}) < 0.7
