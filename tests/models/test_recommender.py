import math

import numpy as np
import pytest
import torch

from hllm.batches.batch import item_batch
from hllm.errors import DataError
from hllm.models.item.ids import IdItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.tiers import by_length
from hllm.models.user.sasrec import SASRec, SASRecConfig
from tests.conftest import batch_of, history_of


def id_model(num_items: int = 10) -> SequentialRecommender:
    torch.manual_seed(0)
    user = SASRec(SASRecConfig(dim=8, dropout=0.5), max_history=6)
    return SequentialRecommender(IdItemEncoder(num_items, 8), user).eval()


@torch.no_grad()
def test_sasrec_sees_nothing_of_later_items():
    user = id_model().user_encoder
    given = torch.randn(2, 6, 8)
    changed = given.clone()
    changed[:, 4:] += torch.randn(2, 2, 8)
    before, after = user(history_of(given)), user(history_of(changed))
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-6)
    assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-2)


@torch.no_grad()
def test_sasrec_knows_the_order():
    user = id_model().user_encoder
    given = torch.randn(1, 3, 8)
    swapped = user(history_of(given[:, [1, 0, 2]]))
    assert not torch.allclose(user(history_of(given))[:, 2], swapped[:, 2], atol=1e-3)


@torch.no_grad()
def test_each_distinct_item_is_encoded_once_and_gathered_back():
    model = id_model()
    windows = [np.array([5, 3, 5, 9]), np.array([3, 7])]
    batch = batch_of(windows, shared=[0])
    assert batch.items.index.tolist() == [0, 3, 5, 7, 9]
    users = model.users(model.item_encoder(batch.items), batch)
    table = model.item_encoder.embedding.weight
    for row, window in enumerate(windows):
        alone = model.user_encoder(history_of(table[window[:-1]][None]))
        assert torch.allclose(users[row, : len(window) - 1], alone[0], atol=1e-5)


@torch.no_grad()
def test_a_users_embedding_is_taken_at_the_last_real_position():
    model = id_model()
    table = model.item_encoder.embedding.weight
    rows, mask = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([[True] * 3, [True, False, False]])
    users = model.user_encoder.after(history_of(table[rows], mask))
    alone = model.user_encoder.after(history_of(table[torch.tensor([[4]])]))
    assert torch.allclose(users[1], alone[0], atol=1e-5)


def test_the_scale_is_learnt_and_kept_between_1_and_100():
    model = id_model()
    assert model.scale.item() == pytest.approx(1 / 0.07)
    for stored, used in ((-3.0, 1.0), (math.log(20), 20.0), (9.0, 100.0)):
        model.log_scale.data.fill_(stored)
        model.clamp_scale()
        assert model.scale.item() == pytest.approx(used, rel=1e-5)
    model.scale.backward()
    assert model.log_scale.grad.item() == pytest.approx(100.0, rel=1e-5), "at the bound it can still come back"


def test_an_id_model_cannot_read_text():
    with pytest.raises(DataError, match="knows items by id only: it cannot embed a text"):
        id_model().item_encoder(item_batch(np.array([1, -1]), None))


@pytest.mark.parametrize(
    ("lengths", "passes"),
    [([1, 6, 2, 1, 1, 2, 1], [4 * 1, 2 * 2, 1 * 6]), ([1, 6, 2, 5, 3, 6, 1], [7 * 6])],
)
def test_histories_of_like_length_go_together_and_come_back_in_their_order(lengths, passes):
    """Against one pass over everything: 14 of 42 positions instead of all; where little is saved, one pass."""
    model = id_model()
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    given = history_of(torch.randn(7, 6, 8), mask)
    computed = []
    forward = model.user_encoder.forward
    model.user_encoder.forward = lambda part: computed.append(part.mask.numel()) or forward(part)
    with torch.no_grad():
        ours = by_length(model.user_encoder, given, torch.tensor(lengths))
        plain = forward(given)
    assert torch.allclose(ours[mask], plain[mask], atol=1e-6)
    assert ours.shape == plain.shape
    assert computed == passes
