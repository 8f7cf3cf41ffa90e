"""Places of a new item in the lists of many users, against a loop; the frame is proved in tests/test_api.py."""

import numpy as np
import pytest
import torch

from hllm.retrieval import audience
from hllm.retrieval.histories import Histories


@pytest.mark.parametrize("users_per_tile", [1, 7, 256])
def test_places_against_a_loop_over_users(monkeypatch, trained, rng, users_per_tile):
    """Some users have no history, some items score as the new one does, and seen items take no place."""
    monkeypatch.setattr(audience, "USERS_PER_TILE", users_per_tile)
    scorer, number = trained.scorer, 40
    histories = Histories([rng.choice(30, length, replace=False) for length in rng.integers(0, 9, number)])
    users = torch.from_numpy(rng.standard_normal((number, scorer.table.shape[1])).astype(np.float32))
    users[3] = 0
    for item in (scorer.table[4:5], torch.ones(1, scorer.table.shape[1])):
        score, above = audience._places(scorer, histories, users, item)
        key = scorer.comparable(item)[0].double()
        for user, history in enumerate(histories):
            scores = (scorer.keys.double() @ scorer.comparable(users[[user]])[0].double()).numpy()
            own = float(key @ scorer.comparable(users[[user]])[0].double())
            assert score[user] == pytest.approx(own, abs=1e-5)
            unseen = np.setdiff1d(np.arange(30), history)
            assert above[user] == (scores[unseen] >= own - 1e-6).sum()
