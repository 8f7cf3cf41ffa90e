"""What a network was seen to do is kept; what makes it fast can be left out."""

import json

import pytest
import torch
from transformers import AutoModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel, LlamaRMSNorm

from hllm.models.backbone.backbone import load_backbone, save_backbone_config
from hllm.models.backbone.facts import BackboneFacts
from hllm.models.backbone.rows import Heads


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """The lengths of the sequences that a Llama reads."""
    lengths: list[int] = []
    forward = LlamaModel.forward

    def counted(self, *arguments, **options):
        lengths.append(options["inputs_embeds"].shape[1])
        return forward(self, *arguments, **options)

    monkeypatch.setattr(LlamaModel, "forward", counted)
    return lengths


def test_facts_come_back(tmp_path):
    facts = BackboneFacts(
        width=8, causal=True, fast=True, packs=True, rows=frozenset([Heads(4, 2, 8, None), Heads(4, 2, 8, 3)])
    )
    facts.save(tmp_path)
    assert BackboneFacts.load(tmp_path) == facts


def test_facts_of_other_versions_do_not_hold(tmp_path):
    BackboneFacts(width=8, causal=True).save(tmp_path)
    kept = json.loads((tmp_path / "facts.json").read_text())
    kept["versions"]["transformers"] = "0.1"
    (tmp_path / "facts.json").write_text(json.dumps(kept))
    assert BackboneFacts.load(tmp_path) is None


def test_a_network_is_tried_once_and_its_copy_not_again(tmp_path, tiny_llama, passes):
    first = load_backbone(tiny_llama, num_layers=None, pretrained=True)
    assert passes, "it was tried"
    assert first.facts.fast
    assert first.facts.packs
    save_backbone_config(first, tmp_path)
    passes.clear()
    again = load_backbone(tmp_path, num_layers=None, pretrained=False, weights=first.network.state_dict())
    assert not passes
    assert again.facts == first.facts
    vectors, mask = torch.randn(4, 6, first.width), torch.arange(6) < torch.tensor([[6], [2], [1], [3]])
    ends = mask.sum(-1, keepdim=True) - 1
    assert torch.equal(again(vectors, mask)[mask], first(vectors, mask)[mask])
    assert torch.equal(again.at(vectors, mask, ends), first.at(vectors, mask, ends))


def test_the_stock_network_gives_the_same_states(tiny_llama):
    fast, stock = (load_backbone(tiny_llama, num_layers=None, pretrained=True, fast=fast) for fast in (True, False))
    for network, is_stock in ((fast.network, False), (stock.network, True)):
        assert (type(network.layers[-1]) is LlamaDecoderLayer) == is_stock
        assert (type(network.layers[0].input_layernorm) is LlamaRMSNorm) == is_stock
    vectors, mask = torch.randn(4, 6, fast.width), torch.arange(6) < torch.tensor([[6], [2], [1], [3]])
    assert fast.packs(vectors)
    assert not stock.packs(vectors)
    theirs = AutoModel.from_pretrained(tiny_llama, attn_implementation="eager").eval()
    expected = theirs(inputs_embeds=vectors, attention_mask=mask.long()).last_hidden_state[mask]
    for ours in (fast, stock):
        assert (ours(vectors, mask)[mask] - expected).abs().max() < 1e-5


def test_the_stock_network_stays_stock_in_a_checkpoint(tmp_path, tiny_llama):
    stock = load_backbone(tiny_llama, num_layers=None, pretrained=True, fast=False)
    save_backbone_config(stock, tmp_path)
    again = load_backbone(tmp_path, num_layers=None, pretrained=False, weights=stock.network.state_dict())
    assert not again.facts.fast
    assert type(again.network.layers[0].input_layernorm) is LlamaRMSNorm


def test_an_outline_is_tried_when_it_has_weights(tiny_llama):
    with torch.device("meta"):
        outline = load_backbone(tiny_llama, num_layers=None, pretrained=False)
    assert outline.causal
    assert not outline.facts.packs
    loaded = load_backbone(tiny_llama, num_layers=None, pretrained=True)
    outline.network.load_state_dict(loaded.network.state_dict(), assign=True)
    for name, buffer in loaded.network.named_buffers():  # positions, which a state lacks
        module, _, own = name.rpartition(".")
        outline.network.get_submodule(module).register_buffer(own, buffer.clone(), persistent=False)
    outline.probe()
    assert outline.facts == loaded.facts
