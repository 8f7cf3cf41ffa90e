import math

import numpy as np
import pytest
import torch

from hllm.data.batch import item_batch, sequence_batch
from hllm.errors import DataError
from hllm.models.item.ids import IdItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.tiers import History
from hllm.models.user.sasrec import SASRec


def id_model(num_items: int = 10) -> SequentialRecommender:
    torch.manual_seed(0)
    user = SASRec(dim=8, num_layers=2, num_heads=2, dropout=0.5, max_history=6)
    return SequentialRecommender(IdItemEncoder(num_items, 8), user).eval()


@torch.no_grad()
def test_sasrec_sees_nothing_of_later_items():
    user = id_model().user_encoder
    history = torch.randn(2, 6, 8)
    changed = history.clone()
    changed[:, 4:] += torch.randn(2, 2, 8)
    mask = torch.ones(2, 6, dtype=torch.bool)
    before, after = user(History(history, mask)), user(History(changed, mask))
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-6)
    assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-2)


@torch.no_grad()
def test_sasrec_knows_the_order():
    user = id_model().user_encoder
    history = torch.randn(1, 3, 8)
    mask = torch.ones(1, 3, dtype=torch.bool)
    swapped = user(History(history[:, [1, 0, 2]], mask))
    assert not torch.allclose(user(History(history, mask))[:, 2], swapped[:, 2], atol=1e-3)


@torch.no_grad()
def test_each_distinct_item_is_encoded_once_and_gathered_back():
    model = id_model()
    windows = [np.array([5, 3, 5, 9]), np.array([3, 7])]
    encoded = model(sequence_batch(windows, np.array([0]), None))
    assert len(encoded.items) == 5
    table = model.item_encoder.embedding.weight
    for row, window in enumerate(windows):
        alone = model.user_encoder(History(table[window[:-1]][None], torch.ones(1, len(window) - 1, dtype=torch.bool)))
        assert torch.allclose(encoded.users[row, : len(window) - 1], alone[0], atol=1e-5)


@torch.no_grad()
def test_a_users_embedding_is_taken_at_the_last_real_position():
    model = id_model()
    table = model.item_encoder.embedding.weight
    history, mask = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([[True] * 3, [True, False, False]])
    users = model.encode_users(table, history, mask)
    alone = model.encode_users(table, torch.tensor([[4]]), torch.tensor([[True]]))
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
