import copy

import pytest
import torch

from hllm.models.backbone.backbone import load_backbone
from hllm.models.backbone.rms_norm import rms_norm
from hllm.precision import autocast
from tests.models.backbone.families import DECODERS, save_family

PLAIN = {"llama", "qwen2", "qwen3", "mistral", "phi3"}


@pytest.mark.parametrize("learns", [True, False])
def test_its_gradients_are_those_of_finite_differences(learns):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 5, dtype=torch.float64, generator=draw, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, generator=draw).requires_grad_(learns)
    assert torch.autograd.gradcheck(lambda *given: rms_norm(*given, 1e-3), (x, weight))
    torch.testing.assert_close(
        rms_norm(x, weight, 0.25), x / (x.square().mean(-1, keepdim=True) + 0.25).sqrt() * weight
    )


@pytest.mark.parametrize("family", DECODERS)
def test_the_norms_of_known_decoders_take_the_faster_way_in_bf16_only(family, tmp_path):
    backbone = load_backbone(save_family(family, tmp_path), num_layers=2, pretrained=True)
    named = {n: m for n, m in backbone.network.named_modules() if type(m).__name__.startswith("Faster")}
    assert len(named) == (4 if family in PLAIN else 0)
    assert all(name.endswith(("input_layernorm", "post_attention_layernorm")) for name in named)
    for norm in named.values():
        torch.nn.init.normal_(norm.weight)
        plain = copy.deepcopy(norm)
        plain.__class__ = type(norm).__mro__[2]
        x = torch.randn(7, 16)
        assert norm(x).dtype == torch.float32
        assert torch.equal(norm(x), plain(x)), "in fp32 it is the stock norm"
        with autocast("bf16", torch.device("cpu")):
            found = norm(x)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found, plain(x).bfloat16(), rtol=1e-2, atol=1e-6)  # one place of bf16


def test_a_network_in_bf16_gives_what_the_stock_one_gives(tmp_path):
    path = save_family("llama", tmp_path)
    ours = load_backbone(path, num_layers=None, pretrained=True)
    stock = copy.deepcopy(ours)
    for module in stock.modules():
        if type(module).__name__.startswith("Faster"):
            module.__class__ = type(module).__mro__[2]
    vectors, mask = torch.randn(4, 6, 16), torch.ones(4, 6, dtype=torch.bool)
    weighted = torch.randn(4, 6, 16)
    results = []
    for network in (ours, stock):
        given = vectors.clone().requires_grad_()
        with autocast("bf16", torch.device("cpu")):
            states = network(given, mask)
        (states.float() * weighted).sum().backward()
        results.append((states.detach(), given.grad, network.network.layers[0].input_layernorm.weight.grad.clone()))
    exact = vectors.clone().requires_grad_()
    (ours(exact, mask) * weighted).sum().backward()
    for found, expected in zip(*results, strict=True):
        assert (found - expected).norm() <= 2e-2 * expected.norm()
    # No farther from fp32 than the stock network is, but for chance.
    assert (results[0][1] - exact.grad).norm() <= 1.5 * (results[1][1] - exact.grad).norm()
