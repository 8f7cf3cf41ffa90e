"""Candidates read behind a history equal whole sequences read one by one; heads; what cannot rank says so."""

import math

import pytest
import torch
from transformers import AutoModel

from hllm.errors import ConfigError
from hllm.models.backbone.backbone import Backbone
from hllm.models.build import ModelConfig, build_model
from hllm.models.checkpoint import load_checkpoint, save_checkpoint
from hllm.models.heads import MixerHead, MLPHead, RankingConfig, RankingHeads
from hllm.models.tiers import History
from hllm.models.user.din import DIN
from hllm.models.user.llm import UserLLM
from hllm.models.user.sasrec import SASRec, SASRecConfig
from tests.conftest import history_of
from tests.models.backbone.families import DECODERS

DIM = 16


def decoder(name: str, attention: str = "eager") -> UserLLM:
    torch.manual_seed(0)
    return UserLLM(Backbone(AutoModel.from_config(DECODERS[name], attn_implementation=attention), DECODERS[name]))


def sasrec(**options) -> SASRec:
    torch.manual_seed(0)
    encoder = SASRec(SASRecConfig(dim=DIM, dropout=0.0, **options), max_history=9)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder.eval()


ENCODERS = {
    "llama": lambda: decoder("llama"),
    "gpt2, absolute positions": lambda: decoder("gpt2"),
    "opt": lambda: decoder("opt"),
    "llama, fused attention": lambda: decoder("llama", "sdpa"),
    "sasrec": sasrec,
    "sasrec, rotary": lambda: sasrec(positions="rotary"),
    "sasrec, post": lambda: sasrec(norm="post", gated=True, activation="swiglu", positions="none"),
}


def one_by_one(encoder, history: History, suffixes, anchors):
    """Cut each history behind the anchor, append one suffix, read the whole sequence, take the last state."""
    states = torch.zeros(suffixes.shape[:2] + suffixes.shape[2:])
    for row in range(len(suffixes)):
        for column, anchor in enumerate(anchors[row].tolist()):
            whole = torch.cat([history.embeddings[row, : anchor + 1], suffixes[row, column, None]])[None]
            states[row, column] = encoder.after(history_of(whole))[0]
    return states


@pytest.fixture
def asked():
    """Histories of 5 and 3 of 8 positions, and suffixes behind each of them, one before all of it."""
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(2, 8, DIM, generator=generator)
    mask = torch.arange(8) < torch.tensor([[5], [3]])
    suffixes = torch.randn(2, 4, DIM, generator=generator)
    return history_of(embeddings, mask), suffixes, torch.tensor([[4, 4, 0, 2], [2, -1, 1, 2]])


@pytest.mark.parametrize("name", ENCODERS)
def test_candidates_behind_a_history_equal_whole_sequences_read_one_by_one(name, asked):
    encoder, (history, suffixes, anchors) = ENCODERS[name](), asked
    with torch.no_grad():
        states, found = encoder.with_suffixes(history, suffixes, anchors)
        assert (found - one_by_one(encoder, history, suffixes, anchors)).abs().max() <= 1e-5
        assert (states - encoder(history))[history.mask].abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["llama", "llama, fused attention", "sasrec"])
def test_candidates_are_read_in_bf16_too(name, asked):
    """Half-precision vectors under autocast, as an Item LLM gives them, against fp32 up to their precision."""
    encoder, (history, suffixes, anchors) = ENCODERS[name](), asked
    half = History(history.embeddings.bfloat16(), history.mask, history.times)
    with torch.no_grad():
        expected = encoder.with_suffixes(history, suffixes, anchors)[1]
        with torch.autocast("cpu", torch.bfloat16):
            found = encoder.with_suffixes(half, suffixes.bfloat16(), anchors)[1]
    assert (found.float() - expected).abs().max() <= 0.05 * expected.abs().max()


def test_many_candidates_need_one_pass_over_the_history(monkeypatch):
    """600 candidates: the history is read once, the candidates in three parts."""
    encoder = decoder("llama")
    lengths = []
    encoder.backbone.network.register_forward_pre_hook(
        lambda _, arguments, named: lengths.append(named["inputs_embeds"].shape[1]), with_kwargs=True
    )
    history, suffixes = history_of(torch.randn(1, 7, DIM)), torch.randn(1, 600, DIM)
    with torch.no_grad():
        _, found = encoder.with_suffixes(history, suffixes, torch.full((1, 600), 6))
        assert lengths == [7, 256, 256, 88]
        few = torch.tensor([0, 255, 256, 599])
        expected = one_by_one(encoder, history, suffixes[:, few], torch.full((1, 4), 6))
    assert (found[:, few] - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["llama", "sasrec"])
def test_gradients_reach_the_history_through_candidates_as_in_whole_sequences(name, asked):
    encoder, (history, suffixes, anchors) = ENCODERS[name](), asked
    gradients = []
    for read in (lambda h: encoder.with_suffixes(h, suffixes, anchors)[1],
                 lambda h: one_by_one(encoder, h, suffixes, anchors)):  # fmt: skip
        vectors = history.embeddings.clone().requires_grad_()
        directions = torch.arange(1.0, DIM + 1)  # not of one length: a norm behind the last layer would hide all
        (read(History(vectors, history.mask, history.times)) * directions).sum().backward()
        gradients.append(vectors.grad)
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-4
    assert gradients[0].abs().max() > 0.1


def test_din_against_a_loop_over_candidates_and_items(asked):
    """Activation unit a(e, c) = w·prelu(A e + B c + C (e × c)), interest Σ a e, as the paper draws it."""
    torch.manual_seed(0)
    encoder, (history, suffixes, anchors) = DIN(dim=DIM, attention_units=5, hidden=7, dropout=0.0).eval(), asked
    _, found = encoder.with_suffixes(history, suffixes, anchors)
    for row in range(2):
        for column in range(4):
            candidate, interest = suffixes[row, column], torch.zeros(DIM)
            for item in history.embeddings[row, : int(anchors[row, column]) + 1]:
                hidden = encoder.of_item(item) + encoder.of_candidate(candidate) + encoder.of_product(item * candidate)
                interest = interest + encoder.weight(encoder.activation(hidden)) * item
            expected = encoder.net(torch.cat([interest, candidate, interest * candidate]))
            assert torch.allclose(found[row, column], expected, atol=1e-5)


def test_din_makes_no_user_vector(asked):
    encoder = DIN(dim=DIM, attention_units=5, hidden=7, dropout=0.0)
    for make in (encoder, encoder.after):
        with pytest.raises(ConfigError, match="scores given candidates and makes no vector of a user"):
            make(asked[0])


def test_the_mlp_head_by_hand():
    """Projections 1·u and 2·i; ReLU of u' + i' - 1 and of -u'; 3 times the first plus the second: u = 1, i = 2."""
    head = MLPHead(1, 1)
    head.inner, head.output = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    with torch.no_grad():
        head.user.weight.fill_(1.0)
        head.item.weight.fill_(2.0)
        head.inner.weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, 0.0]]))
        head.inner.bias.copy_(torch.tensor([-1.0, 0.0]))
        head.output.weight.copy_(torch.tensor([[3.0, 1.0]]))
        head.output.bias.fill_(0.5)
        assert head(torch.tensor([[1.0]]), torch.tensor([[2.0]])).tolist() == [[12.5]]
        assert head(torch.tensor([[-2.0]]), torch.tensor([[0.0]])).tolist() == [[2.5]]


def test_the_mixer_head_mixes_user_and_candidate():
    """Against the block written out with matrices, for one pair."""
    torch.manual_seed(0)
    head = MixerHead(3, 4, depth=1, token_width=2)
    user, item = torch.randn(3), torch.randn(3)
    tokens = torch.stack([head.user.weight @ user, head.item.weight @ item])

    def norm(x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    def net(part, x):
        return gelu(x @ part[0].weight.T + part[0].bias) @ part[2].weight.T + part[2].bias

    (block,) = head.blocks
    tokens = tokens + net(block.tokens, norm(tokens).T).T
    tokens = tokens + net(block.channels, norm(tokens))
    expected = norm(tokens).mean(0) @ head.output.weight[0] + head.output.bias[0]
    assert torch.allclose(head(user[None], item[None])[0, 0], expected, atol=1e-5)


def test_there_is_a_head_for_each_target_and_a_user_vector_for_late_fusion():
    late = RankingHeads(RankingConfig(targets=("click", "buy")), 6)
    assert late(torch.randn(5, 3, 6), torch.randn(5, 3, 6)).shape == (5, 3, 2)
    torch.manual_seed(0)
    token = RankingHeads(RankingConfig(), 20_000).user_token
    assert abs(float(token.detach().std()) - 0.02) < 1e-3
    assert RankingHeads(RankingConfig(fusion="early", head="linear"), 6).user_token is None


def settings(**changed) -> dict:
    values = {"max_history": 5, "item": {"kind": "id"}, "user": {"kind": "sasrec", "dim": DIM},
              "ranking": {"fusion": "late", "width": 8}}  # fmt: skip
    return values | changed


def build(tmp_path, **changed):
    config = ModelConfig.from_dict(settings(**changed), where="test")
    torch.manual_seed(0)
    return build_model(config, num_items=12, num_actions=0, base=tmp_path).eval(), config


def scored(model, history_items, candidates):
    """Logits of the target for candidates after one history."""
    table = model.item_encoder.embedding.weight if hasattr(model.item_encoder, "embedding") else None
    table = next(model.item_encoder.parameters()) if table is None else table
    items = torch.tensor([history_items])
    zeros = torch.zeros_like(items)
    history = model.history(table[items], torch.ones_like(items, dtype=torch.bool), items=items, times=zeros,
                            actions=zeros)  # fmt: skip
    asked = torch.tensor([[candidates]])
    anchors = torch.tensor([[len(history_items) - 1]])
    return model.rank(history, table[asked], asked, anchors)[1][0, 0, :, 0]


@pytest.mark.parametrize("ranking", [{"fusion": "late", "head": "mixer"}, {"fusion": "early", "head": "linear"},
                                     {"fusion": "early", "head": "mlp"}])  # fmt: skip
def test_a_candidates_logit_does_not_depend_on_the_others(tmp_path, ranking):
    model, _ = build(tmp_path, ranking=ranking, inputs={"item_id": True})
    with torch.no_grad():
        together, alone = scored(model, [1, 2, 3], [4, 5, 6]), [scored(model, [1, 2, 3], [c])[0] for c in (4, 5, 6)]
    assert torch.allclose(together, torch.stack(alone), atol=1e-6)
    assert together.std() > 0
    assert not torch.allclose(together, scored(model, [3, 1], [4, 5, 6]))


def test_the_full_history_and_a_candidate_fit_the_position_tables(tmp_path, tiny_llama):
    model, _ = build(tmp_path, ranking={"fusion": "early"})
    assert scored(model, [1, 2, 3, 4, 5], [6]).isfinite().all()


def test_heads_are_kept_in_a_file_of_their_own(tmp_path):
    model, config = build(tmp_path)
    save_checkpoint(tmp_path / "kept", model, config, num_items=12, num_actions=0, tokenizer=None, details={})
    assert (tmp_path / "kept" / "ranker.safetensors").is_file()
    again, _, _ = load_checkpoint(tmp_path / "kept")
    assert torch.equal(scored(model, [1, 2], [3, 4]), scored(again, [1, 2], [3, 4]))


def test_a_model_without_heads_cannot_rank(tmp_path):
    model, _ = build(tmp_path, ranking=None)
    with pytest.raises(ConfigError, match="no head that scores candidates"):
        model.require_ranker()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"user": {"kind": "gru4rec", "dim": DIM}}, r'"gru4rec" cannot read candidates one by one'),
        ({"user": {"kind": "hstu", "dim": DIM}}, r'"hstu" cannot read candidates'),
        ({"user": {"kind": "bert4rec", "dim": DIM}}, r'"bert4rec" cannot read candidates'),
        ({"user": {"kind": "sasrec", "positions": "end"}}, 'user.positions = "start", "rotary" or "none"'),
        ({"ranking": {"fusion": "early"}, "inputs": {"timestamp": 2}}, "no time and no action yet"),
        ({"ranking": {"head": "linear"}}, "reads no candidate"),
        ({"ranking": {"targets": ["a", "a"]}}, "each target is named once"),
        ({"user": {"kind": "din"}}, '"din" needs the table ranking, with fusion = "early"'),
        ({"user": {"kind": "din"}, "ranking": None}, '"din" needs the table ranking'),
    ],
)
def test_what_cannot_rank_is_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(settings(**changed), where="test")


@pytest.mark.parametrize("name", DECODERS)
def test_every_known_decoder_can_rank_or_says_why_not(name):
    """A window of 3 positions is shorter than the history and its candidate."""
    encoder = decoder(name)
    if getattr(DECODERS[name], "sliding_window", None):
        with pytest.raises(ConfigError, match="looks back 3 positions"):
            encoder.backbone.require_suffixes(3)
        encoder.backbone.require_suffixes(2)
    else:
        encoder.backbone.require_suffixes(30)


def test_a_network_that_counts_its_own_positions_is_refused(monkeypatch):
    """One that ignores position_ids would put all candidates at other places than whole sequences do."""
    encoder = decoder("gpt2")
    forward = encoder.backbone.network.forward
    monkeypatch.setattr(
        encoder.backbone.network, "forward", lambda *given, position_ids=None, **named: forward(*given, **named)
    )
    with pytest.raises(ConfigError, match="cannot read candidates behind the keys and values"):
        encoder.backbone.require_suffixes(5)
