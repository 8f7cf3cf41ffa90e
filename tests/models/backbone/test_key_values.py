"""Texts behind a beginning that they share: the same vectors and gradients, for fewer tokens."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaModel

from hllm.batches.batch import item_batch, text_batch
from hllm.data.tokens import TokenCache
from hllm.models.backbone.backbone import load_backbone
from hllm.models.backbone.key_values import can_read_behind
from hllm.models.item.text import TextItemEncoder
from tests.models.backbone.families import DECODERS, VOCABULARY, save_family

PROMPT = [5, 9, 4, 11, 7]


@pytest.fixture(scope="module", params=DECODERS)
def decoder(request, tmp_path_factory):
    return load_backbone(save_family(request.param, tmp_path_factory.mktemp("family")), num_layers=2, pretrained=True)


def encoder_of(backbone, pooling) -> TextItemEncoder:
    torch.manual_seed(3)
    return TextItemEncoder(backbone, 16, pooling=pooling, whiten=False, train_word_embeddings=True)


def texts(rng) -> list[list[int]]:
    """The prompt and 1 to 12 other tokens; two differ in the first of these, so that no more is shared."""
    own = [rng.integers(3, VOCABULARY, length).tolist() for length in (12, 1, 5, 3, 9, 1, 4)]
    own[0][0], own[1][0] = 3, 4
    return [PROMPT + ids for ids in own]


@pytest.mark.reliability("batches")
@pytest.mark.parametrize("pooling", ["item", "last"])
def test_a_shared_prompt_changes_neither_vectors_nor_gradients(decoder, pooling, rng):
    """Windows of 3 positions, in the families that have them, end inside the prompt and behind it."""
    assert decoder.reads_behind
    encoder, items = encoder_of(decoder, pooling), text_batch(texts(rng))
    assert items.prefix == len(PROMPT)
    found = []
    for batch in (items, replace(items, prefix=0)):
        encoder.zero_grad()
        encoder.tokens_computed = 0
        vectors = encoder(batch)
        (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
        gradients = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
        found.append((vectors.detach(), gradients, encoder.tokens_computed))
    (shared, of_shared, few), (whole, of_whole, many) = found
    assert (shared - whole).abs().max() < 1e-5
    assert of_shared.keys() == of_whole.keys()
    largest = max(float(gradient.abs().max()) for gradient in of_whole.values())
    for name, gradient in of_whole.items():
        assert torch.allclose(of_shared[name], gradient, rtol=1e-4, atol=1e-6 * largest), name
    words = next(gradient for name, gradient in of_whole.items() if gradient.shape[0] == VOCABULARY)
    assert words[PROMPT[-1]].abs().max() > 0, "the prompt is trained"
    assert many - few >= len(PROMPT) * (len(items) - 1)


def test_what_reads_all_positions_or_both_ways_reads_each_text_whole(tiny_bert, decoder, rng):
    given = texts(rng)
    items = text_batch(given)
    reads_both_ways = load_backbone(tiny_bert, num_layers=None, pretrained=True)
    assert not reads_both_ways.reads_behind
    for encoder in (encoder_of(decoder, "mean"), encoder_of(reads_both_ways, "item")):
        encoder(items)
        assert encoder.tokens_needed == sum(map(len, given)) + (len(items) if encoder.pooling == "item" else 0)


def test_the_prompt_is_what_all_items_begin_with_but_never_all_of_one():
    assert text_batch([[1, 2, 3], [1, 2, 4], [1, 2, 3]]).prefix == 2
    assert text_batch([[1, 2, 3], [1, 2], [1, 2, 4]]).prefix == 1, "one token of each item is its own"
    assert text_batch([[1, 2, 3], [2, 2, 3]]).prefix == 0
    assert text_batch([[1], [1, 2]]).prefix == 0
    assert text_batch([[1, 2, 3]]).prefix == 0, "one item shares nothing"
    assert text_batch([]).prefix == 0
    assert text_batch([[1, 2], [1, 2]]).take(np.array([1])).prefix == 1
    rows = [[8, 8, 1], [8, 8, 2, 3], [8, 5, 2]]
    cache = TokenCache.of(rows)
    assert item_batch(np.array([0, 1]), cache).prefix == 2
    assert item_batch(np.array([2, 1, 0]), cache).prefix == 1
    assert item_batch(np.array([2, 1, 0]), cache, np.array([False, True, True])).prefix == 2, "one has no text"


def test_a_network_that_counts_positions_by_itself_is_seen(tiny_llama):
    class Counts(LlamaModel):
        def forward(self, **given):
            return super().forward(**given | {"position_ids": None, "past_key_values": None})

    network = load_backbone(tiny_llama, num_layers=None, pretrained=True).network
    assert can_read_behind(network, 16)
    network.__class__ = Counts
    assert not can_read_behind(network, 16)
