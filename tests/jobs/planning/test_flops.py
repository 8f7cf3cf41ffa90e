"""The cost model against torch's own counter, and against figures worked out elsewhere."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hllm.jobs.planning.flops import item_cost, projector_cost, user_cost
from hllm.models.build import ModelConfig, build_model, outline_model
from tests.conftest import history_of

USER = {"kind": "sasrec", "dim": 16, "num_layers": 2, "num_heads": 2, "dropout": 0.0}


def built(tmp_path, **parts):
    config = ModelConfig.from_dict({"item": {"kind": "id"}, "user": USER} | parts, where="test")
    return build_model(config, num_items=9, num_actions=0, base=tmp_path)


def counted(call) -> tuple[float, float]:
    """Return all operations, and those of attention: products of batches of matrices.

    The counter does not know the fused attention of CPUs, so attention is written out.
    """
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        call()
    by_kind = counter.get_flop_counts()["Global"]
    attention = sum(count for kind, count in by_kind.items() if "bmm" in str(kind))
    return counter.get_total_flops(), attention


@pytest.mark.parametrize("length", [3, 40])
@pytest.mark.parametrize("name", ["tiny_bert", "tiny_llama"])
def test_a_language_model_against_torchs_counter(tmp_path, request, name, length):
    """The counter counts all pairs of positions; of a causal network half are needed."""
    path = request.getfixturevalue(name)
    model = built(tmp_path, item={"kind": "llm", "backbone": str(path), "train_word_embeddings": True})
    backbone = model.item_encoder.backbone
    states = torch.randn(5, length, backbone.width, requires_grad=True)
    mask = torch.ones(5, length, dtype=torch.bool)
    cost, lengths = item_cost(model), np.full(5, length)
    total, attention = counted(lambda: backbone(states, mask))
    needed = total - attention * (0.5 if backbone.causal else 0)
    assert cost.forward(lengths) == pytest.approx(needed, rel=0.02)
    trained, attention = counted(lambda: backbone(states, mask).sum().backward())
    needed = trained - attention * (0.5 if backbone.causal else 0)
    assert cost.forward(lengths) + cost.backward(lengths) == pytest.approx(needed, rel=0.02)


@pytest.mark.parametrize("inputs", [{}, {"timestamp": 6}])
def test_a_small_user_tier_against_torchs_counter(tmp_path, inputs):
    model = built(tmp_path, inputs=inputs)
    vectors, mask = torch.randn(4, 30, 16), torch.ones(4, 30, dtype=torch.bool)
    zeros = torch.zeros(4, 30, dtype=torch.long)

    def call():
        return model.user_encoder(model.history(vectors, mask, items=zeros, times=zeros, actions=zeros))

    total, attention = counted(call)
    assert user_cost(model).forward(np.full(4, 30)) == pytest.approx(total - attention / 2, rel=0.02)


def test_a_user_llm_costs_what_its_layers_cost(tmp_path, tiny_llama):
    model = built(tmp_path, user={"kind": "llm", "backbone": str(tiny_llama)})
    history = history_of(torch.randn(3, 12, 16), torch.ones(3, 12, dtype=torch.bool))
    total, attention = counted(lambda: model.user_encoder(history))
    assert user_cost(model).forward(np.full(3, 12)) == pytest.approx(total - attention / 2, rel=0.02)


def test_what_stays_as_it_is_saves_a_third(tmp_path, tiny_llama):
    """Gradients still pass through frozen weights, but none are made for them."""
    model = built(tmp_path, user={"kind": "llm", "backbone": str(tiny_llama)})
    model.user_encoder.requires_grad_(False)
    vectors = torch.randn(4, 2, 16, requires_grad=True)
    history = history_of(vectors, torch.ones(4, 2, dtype=torch.bool))
    total, attention = counted(lambda: model.user_encoder(history).sum().backward())
    cost, lengths = user_cost(model), np.full(4, 2)
    assert cost.forward(lengths) + cost.backward(lengths) == pytest.approx(total - attention / 2, rel=0.02)


def test_a_projector_is_a_product_for_each_item(tmp_path, tiny_bert):
    model = built(tmp_path, item={"kind": "llm", "backbone": str(tiny_bert)})
    assert projector_cost(model).forward(np.ones(7)) == 7 * 2 * 24 * 16
    assert projector_cost(built(tmp_path)).forward(np.ones(7)) == 0
    assert item_cost(built(tmp_path)).forward(np.ones(7)) == 0


def test_tinyllama_costs_what_was_worked_out_by_hand(tmp_path):
    """44.04 M weights a layer in 22 layers: 968.9 M; training on 150 tokens: 878 GFLOP, .7 % of it attention."""
    llm = {"kind": "llm", "backbone": "tinyllama-1.1b"}
    config = ModelConfig.from_dict({"item": llm, "user": llm}, where="test")
    model = outline_model(config, num_items=9, num_actions=0, base=tmp_path)
    cost = item_cost(model)
    assert cost.weights == 22 * (2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 5632)
    for tokens, gigaflops in ((64, 373), (100, 584), (128, 748), (150, 878), (200, 1173), (257, 1512)):
        lengths = np.array([tokens])
        assert (cost.forward(lengths) + cost.backward(lengths)) / 1e9 == pytest.approx(gigaflops, rel=0.002)
    assert user_cost(model).forward(np.array([1000])) * 3 / 1e12 == pytest.approx(6.1, rel=0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["llm", "sasrec"])
def test_activations_are_within_a_half_of_what_autograd_keeps(tmp_path, precision, kind):
    """Counted as the distinct storages that autograd saves, the model's own weights and their bf16 copies apart."""
    llm = {"kind": "llm", "backbone": "smollm2-135m", "pretrained": False, "num_layers": 2}
    model = built(tmp_path, user=llm if kind == "llm" else USER | {"dim": 64})
    cost = user_cost(model)
    width = 576 if kind == "llm" else 64
    history = history_of(torch.randn(64, 16, width, requires_grad=True), torch.ones(64, 16, dtype=torch.bool))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    bf16 = precision == "bf16"
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            out = model.user_encoder(history)
    kept = sum(t.untyped_storage().nbytes() for address, t in saved.items() if address not in weights)
    kept -= 2 * cost.weights if bf16 else 0
    estimate = cost.activation_bytes(np.full(64, 16), precision, fused_attention=False)
    assert out.shape == (64, 16, width)
    assert kept / 1.5 < estimate < kept * 1.5
