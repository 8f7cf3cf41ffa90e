"""A text in a history is read as an item with the same vector would be, wherever it stands."""

import numpy as np
import pytest
import torch

from hllm.errors import DataError
from hllm.models.fusion import Fusion, InputsConfig
from hllm.models.recommender import SequentialRecommender
from hllm.retrieval.histories import Histories
from hllm.retrieval.scorer import ModelScorer

WITH_ITEMS = [np.array([3, 9, 5]), np.array([9, 4]), np.array([1, 2, 9]), np.array([8, 9, 8, 2]), np.array([6])]
WITH_TEXTS = [np.array([3, -1, 5]), np.array([-2, 4]), np.array([1, 2, -1]), np.array([-3, -1, 8, 2]), np.array([6])]
SECONDS = [np.arange(len(own)) * 86_400 for own in WITH_ITEMS]


def scorer_with(trained, inputs: InputsConfig | None) -> ModelScorer:
    model, own = trained.model, trained.scorer
    fusion = None if inputs is None else Fusion(inputs, own.table.shape[1], num_items=30, num_actions=1)
    other = SequentialRecommender(model.item_encoder, model.user_encoder, fusion=fusion).eval()
    return ModelScorer(other, own.table, max_history=8, device=own.device, precision="fp32")


@pytest.mark.parametrize("timestamp", [0, 3])
def test_a_text_anywhere_is_read_as_the_item_of_the_same_vector(trained, timestamp):
    scorer = scorer_with(trained, InputsConfig(timestamp=timestamp) if timestamp else None)
    times = SECONDS if timestamp else None
    texts = scorer.table[torch.tensor([9, 9, 8])]
    expected = scorer.users(Histories(WITH_ITEMS, times))
    assert torch.equal(scorer.users(Histories(WITH_TEXTS, times, texts=texts)), expected)
    in_the_middle = Histories(WITH_TEXTS, times, texts=scorer.table[torch.tensor([7, 7, 7])])
    assert not torch.allclose(scorer.users(in_the_middle)[:4], expected[:4]), "the premise: the vector counts"


def test_a_text_has_no_vector_of_an_id(trained):
    scorer = scorer_with(trained, InputsConfig(item_id=True))
    texts = scorer.table[torch.tensor([9, 9, 8])]
    with torch.no_grad():
        scorer.model.fusion.items.weight[[9, 8]] = 0
        scorer.model.fusion.items.weight[-1] = 100.0
    found = scorer.users(Histories(WITH_TEXTS, texts=texts))
    assert torch.equal(found[:3], scorer.users(Histories(WITH_ITEMS))[:3])


def test_texts_beyond_the_latest_elements_are_not_read(trained):
    scorer = scorer_with(trained, None)
    short = np.arange(10, 18)
    found = scorer.users(Histories([np.append(-1, short)], texts=scorer.table[:1]))
    assert torch.equal(found, scorer.users(Histories([short])))


def test_a_model_that_reads_times_needs_those_of_the_texts_too(trained):
    scorer = scorer_with(trained, InputsConfig(timestamp=3))
    with pytest.raises(DataError, match="reads when things happened, which a bare list of items does not say"):
        scorer.users(Histories(WITH_TEXTS, texts=scorer.table[:3]))
