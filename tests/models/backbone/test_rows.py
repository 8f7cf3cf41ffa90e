"""Texts one behind another, without padding: the same vectors and gradients. CUDA's kernel is not run here, but its call is."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import varlen

from hllm.batches.batch import text_batch
from hllm.errors import HllmWarning
from hllm.models.backbone.backbone import Backbone, load_backbone
from hllm.models.backbone.rows import Heads, PackedRow, attend_by_kernel, kernel_agrees, let_read_rows
from hllm.models.item import text
from hllm.models.item.text import TextItemEncoder
from tests.models.backbone.families import DECODERS, VOCABULARY, save_family

PROMPT = [5, 9, 4, 11, 7]
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[name for name in DECODERS if name != "gemma2"])
def folder(request, tmp_path_factory) -> Path:
    return save_family(request.param, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def decoder(folder) -> Backbone:
    """A decoder that reads rows, in the way that is not CUDA's."""
    loaded = load_backbone(folder, num_layers=2, pretrained=True)
    assert let_read_rows(loaded.network, loaded.input_width)
    return loaded


def texts(rng) -> list[list[int]]:
    """The prompt and 1 to 12 other tokens; two differ in the first of these, so that no more is shared."""
    own = [rng.integers(3, VOCABULARY, length).tolist() for length in (12, 1, 5, 3, 9, 1, 4)]
    own[0][0], own[1][0] = 3, 4
    return [PROMPT + ids for ids in own]


def test_where_sequences_and_their_keys_stand_in_a_row():
    row = PackedRow.of(torch.tensor([2, 3]), 2, CPU)
    assert row.ends.tolist() == [0, 2, 5]
    assert row.key_ends.tolist() == [0, 4, 9]
    assert row.keys.tolist() == [0, 1, 2, 3, 0, 1, 4, 5, 6]
    assert row.positions.tolist() == [[2, 3, 2, 3, 4]]
    assert PackedRow.of(torch.tensor([2, 3]), 0, CPU).keys is None


@pytest.mark.parametrize("prompt", ["shared", "own"])
@pytest.mark.parametrize(("pooling", "item_tokens"), [("item", 2), ("last", 1)])
def test_rows_change_neither_vectors_nor_gradients(monkeypatch, decoder, pooling, item_tokens, prompt, rng):
    """Windows of 3 positions, in the families that have them, end inside the prompt, behind it, and in a text."""
    monkeypatch.setitem(text.CHUNK_TOKENS, "cpu", 20)  # several rows of several texts
    items = text_batch(texts(rng))
    items = replace(items, prefix=items.prefix if prompt == "shared" else 0)
    torch.manual_seed(3)
    encoder = TextItemEncoder(
        decoder, 16, pooling=pooling, num_item_tokens=item_tokens, whiten=False, train_word_embeddings=True
    )
    found = []
    for in_rows in (True, False):
        monkeypatch.setattr(Backbone, "reads_rows", lambda self, device, answer=in_rows: answer)
        encoder.zero_grad()
        encoder.tokens_computed = encoder.tokens_needed = 0
        vectors = encoder(items)
        (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
        gradients = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
        found.append((vectors.detach(), gradients, encoder.tokens_computed, encoder.tokens_needed))
    (row, of_row, computed, needed), (padded, of_padded, with_padding, also_needed) = found
    assert (row - padded).abs().max() < 1e-5
    assert of_row.keys() == of_padded.keys()
    largest = max(float(gradient.abs().max()) for gradient in of_padded.values())
    for name, gradient in of_padded.items():
        assert torch.allclose(of_row[name], gradient, rtol=1e-4, atol=1e-6 * largest), name
    assert computed == needed == also_needed < with_padding


def test_what_is_not_a_row_is_read_as_before(decoder, folder):
    stock = load_backbone(folder, num_layers=2, pretrained=True)
    vectors = torch.randn(3, 8, decoder.input_width, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(8) < torch.tensor([[8], [3], [5]])
    for read in (lambda b: b._run(vectors, mask)[mask], lambda b: b.forward(vectors, mask)[mask]):
        assert (read(decoder) - read(stock)).abs().max() < 1e-5
    prefix = [b.keep(vectors[:1, :3]) for b in (decoder, stock)]
    behind = [b.at(vectors[:, 3:], mask[:, 3:], torch.zeros(3, 1, dtype=torch.long), p)
              for b, p in zip((decoder, stock), prefix, strict=True)]  # fmt: skip
    assert (behind[0] - behind[1]).abs().max() < 1e-5


def test_a_batch_of_histories_is_a_row_too(monkeypatch, decoder, folder):
    stock = load_backbone(folder, num_layers=2, pretrained=True)
    monkeypatch.setattr(decoder, "reads_rows", lambda device: True)
    monkeypatch.setattr(decoder, "packs", lambda embeddings: False)  # which is a CPU's way
    vectors = torch.randn(3, 8, decoder.input_width, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(8) < torch.tensor([[8], [3], [5]])
    assert (decoder(vectors, mask)[mask] - stock._run(vectors, mask)[mask]).abs().max() < 1e-5


def test_attention_with_soft_caps_is_left_as_it_is(tmp_path):
    loaded = load_backbone(save_family("gemma2", tmp_path), num_layers=2, pretrained=True)
    assert not let_read_rows(loaded.network, loaded.input_width)
    assert loaded.network.config._attn_implementation == "eager"


def test_rows_are_for_cuda_in_half_precision_alone(tiny_llama):
    loaded = load_backbone(tiny_llama, num_layers=1, pretrained=True)
    loaded.use(replace(loaded.facts, rows=let_read_rows(loaded.network, loaded.input_width)))
    assert not loaded.reads_rows(CPU)
    assert not loaded.reads_rows(torch.device("cuda")), "without autocast"


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("prefix", [0, 4])
def test_the_kernel_is_called_with_what_it_takes(prefix, window):
    """Torch checks it and tells the shapes, without a GPU, on tensors without values."""
    device = torch.device("meta")
    row = PackedRow.of(torch.tensor([3, 7]), prefix, device)
    drawn = [torch.empty(10 + more, heads, 64, device=device, dtype=torch.bfloat16, requires_grad=True)
             for more, heads in ((0, 6), (2 * prefix, 3), (2 * prefix, 3))]  # fmt: skip
    states = attend_by_kernel(*drawn, row, scale=0.1, window=window)
    assert (states.shape, states.dtype) == ((10, 6, 64), torch.bfloat16)
    states.sum().backward()
    assert all(part.grad.shape == part.shape for part in drawn)


def as_documented(fault: str = ""):
    """Torch's varlen_attn as its documentation describes it, a sequence at a time, perhaps with a fault."""

    def attention(query, key, value, ends, key_ends, longest, longest_key, *, scale, window_size, enable_gqa):
        assert enable_gqa == (query.shape[1] != key.shape[1])
        assert longest == ends.diff().max()
        assert longest_key == key_ends.diff().max()
        states = []
        for number in range(len(ends) - 1):
            part = query[ends[number] : ends[number + 1]]
            times = query.shape[1] // key.shape[1]
            keys, values = (kept[key_ends[number] : key_ends[number + 1]].repeat_interleave(times, 1)
                            for kept in (key, value))  # fmt: skip
            # The last query is aligned with the last key.
            shift = 0 if fault == "first aligned" else len(keys) - len(part)
            back = torch.arange(len(part))[:, None] + shift - torch.arange(len(keys))
            left, right = window_size
            visible = back >= -right
            if left >= 0:
                visible &= back <= left + (fault == "window")
            logits = torch.einsum("qhw,khw->hqk", part.float(), keys.float()) * (1 if fault == "scale" else scale)
            weights = logits.masked_fill(~visible, -math.inf).softmax(-1)
            states.append(torch.einsum("hqk,khw->qhw", weights, values.float()))
        together = torch.cat(states)
        return (together.detach() if fault == "gradient" else together).to(query.dtype)

    return attention


@pytest.mark.parametrize("heads", [Heads(4, 2, 16, None), Heads(3, 3, 8, 6)])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_right_kernel_is_used(monkeypatch, heads, context):
    monkeypatch.setattr(varlen, "varlen_attn", as_documented())
    kernel_agrees.cache_clear()
    with context():
        assert kernel_agrees(heads, torch.bfloat16, CPU)


@pytest.mark.parametrize("fault", ["first aligned", "window", "scale", "gradient"])
def test_a_wrong_kernel_is_warned_about_and_not_used(monkeypatch, fault):
    monkeypatch.setattr(varlen, "varlen_attn", as_documented(fault))
    kernel_agrees.cache_clear()
    with pytest.warns(HllmWarning, match="attention without padding does not work here .* so texts are padded"):
        assert not kernel_agrees(Heads(4, 2, 16, 6), torch.bfloat16, CPU)
    assert not kernel_agrees(Heads(4, 2, 16, 6), torch.bfloat16, CPU), "and told once"


def test_a_kernel_that_is_not_there_is_told():
    """As on this CPU."""
    kernel_agrees.cache_clear()
    with pytest.warns(HllmWarning, match="so texts are padded: Could not run 'aten::_flash_attention_forward'"):
        assert not kernel_agrees(Heads(4, 2, 16, None), torch.bfloat16, CPU)


def test_a_cpu_does_not_load_the_kernel():
    """Two seconds at the start of every command."""
    loaded = "import hllm.models.backbone, sys; sys.exit('torch.nn.attention.varlen' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0
