"""BERT4Rec fills in a hidden item from what comes after it; SASRec, which reads from the left, cannot know it."""

import random

import polars as pl
import pytest
import torch
import torch.nn.functional as F

from hllm import Recipe, Recommender
from tests.conftest import history_of

NUM_USERS, NUM_PAIRS, PAIRS = 100, 10, 4  # a history is four pairs: of 0 and 10, of 1 and 11, and so on
STAGE = {
    "batch_size": 16,
    "learning_rate": 1e-2,
    "objective": {"negatives": {"kind": "catalogue"}},
    "validate_every": 30,
}


def fit(user_tier: dict, **stage: object) -> Recommender:
    """Train on histories of pairs. The first of a pair is drawn at random, and decides the second."""
    draw = random.Random(3)
    items = pl.DataFrame({"item_id": range(2 * NUM_PAIRS)}).with_columns(title=pl.format("item {}", "item_id"))
    rows = []
    for user in range(NUM_USERS):
        for step in range(PAIRS):
            first = draw.randrange(NUM_PAIRS)
            rows += [(user, first, 2 * step), (user, first + NUM_PAIRS, 2 * step + 1)]
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    user = {"dim": 32, "dropout": 0.0, "positions": "end"} | user_tier
    model = {"max_history": 2 * PAIRS, "item": {"kind": "id"}, "user": user}
    values = {"about": "a small world", "precision": "fp32", "data": {}, "model": model, "stages": [STAGE | stage]}
    return Recommender.fit(interactions, items, recipe=Recipe.from_dict(values, where="test"))


@pytest.fixture(scope="module")
def histories() -> torch.Tensor:
    """A hundred histories of two pairs: all ways in which the first items can be drawn."""
    firsts = torch.cartesian_prod(torch.arange(NUM_PAIRS), torch.arange(NUM_PAIRS))
    return torch.stack([firsts, firsts + NUM_PAIRS], dim=-1).flatten(1)  # (history, position)


def nearest(recommender: Recommender, users: torch.Tensor) -> torch.Tensor:
    table = recommender.scorer.table
    return (F.normalize(users, dim=-1) @ F.normalize(table, dim=-1).T).argmax(-1)


def test_bert4rec_fills_in_the_first_of_the_last_pair(histories):
    objective = {"kind": "masked-item", "masked_share": 0.3, "negatives": {"kind": "catalogue"}}
    recommender = fit({"kind": "bert4rec"}, objective=objective, epochs=30)
    encoder = recommender.model.user_encoder
    hidden = torch.zeros_like(histories, dtype=torch.bool)
    hidden[:, 2] = True
    with torch.no_grad():
        states = encoder(encoder.masked(history_of(recommender.scorer.table[histories]), hidden))
    assert (nearest(recommender, states[hidden]) == histories[:, 2]).float().mean() > 0.9


def test_sasrec_knows_the_second_of_a_pair_alone(histories):
    """It is asked from the left: for the third item after two, and for the fourth after three."""
    recommender = fit({"kind": "sasrec"}, epochs=20)
    with torch.no_grad():
        states = recommender.model.user_encoder(history_of(recommender.scorer.table[histories[:, :3]]))
    right = [(nearest(recommender, states[:, n - 1]) == histories[:, n]).float().mean() for n in (2, 3)]
    assert right[1] > 0.9, "the pairs were learnt"
    assert right[0] < 0.4, "one in ten is chance"
