"""The Item LLM against stock transformers on the same weights, item by item, without padding."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

import hllm.models.item.text as text_module
from hllm.batches.batch import text_batch
from hllm.errors import ConfigError
from hllm.models.backbone.backbone import load_backbone
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.models.item.text import TextItemConfig, TextItemEncoder

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


def test_settings_of_an_item_tier_that_do_not_go_together():
    for values, message in (
        ({"pooling": "mean", "num_item_tokens": 2}, 'num_item_tokens is 2, but pooling = "mean" reads none'),
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
