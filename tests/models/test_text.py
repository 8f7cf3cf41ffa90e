"""The Item LLM against stock transformers on the same weights, item by item, without padding."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, GPT2Config, OPTConfig, RobertaConfig

import hllm.models.item.text as text_module
from hllm.batches.batch import text_batch
from hllm.errors import ConfigError
from hllm.models.backbone.backbone import load_backbone
from hllm.models.backbone.tokenizer import copy_tokenizer, load_tokenizer
from hllm.models.item.text import SPEC, TextItemConfig, TextItemEncoder
from hllm.models.kinds import ItemContext

TEXTS = ["red", "red shoe", "old old old old hat", "new coat", "title : big blue hat", "small", "green " * 12]


def encoder(folder, *, pooling, dim=None, whiten=False, num_layers=None, num_item_tokens=1) -> TextItemEncoder:
    backbone = load_backbone(folder, num_layers=num_layers, pretrained=True)
    torch.manual_seed(3)
    made = TextItemEncoder(
        backbone, dim or backbone.width, pooling=pooling, whiten=whiten, train_word_embeddings=False,
        num_item_tokens=num_item_tokens,
    )  # fmt: skip
    return made.eval()


def stock(folder, ids: list[int], item_token, num_layers: int = 2, pooling: str = "mean") -> torch.Tensor:
    """One item alone through the unchanged model, by a path of its own: no buckets, no padding, no mask."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    layers = model.layers if hasattr(model, "layers") else model.encoder.layer
    del layers[num_layers:]
    model.config.num_hidden_layers = num_layers
    embeddings = model.get_input_embeddings()(torch.tensor([ids]))
    if item_token is not None:
        embeddings = torch.cat([embeddings, *(vector.view(1, 1, -1) for vector in item_token)], dim=1)
    states = model(inputs_embeds=embeddings).last_hidden_state[0]
    if pooling == "item":
        return sum(states[len(ids) + j] for j in range(len(item_token))) / len(item_token)
    return states[-1] if pooling == "last" else states.mean(0)


@pytest.mark.parametrize("pooling", ["item", "mean", "last"])
@pytest.mark.parametrize("model", ["tiny_llama", "tiny_bert"])
@pytest.mark.parametrize("num_layers", [1, 2])
@torch.no_grad()
def test_item_llm_against_transformers(request, model, pooling, num_layers):
    folder = request.getfixturevalue(model)
    ids = load_tokenizer(folder, 32)[0](TEXTS)
    ours = encoder(folder, pooling=pooling, num_layers=num_layers)
    expected = torch.stack([stock(folder, row, ours.item_token, num_layers, pooling) for row in ids])
    together = ours(text_batch(ids))
    one_by_one = torch.cat([ours(text_batch([row])) for row in ids])
    assert (together - expected).abs().max() < 1e-5
    assert (one_by_one - expected).abs().max() < 1e-5
    assert expected.std() > 0.1, "the vectors differ enough for the comparison to mean something"


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_bert"])
@torch.no_grad()
def test_several_item_vectors_stand_behind_the_text_and_their_states_are_averaged(request, model):
    folder = request.getfixturevalue(model)
    ids = load_tokenizer(folder, 32)[0](TEXTS)
    ours = encoder(folder, pooling="item", num_item_tokens=3)
    assert ours.item_token.shape == (3, ours.backbone.width)
    ours.item_token.mul_(50)  # so that they weigh as much as words
    expected = torch.stack([stock(folder, row, ours.item_token, pooling="item") for row in ids])
    assert (ours(text_batch(ids)) - expected).abs().max() < 1e-5
    assert ours.tokens_needed == sum(map(len, ids)) + 3 * len(ids)
    ours.item_token[1] = 0
    assert not torch.allclose(ours(text_batch(ids)), expected, atol=1e-2), "each of them matters"


MAX_TOKENS = 9


@pytest.fixture(params=["bert", "roberta", "gpt2", "opt"])
def with_a_table(request, tmp_path, tiny_bert):
    """A model with a table of positions, with the tokenizer of the tiny BERT; fewer rows would not do."""
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    table = {"max_position_embeddings": MAX_TOKENS + 2}
    wide = {"intermediate_size": 32}
    config = {
        "bert": lambda: BertConfig(**sizes, **table, **wide),
        "roberta": lambda: RobertaConfig(**sizes, **wide, max_position_embeddings=MAX_TOKENS + 4),
        "gpt2": lambda: GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=MAX_TOKENS + 2),
        "opt": lambda: OPTConfig(**sizes, **table, ffn_dim=32, word_embed_proj_dim=16, pad_token_id=1),
    }[request.param]()
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    for parameter in model.parameters():
        parameter.data.mul_(4)  # so that positions tell
    model.save_pretrained(tmp_path)
    copy_tokenizer(tiny_bert, tmp_path)
    return tmp_path


@pytest.mark.parametrize("tokens", [1, 100_000], ids=["one by one", "padded"])
@torch.no_grad()
def test_positions_from_the_end_against_positions_by_hand(with_a_table, monkeypatch, tokens):
    """The reference puts [ITEM] at position max_tokens for every text: position_ids = arange(m + 1) + max_tokens - m."""
    monkeypatch.setitem(text_module.CHUNK_TOKENS, "cpu", tokens)
    ids = load_tokenizer(with_a_table, MAX_TOKENS)[0](TEXTS)
    assert len({len(row) for row in ids}) > 3
    assert max(map(len, ids)) == MAX_TOKENS, "the premise: short and long ones"
    stock = AutoModel.from_pretrained(with_a_table, dtype=torch.float32).eval()
    skipped = 2 if stock.config.model_type == "roberta" else 0  # it counts from its padding index on
    for positions in ("end", "start"):
        config = TextItemConfig(backbone=str(with_a_table), positions=positions, prompt={"max_tokens": MAX_TOKENS})
        torch.manual_seed(0)
        ours = SPEC.build(config, ItemContext(0, 16, None, with_a_table, None)).eval()
        expected = []
        for row in ids:
            embeddings = torch.cat([stock.get_input_embeddings()(torch.tensor([row])), ours.item_token[None]], dim=1)
            first = MAX_TOKENS - len(row) if positions == "end" else 0
            places = torch.arange(len(row) + 1)[None] + first + skipped
            expected.append(stock(inputs_embeds=embeddings, position_ids=places).last_hidden_state[0, -1])
        vectors = ours(text_batch(ids))
        assert (vectors - torch.stack(expected)).abs().max() < 1e-4 * vectors.abs().max()
        if positions == "end":
            from_the_end = vectors
    assert torch.cosine_similarity(from_the_end, vectors).min() < 0.99, "it matters for short texts"
    assert torch.cosine_similarity(from_the_end, vectors).max() > 0.9999, "not for the longest"


def test_one_model_for_both_tiers_has_one_beginning(with_a_table):
    backbone = load_backbone(with_a_table, num_layers=None, pretrained=True)
    config = TextItemConfig(backbone=str(with_a_table), positions="end", prompt={"max_tokens": MAX_TOKENS})
    with pytest.raises(ConfigError, match=r'model.item.positions = "end" is for items alone: .*share_backbone = false'):
        SPEC.build(config, ItemContext(0, 16, backbone, with_a_table, None))


@torch.no_grad()
def test_positions_from_the_end_are_nothing_to_a_model_with_rotary_ones(tiny_llama):
    """It keeps what makes it fast, and its vectors to the last digit."""
    ids = load_tokenizer(tiny_llama, 32)[0](TEXTS)
    vectors = []
    for positions in ("start", "end"):
        torch.manual_seed(0)
        config = TextItemConfig(backbone=str(tiny_llama), positions=positions, prompt={"max_tokens": 32})
        made = SPEC.build(config, ItemContext(0, 16, None, tiny_llama, None)).eval()
        assert made.backbone.end is None
        vectors.append(made(text_batch(ids)))
    assert torch.equal(*vectors)


def test_a_model_that_counts_by_itself_is_refused(with_a_table, monkeypatch):
    backbone = load_backbone(with_a_table, num_layers=None, pretrained=True)
    run = backbone.network.forward
    monkeypatch.setattr(
        backbone.network, "forward", lambda inputs_embeds, attention_mask=None: run(inputs_embeds=inputs_embeds)
    )
    with pytest.raises(ConfigError, match=r'counts its positions by itself: leave out model.item.positions = "end"'):
        backbone.end_at(MAX_TOKENS)


@pytest.mark.parametrize("max_tokens", [3, 6, 40])
def test_the_closing_token_is_cut_as_the_reference_cuts_it(tiny_bert, max_tokens):
    """encode(text)[:max_tokens]: [SEP] is lost where the text is cut. Otherwise it stays, and one more word goes."""
    plain = AutoTokenizer.from_pretrained(tiny_bert)
    kept, cut = (load_tokenizer(tiny_bert, max_tokens, cut_closing=cut_closing) for cut_closing in (False, True))
    whole = [plain.encode(text) for text in TEXTS]
    assert cut[0](TEXTS) == [ids[:max_tokens] for ids in whole]
    assert kept[0](TEXTS) == [ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]] for ids in whole]
    assert whole[0][-1] == plain.sep_token_id
    assert kept[1] != cut[1], "caches of tokens are told apart"


def test_settings_of_an_item_tier_that_do_not_go_together():
    for values, message in (
        ({"pooling": "mean", "num_item_tokens": 2}, 'num_item_tokens = 2 has no effect beside pooling = "mean"'),
        ({"pretrained": False, "lora": {}}, "lora needs pretrained = true"),
        ({"num_item_tokens": 0}, "greater than or equal to 1, found 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            TextItemConfig.from_dict({"backbone": "x"} | values, where="test")


@torch.no_grad()
def test_padded_and_bucketed_agree(monkeypatch, tiny_bert, tiny_llama):
    for folder in (tiny_bert, tiny_llama):
        ids = load_tokenizer(folder, 32)[0](TEXTS * 3)
        ours = encoder(folder, pooling="item")
        vectors, waste = [], []
        for tokens in (1, 40, 100_000):  # each item alone; chunks of like length; all in one padded chunk
            monkeypatch.setitem(text_module.CHUNK_TOKENS, "cpu", tokens)
            ours.tokens_computed = ours.tokens_needed = 0
            vectors.append(ours(text_batch(ids)))
            waste.append(ours.tokens_computed / ours.tokens_needed)
        assert (vectors[0] - vectors[1]).abs().max() < 1e-5
        assert (vectors[0] - vectors[2]).abs().max() < 1e-5
        assert waste[0] == 1.0 < waste[1] < waste[2]
        assert waste[2] > 1.5, "the padded case pads"


def test_little_of_what_is_computed_is_padding(rng, tiny_llama):
    """2,000 items of 3 to 64 tokens: at most 1.10 tokens computed for each one needed."""
    ours = encoder(tiny_llama, pooling="item")
    lengths = np.clip(rng.lognormal(2.5, 0.6, 2000), 3, 64).astype(int)
    with torch.no_grad():
        ours(text_batch([rng.integers(6, 19, n).tolist() for n in lengths]))
    assert ours.tokens_needed == lengths.sum() + 2000
    assert ours.tokens_computed <= 1.10 * ours.tokens_needed


def test_gradients_reach_the_item_vector_and_the_layers_but_not_the_words(tiny_llama):
    ours = encoder(tiny_llama, pooling="item")
    ours(text_batch([[7, 8], [9]])).square().sum().backward()
    assert ours.item_token.grad.abs().sum() > 0
    assert ours.backbone.network.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0
    assert ours.backbone.network.get_input_embeddings().weight.grad is None


def test_a_projector_bridges_widths_and_whitening_decorrelates(rng, tiny_bert):
    ours = encoder(tiny_bert, pooling="mean", dim=16, whiten=True)
    raw = torch.from_numpy(rng.normal(size=(500, 24)) @ rng.normal(size=(24, 24)) + 5).float()
    ours.projector.fit_whitening(raw, shrinkage=0.0)
    white = (raw - ours.projector.mean) @ ours.projector.whitening
    assert (white.T @ white / 500 - torch.eye(24)).abs().max() < 1e-2
    assert white.mean(0).abs().max() < 1e-3
    assert ours(text_batch([[7, 8]])).shape == (1, 16)
