import cmath
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hllm.batches.batch import item_batch
from hllm.errors import ConfigError
from hllm.losses.contrastive import LossConfig
from hllm.models.build import ModelConfig, build_model
from hllm.models.tiers import History, UserEncoder
from hllm.models.user.bert4rec import BERT4Rec, BERT4RecConfig
from hllm.models.user.block import BlockShape, Dropout, TransformerBlock
from hllm.models.user.gru4rec import GRU4Rec
from hllm.models.user.hstu import HSTU, HSTUConfig, time_buckets
from hllm.models.user.positions import LearntPositions, rotated
from hllm.models.user.sasrec import SASRec, SASRecConfig
from hllm.objectives.masked_item import MaskedItem, MaskedItemConfig
from hllm.objectives.next_item import NextItem
from tests.conftest import batch_of, history_of

DIM, MAX_HISTORY = 8, 6
SMALL = {"dim": DIM, "num_layers": 2, "num_heads": 2, "dropout": 0.4}
ESASREC = {"inner": 4, "activation": "swiglu", "gated": True, "bias": False}


def sasrec(**options) -> SASRec:
    return SASRec(SASRecConfig(**SMALL | options), max_history=MAX_HISTORY)


def hstu(**options) -> HSTU:
    return HSTU(HSTUConfig(**SMALL | options), max_history=MAX_HISTORY)


def bert4rec(**options) -> BERT4Rec:
    return BERT4Rec(BERT4RecConfig(**SMALL | options), max_history=MAX_HISTORY)


CAUSAL = {
    "sasrec": sasrec,
    "sasrec from the end": lambda: sasrec(positions="end"),
    "sasrec rotary": lambda: sasrec(positions="rotary"),
    "sasrec without positions": lambda: sasrec(positions="none"),
    "sasrec post-norm": lambda: sasrec(norm="post", input_norm=True, final_norm=False),
    "esasrec": lambda: sasrec(**ESASREC),
    "hstu": hstu,
    "hstu with times": lambda: hstu(time_bias=True),
    "hstu without biases": lambda: hstu(positions="none", relative_bias=False),
    "gru4rec": lambda: GRU4Rec(dim=DIM, hidden=12, num_layers=2, dropout=0.4),
}
BIDIRECTIONAL = {
    "bert4rec": bert4rec,
    "bert4rec from the end": lambda: bert4rec(norm="post", positions="end"),
}


def made(name: str) -> UserEncoder:
    """A tier with weights large enough that everything in it shows in the output."""
    torch.manual_seed(0)
    encoder = (CAUSAL | BIDIRECTIONAL)[name]().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return encoder


# What every tier promises


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_a_causal_tier_sees_nothing_of_later_items(name):
    user = made(name)
    given = torch.randn(2, 6, DIM)
    changed = given.clone()
    changed[:, 4:] += torch.randn(2, 2, DIM)
    before, after = user(history_of(given)), user(history_of(changed))
    assert user.causal
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-5)
    assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-2)


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_a_causal_tier_reads_earlier_items_and_their_order(name):
    user = made(name)
    given = torch.randn(1, 4, DIM)
    if name not in ("sasrec without positions", "hstu without biases"):  # the last item sees the others as a set
        swapped = user(history_of(given[:, [1, 0, 2, 3]]))
        assert not torch.allclose(user(history_of(given))[:, 3], swapped[:, 3], atol=1e-3)
    other = torch.cat([torch.randn(1, 1, DIM), given[:, 1:]], dim=1)
    assert not torch.allclose(user(history_of(given))[:, 3], user(history_of(other))[:, 3], atol=1e-3)


@pytest.mark.parametrize("name", CAUSAL | BIDIRECTIONAL)
@torch.no_grad()
def test_histories_encoded_together_or_alone_give_the_same(name):
    user = made(name)
    lengths = [5, 1, 3]
    vectors = torch.randn(3, 5, DIM)  # padding holds numbers too
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    times = torch.tensor([3, 50, 4_000, 4_001, 90_000]).expand(3, 5)
    together = History(vectors, mask, times)
    states, after = user(together), user.after(together)
    for row, length in enumerate(lengths):
        alone = History(vectors[row : row + 1, :length], mask[row : row + 1, :length], times[row : row + 1, :length])
        assert torch.allclose(states[row, :length], user(alone)[0], atol=1e-5)
        assert torch.allclose(after[row], user.after(alone)[0], atol=1e-5)


@pytest.mark.parametrize("name", CAUSAL | BIDIRECTIONAL)
def test_every_weight_of_a_tier_learns_from_long_histories(name):
    user = made(name).train()
    history = history_of(torch.randn(4, MAX_HISTORY, DIM))
    user.after(history).square().sum().backward()
    assert all(parameter.grad is not None for parameter in user.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in user.parameters())


# BERT4Rec


@torch.no_grad()
def test_bert4rec_reads_both_ways():
    user = made("bert4rec")
    given = torch.randn(1, 4, DIM)
    for position in (0, 3):
        changed = given.clone()
        changed[:, position] += torch.randn(DIM)
        difference = (user(history_of(given)) - user(history_of(changed))).abs().amax(-1)
        assert (difference > 1e-3).all(), f"position {position} reaches every other"


@torch.no_grad()
def test_bert4rec_sees_nothing_of_what_is_masked():
    user = made("bert4rec")
    given, chosen = torch.randn(1, 4, DIM), torch.tensor([[False, True, False, False]])
    changed = given.clone()
    changed[0, 1] += torch.randn(DIM)
    masked = [user(user.masked(history_of(vectors), chosen)) for vectors in (given, changed)]
    assert torch.equal(*masked)


@torch.no_grad()
def test_bert4rec_asks_by_a_mask_behind_the_last_item_of_even_the_longest_history():
    user = made("bert4rec")
    for length in (1, MAX_HISTORY):
        given = torch.randn(1, length, DIM)
        asked = history_of(torch.cat([given, user.mask_vector[None, None]], dim=1))
        assert torch.allclose(user.after(history_of(given)), user(asked)[:, -1], atol=1e-6)


# The block


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_the_block_against_torchs_transformer_layer(norm, activation, causal):
    torch.manual_seed(0)
    shape = BlockShape(dim=8, num_heads=2, causal=causal, dropout=0.0, inner=3, norm=norm, activation=activation)
    ours = TransformerBlock(shape).eval()
    torchs = nn.TransformerEncoderLayer(8, 2, 24, 0.0, activation, batch_first=True, norm_first=norm == "pre").eval()
    for parameter in ours.parameters():
        parameter.normal_()
    pairs = {
        "self_attn.in_proj_weight": ours.attention.queries_keys_values.weight,
        "self_attn.in_proj_bias": ours.attention.queries_keys_values.bias,
        "self_attn.out_proj.weight": ours.attention.output.weight,
        "self_attn.out_proj.bias": ours.attention.output.bias,
        "linear1.weight": ours.feed_forward.inner.weight,
        "linear1.bias": ours.feed_forward.inner.bias,
        "linear2.weight": ours.feed_forward.output.weight,
        "linear2.bias": ours.feed_forward.output.bias,
        "norm1.weight": ours.attention_norm.weight,
        "norm1.bias": ours.attention_norm.bias,
        "norm2.weight": ours.feed_forward_norm.weight,
        "norm2.bias": ours.feed_forward_norm.bias,
    }
    torchs.load_state_dict(pairs, strict=True)
    states, mask = torch.randn(2, 5, 8), torch.arange(5) < torch.tensor([[5], [3]])
    future = ~torch.ones(5, 5, dtype=torch.bool).tril()
    # Gradients are asked for, which keeps torch off its fast path for inference.
    with torch.enable_grad():
        expected = torchs(states, src_mask=future if causal else None, src_key_padding_mask=~mask)
    assert torch.allclose(ours(states, mask)[mask], expected[mask], atol=1e-5)


@torch.no_grad()
def test_a_gated_swiglu_block_against_its_formulas():
    torch.manual_seed(0)
    block = TransformerBlock(
        BlockShape(dim=4, num_heads=1, causal=True, dropout=0.0, inner=2, activation="swiglu", gated=True, bias=False)
    )
    states = torch.randn(1, 3, 4)
    normed = F.layer_norm(states[0], (4,))
    queries, keys, values = (normed @ w.T for w in block.attention.queries_keys_values.weight.split(4))
    rows = []
    for position in range(3):
        logits = torch.stack([queries[position] @ keys[other] / math.sqrt(4) for other in range(position + 1)])
        weights = torch.exp(logits) / torch.exp(logits).sum()
        rows.append(sum(weight * values[other] for other, weight in enumerate(weights)))
    attended = torch.stack(rows) @ block.attention.output.weight.T
    first = states[0] + torch.sigmoid(block.attention_gate(states[0])) * attended
    gate, up = (F.layer_norm(first, (4,)) @ w.T for w in block.feed_forward.inner.weight.split(8))
    fed = (gate * torch.sigmoid(gate) * up) @ block.feed_forward.output.weight.T
    second = first + torch.sigmoid(block.feed_forward_gate(first)) * fed
    assert torch.allclose(block(states, torch.ones(1, 3, dtype=torch.bool))[0], second, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_with_dropout_is_on_average_attention_without(causal):
    """Dropout takes another path on a CPU; with one part in a thousand dropped it must come out nearly the same."""
    torch.manual_seed(0)
    block = TransformerBlock(BlockShape(dim=8, num_heads=2, causal=causal, dropout=1e-3)).train()
    states, mask = torch.randn(4, 5, 8), torch.arange(5) < torch.tensor([[5], [3], [1], [5]])
    dropped = torch.stack([block(states, mask)[mask] for _ in range(200)]).median(0).values
    assert torch.allclose(dropped, block.eval()(states, mask)[mask], atol=0.02)


def test_dropout_keeps_the_mean_and_passes_gradients_only_where_it_keeps():
    torch.manual_seed(0)
    dropout = Dropout(0.25)
    states = torch.ones(100_000, requires_grad=True)
    dropped = dropout(states)
    assert dropped.detach().unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)  # 7 standard deviations
    dropped.sum().backward()
    assert torch.equal(states.grad, dropped.detach())
    assert torch.equal(dropout.eval()(states), states)


def test_without_dropout_no_random_numbers_are_drawn():
    for user in (sasrec(dropout=0.0), hstu(dropout=0.0), bert4rec(dropout=0.0)):
        state = torch.get_rng_state()
        user.train()(history_of(torch.ones(1, 3, DIM)))
        assert torch.equal(torch.get_rng_state(), state)


# Positions


def test_rotary_positions_against_complex_rotation():
    states = torch.randn(2, 5, 6)
    turned = rotated(states)
    for position in range(5):
        for pair in range(3):
            number = complex(states[1, position, pair], states[1, position, pair + 3])
            number *= cmath.exp(1j * position * 10_000 ** (-2 * pair / 6))
            found = complex(turned[1, position, pair], turned[1, position, pair + 3])
            assert found == pytest.approx(number, abs=1e-5)


def test_rotary_positions_depend_on_distances_only():
    queries, keys = torch.randn(8).expand(1, 6, 8), torch.randn(8).expand(1, 6, 8)
    products = rotated(queries)[0] @ rotated(keys)[0].T
    for distance in range(6):
        assert torch.allclose(products.diagonal(-distance), products[distance, 0], atol=1e-5)


def test_learnt_positions_are_counted_from_the_oldest_or_the_latest_item():
    mask = torch.arange(3) < torch.tensor([[3], [1]])
    for count_from, slots in (("start", [[0, 1, 2], [0]]), ("end", [[2, 3, 4], [4]])):
        positions = LearntPositions(5, 2, count_from=count_from)
        found = positions(mask).expand(2, 3, 2)
        for row, expected in enumerate(slots):
            assert torch.equal(found[row, : len(expected)], positions.table.weight[expected])


# HSTU


def slow_hstu_layer(layer: nn.Module, states: torch.Tensor, times: list[int]) -> torch.Tensor:
    """One row through equations 1 to 3 of arXiv:2402.17152, one pair of items at a time."""
    length, dim = states.shape
    width = dim // layer.num_heads
    mean, variance = states.mean(-1, keepdim=True), states.var(-1, keepdim=True, unbiased=False)
    mixed = ((states - mean) / (variance + 1e-6).sqrt()) @ layer.inputs.weight.T
    mixed = mixed * torch.sigmoid(mixed)
    gathered = torch.zeros(length, dim)
    for i in range(length):
        for j in range(i + 1):
            for head in range(layer.num_heads):
                value, query, key = (slice(n * dim + head * width, n * dim + (head + 1) * width) for n in (1, 2, 3))
                logit = mixed[i, query] @ mixed[j, key]
                if layer.distance_bias is not None:
                    logit = logit + layer.distance_bias[i - j]
                if layer.time_bias is not None:
                    logit = logit + layer.time_bias[int(math.log(max(times[i] - times[j], 1)) / 0.301)]
                weight = logit / (1 + torch.exp(-logit)) / layer.max_history
                gathered[i, head * width : (head + 1) * width] += weight * mixed[j, value]
    mean, variance = gathered.mean(-1, keepdim=True), gathered.var(-1, keepdim=True, unbiased=False)
    gated = mixed[:, :dim] * (gathered - mean) / (variance + 1e-6).sqrt()
    return states + gated @ layer.output.weight.T + layer.output.bias


@pytest.mark.parametrize("biases", [{}, {"relative_bias": False}, {"time_bias": True}])
@torch.no_grad()
def test_hstu_against_a_loop_over_pairs_of_items(biases):
    torch.manual_seed(0)
    user = hstu(**biases).eval()
    for parameter in user.parameters():
        parameter.normal_()
    vectors, times = torch.randn(1, 4, DIM), [5, 5, 700, 2_000_000]
    states = vectors[0] + user.positions.table.weight[2:]  # the latest of four items has the last of six positions
    for layer in user.layers:
        states = slow_hstu_layer(layer, states, times)
    found = user(History(vectors, torch.ones(1, 4, dtype=torch.bool), torch.tensor([times])))
    assert torch.allclose(found[0], states, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_hstu_reads_times_only_if_asked_and_then_only_their_differences():
    vectors, mask = torch.randn(1, 4, DIM), torch.ones(1, 4, dtype=torch.bool)
    now, later, slower = (torch.tensor([times]) for times in ([0, 9, 60, 61], [500, 509, 560, 561], [0, 9, 99, 999]))
    blind, reading = made("hstu"), made("hstu with times")
    assert not blind.reads_times
    assert reading.reads_times
    assert torch.equal(blind(History(vectors, mask, now)), blind(History(vectors, mask, slower)))
    assert torch.equal(reading(History(vectors, mask, now)), reading(History(vectors, mask, later)))
    different = reading(History(vectors, mask, now)) - reading(History(vectors, mask, slower))
    assert (different[0, 2:].abs().amax(-1) > 1e-4).all()
    assert torch.equal(different[0, :2], torch.zeros(2, DIM)), "the first two items are as far apart as before"


def test_time_buckets_grow_by_a_third_and_end_somewhere():
    seconds = torch.tensor([[0, 1, 3, 86_400, 10**18]])
    # ln 3 = 1.099 → 3; ln 86,400 = 11.367 → 37; ln 10^18 = 41.4 → 137, which is over the end
    assert time_buckets(seconds)[0, 0].tolist() == [0, 0, 3, 37, 127]
    assert time_buckets(seconds)[0, 3].tolist() == [37, 37, 37, 0, 127]


# GRU4Rec


@torch.no_grad()
def test_gru4rec_against_the_equations_of_a_gated_recurrent_unit():
    torch.manual_seed(0)
    user = GRU4Rec(dim=3, hidden=4, num_layers=1, dropout=0.5).eval()
    vectors = torch.randn(1, 3, 3)
    state = torch.zeros(4)
    for vector in vectors[0]:
        inner = user.gru.weight_ih_l0 @ vector + user.gru.bias_ih_l0
        outer = user.gru.weight_hh_l0 @ state + user.gru.bias_hh_l0
        reset, update = (torch.sigmoid(inner[part] + outer[part]) for part in (slice(0, 4), slice(4, 8)))
        state = (1 - update) * torch.tanh(inner[8:] + reset * outer[8:]) + update * state
    expected = user.output.weight @ state + user.output.bias
    assert torch.allclose(user.after(history_of(vectors))[0], expected, atol=1e-5)


# From a config, with items from ids and from text


USER_TIERS = [
    {"kind": "sasrec", "dim": DIM},
    {"kind": "sasrec", "dim": DIM, "positions": "rotary", **ESASREC},
    {"kind": "bert4rec", "dim": DIM},
    {"kind": "hstu", "dim": DIM},
    {"kind": "gru4rec", "dim": DIM, "hidden": 5},
    {"kind": "llm"},
]


def config(user: dict, item: dict, **others) -> ModelConfig:
    return ModelConfig.from_dict({"user": user, "item": item, "max_history": MAX_HISTORY} | others, where="test")


@pytest.mark.parametrize("user", USER_TIERS, ids=lambda user: user["kind"] + "+" * (len(user) > 3))
@pytest.mark.parametrize("item", ["id", "id of its own width", "llm"])
def test_every_user_tier_learns_over_ids_and_over_text(user, item, tiny_llama, tiny_bert, tmp_path):
    user = user | ({"backbone": str(tiny_llama)} if user["kind"] == "llm" else {})
    items = {
        "id": {"kind": "id"},
        "id of its own width": {"kind": "id", "dim": 5},
        "llm": {"kind": "llm", "backbone": str(tiny_bert), "pooling": "mean"},
    }
    torch.manual_seed(0)
    model = build_model(config(user, items[item]), num_items=30, num_actions=0, base=tmp_path)
    windows = [np.array([5, 3, 5, 9]), np.array([3, 7]), np.arange(10, 17)]
    batch = batch_of(windows, shared=[0, 1, 2])
    if item == "llm":
        texts = item_batch(batch.items.index.numpy(), None)
        lengths = torch.full((len(texts),), 2)
        texts = type(texts)(texts.index, 4 + torch.arange(2 * len(texts)) % 16, lengths)
        batch = type(batch)(**vars(batch) | {"items": texts})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        torch.manual_seed(0)  # the same items masked, the same dropped
        embeddings = model.item_encoder(batch.items)
        if model.user_encoder.causal:
            objective = NextItem(LossConfig(), num_items=30)
        else:
            objective = MaskedItem(MaskedItemConfig(), num_items=30)
        loss = objective(model, embeddings, batch, batch.num_targets).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_ids_of_their_own_width_are_mapped_without_a_bias(tmp_path):
    ids = {"kind": "id", "dim": 5, "init_std": 3.0}
    torch.manual_seed(0)
    model = build_model(config({"kind": "sasrec", "dim": DIM}, ids), num_items=2_000, num_actions=0, base=tmp_path)
    encoder = model.item_encoder
    chosen = torch.tensor([7, 0])
    expected = encoder.embedding.weight[chosen] @ encoder.projector.weight.T
    assert torch.allclose(encoder(item_batch(chosen.numpy(), None)), expected)
    assert encoder.projector.bias is None
    assert encoder.embedding.weight.std().item() == pytest.approx(3.0, rel=0.03)
    assert encoder(item_batch(np.arange(2_000), None)).std().item() == pytest.approx(3.0, rel=0.5)


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"kind": "sasrec", "dim": 10, "num_heads": 3}, "dim 10 is not a multiple of num_heads 3"),
        ({"kind": "bert4rec", "dim": 10, "num_heads": 3}, "dim 10 is not a multiple of num_heads 3"),
        ({"kind": "hstu", "dim": 10, "num_heads": 3}, "dim 10 is not a multiple of num_heads 3"),
        ({"kind": "sasrec", "dim": 6, "positions": "rotary"}, r"dim 6 / num_heads 2 = 3 is odd"),
        ({"kind": "sasrec", "norm": "middle"}, "'pre' or 'post'"),
        ({"kind": "gru4rec", "num_heads": 2}, "unknown key 'user.num_heads'"),
        ({"kind": "hstu", "relative_bia": True}, "did you mean 'relative_bias'"),
    ],
)
def test_a_wrong_user_tier_is_explained(user, message):
    with pytest.raises(ConfigError, match=message):
        config(user, {"kind": "id"})


def test_a_tier_that_reads_both_ways_has_no_time_or_action_of_the_last_item(tmp_path):
    for inputs in ({"timestamp": 4}, {"action": True}):
        settings = config({"kind": "bert4rec"}, {"kind": "id"}, inputs=inputs)
        with pytest.raises(ConfigError, match='"bert4rec" reads whole training windows'):
            build_model(settings, num_items=5, num_actions=2, base=tmp_path)
