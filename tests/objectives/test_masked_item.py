import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hllm.batches.batch import sequence_batch
from hllm.batches.negatives import Negatives
from hllm.errors import ConfigError
from hllm.models.item.ids import IdItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.user.bert4rec import BERT4Rec, BERT4RecConfig
from hllm.models.user.gru4rec import GRU4Rec
from hllm.objectives.masked_item import MaskedItem, MaskedItemConfig, choose_masked
from tests.conftest import batch_of, history_of

WINDOWS = [np.array([5, 3, 5, 9]), np.array([3, 7]), np.array([1, 2, 4, 6, 8])]
LAST = MaskedItemConfig(last_share=1.0)


def ask(model, items, batch, config):
    """The outcome for a step of this batch alone, with one query for each of its windows."""
    return MaskedItem(config, num_items=10)(model, items, batch, len(batch.mask))


@pytest.fixture
def model() -> SequentialRecommender:
    torch.manual_seed(0)
    user = BERT4Rec(BERT4RecConfig(dim=8, dropout=0.3), max_history=4)
    return SequentialRecommender(IdItemEncoder(10, 8, init_std=1.0), user).eval()


def test_with_only_last_items_masked_training_asks_what_scoring_asks(model):
    """The loss by hand: what `after` says of each window without its last item, against that item and two others."""
    batch = batch_of(WINDOWS, shared=[0, 9])
    outcome = ask(model, model.item_encoder(batch.items), batch, LAST)
    table = model.item_encoder.embedding.weight
    losses = []
    for window in WINDOWS:
        user = model.user_encoder.after(history_of(table[window[:-1]][None]))
        others = [item for item in (0, 9) if item != window[-1]]
        cosines = F.cosine_similarity(user, table[[window[-1], *others]])
        losses.append(-torch.log_softmax(model.scale * cosines, dim=0)[0])
    assert outcome.loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)
    assert outcome.numbers["masked_negatives"].item() == pytest.approx(1 / 6), "9 is the first window's own target"


def test_the_first_item_of_a_window_is_context_and_what_is_masked_is_hidden(model):
    batch = batch_of(WINDOWS, shared=[0])
    items = model.item_encoder(batch.items)
    states = []
    forward = model.user_encoder.forward
    model.user_encoder.forward = lambda history: states.append(history) or forward(history)
    ask(model, items, batch, LAST)
    rows = {4: [5, 3, 5, None], 2: [3, None], 5: [1, 2, 4, 6, None]}
    for history in states:
        for row, length in enumerate(history.mask.sum(1).tolist()):
            for position, item in enumerate(rows.pop(length)):
                expected = model.user_encoder.mask_vector if item is None else model.item_encoder.embedding.weight[item]
                assert torch.equal(history.embeddings[row, position], expected)
    assert not rows, "every window was read"


def test_each_masked_item_has_its_own_negatives(model):
    own = np.array([[0, 1], [2, 4], [6, 8], [0, 4], [5, 5], [7, 7], [3, 5], [9, 0]])  # eight targets in all
    zeros = [np.zeros_like(window) for window in WINDOWS]
    negatives = Negatives(np.array([], dtype=np.int64), own, np.ones(10))
    batch = sequence_batch(WINDOWS, negatives, None, users=np.arange(len(WINDOWS)), times=zeros, actions=zeros)
    outcome = ask(model, model.item_encoder(batch.items), batch, LAST)
    table = model.item_encoder.embedding.weight
    losses = []
    for window, row in zip(WINDOWS, (2, 3, 7), strict=True):  # the last target of each window
        user = model.user_encoder.after(history_of(table[window[:-1]][None]))
        cosines = F.cosine_similarity(user, table[[window[-1], *[n for n in own[row] if n != window[-1]]]])
        losses.append(-torch.log_softmax(model.scale * cosines, dim=0)[0])
    assert outcome.loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)


def test_torchs_seed_decides_what_is_masked():
    targets, chosen = torch.ones(20, 10, dtype=torch.bool), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        chosen.append(choose_masked(targets, MaskedItemConfig()))
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])


def test_the_share_of_masked_targets_is_as_asked():
    torch.manual_seed(0)
    targets = torch.ones(4_000, 10, dtype=torch.bool)
    chosen = choose_masked(targets, MaskedItemConfig(masked_share=0.3, last_share=0))
    empty = 0.7**10  # rows that drew nothing mask one
    assert chosen.float().mean().item() == pytest.approx(0.3 + empty / 10, abs=0.01)
    assert chosen.float().mean(0).tolist() == pytest.approx([0.3 + empty / 10] * 10, abs=0.03)


def test_every_window_masks_something_real():
    torch.manual_seed(0)
    targets = torch.arange(6) < torch.randint(1, 7, (500, 1))
    for config in (MaskedItemConfig(masked_share=0.01), MaskedItemConfig(masked_share=0.9), LAST):
        chosen = choose_masked(targets, config)
        assert chosen.any(-1).all()
        assert not (chosen & ~targets).any()
    only = choose_masked(targets, LAST)
    assert only.sum(-1).tolist() == [1] * 500
    assert only.float().argmax(-1).tolist() == (targets.sum(-1) - 1).tolist()


def test_a_tier_without_a_mask_is_refused():
    user = GRU4Rec(dim=8, hidden=8, num_layers=1, dropout=0.0)
    model = SequentialRecommender(IdItemEncoder(10, 8), user)
    batch = batch_of(WINDOWS, shared=[0])
    with pytest.raises(ConfigError, match=r"GRU4Rec has no \[MASK\] to fill in"):
        ask(model, model.item_encoder(batch.items), batch, LAST)
