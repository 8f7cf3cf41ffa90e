"""HLLM recommends the right items among those that nobody has in training; SASRec, which knows ids, cannot."""

import random
from itertools import product

import polars as pl
import pytest

from hllm import Recipe, Recommender

COLOURS = ["red", "green", "blue"]  # the next item of a user has the next colour, and is else drawn at random
NUM_USERS, LENGTH = 90, 8
STAGE = {"batch_size": 16, "objective": {"negatives": {"kind": "catalogue"}}, "validate_every": 20}


def world() -> tuple[pl.DataFrame, pl.DataFrame, list[str]]:
    """Return interactions, items, and the ids of the nine items that nobody has."""
    draw = random.Random(1)
    ids = ["-".join(words) for words in product(["big", "small", "old", "new"], COLOURS, ["hat", "coat", "shoe"])]
    items = pl.DataFrame({"item_id": ids, "title": [item.replace("-", " ") for item in ids]})
    shelves = {colour: [item for item in ids if colour in item and "new" not in item] for colour in COLOURS}
    rows = [
        {"user_id": user, "item_id": draw.choice(shelves[COLOURS[(user + step) % 3]]), "timestamp": step}
        for user in range(NUM_USERS)
        for step in range(LENGTH)
    ]
    return pl.DataFrame(rows), items, [item for item in ids if "new" in item]


def fit(item: dict, user: dict, *stages: dict) -> Recommender:
    interactions, items, _ = world()
    model = {"max_history": LENGTH, "item": item, "user": user}
    values = {"about": "a small world", "precision": "fp32", "data": {}, "model": model, "stages": list(stages)}
    return Recommender.fit(interactions, items, recipe=Recipe.from_dict(values, where="test"))


def share_due(recommender: Recommender, among: list[str]) -> float:
    """Return how many of the three items that each user is shown first have the colour that comes next."""
    lists = recommender.recommend(k=3, items=among, exclude_seen=False)
    due = [COLOURS[(user + LENGTH) % 3] for user in lists["user_id"]]
    return sum(colour in item for colour, item in zip(due, lists["item_id"], strict=True)) / len(lists)


@pytest.fixture(scope="module")
def new() -> list[str]:
    return world()[2]


@pytest.fixture(scope="module")
def known() -> list[str]:
    _, items, new = world()
    return [item for item in items["item_id"] if item not in new]


def test_hllm_finds_what_nobody_has(tiny_bert, tiny_llama, known, new):
    item = {"kind": "llm", "backbone": str(tiny_bert), "pooling": "mean", "whiten": True}
    user = {"kind": "llm", "backbone": str(tiny_llama)}
    frozen = STAGE | {"item_tier": "frozen", "epochs": 14, "learning_rate": 1e-2}
    hllm = fit(item, user, frozen, STAGE | {"epochs": 3, "learning_rate": 3e-3})
    assert share_due(hllm, known) > 0.9
    assert share_due(hllm, new) > 0.9


def test_ids_find_what_is_known_alone(known, new):
    user = {"kind": "sasrec", "dim": 16, "num_heads": 2, "dropout": 0.0, "positions": "end"}
    sasrec = fit({"kind": "id"}, user, STAGE | {"epochs": 25, "learning_rate": 3e-2})
    assert share_due(sasrec, known) > 0.9, "the order of the colours was learnt"
    assert share_due(sasrec, new) < 0.6, "chance is a third"
