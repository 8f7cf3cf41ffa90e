"""How much of what the machine's matrix products can do a step reaches, and where the rest goes.

    OMP_NUM_THREADS=1 python benchmarks/roofline.py

Three steps with random weights, under bf16 autocast where the machine multiplies bf16 in hardware:

- items, decoder: 768 texts of 20 tokens ([ITEM] included), four layers in the shape of SmolLM2-135M; forward and
  backward, beside plain transformers (AutoModel, fused attention, a padding mask, trained word embeddings) with the
  same weights, whose vectors are checked to be the same first, and the forward pass alone; once more where all texts
  begin with the same 9 tokens, as many as the prompt of the HLLM paper has, which are read once;
- items, encoder: 1,200 texts of 6 to 14 tokens, three layers in the shape of MiniLM-L6, mean pooling: the demo's items;
- histories: 64 of 50 positions, two layers of SmolLM2-135M: the demo's user tier.

The ceiling is the rate of one product of 16,384 x 576 with 576 x 1,536 in the same format, taken between the repeats.
Operations are those of all layers over the tokens needed (see hllm.models.flops); ours skips a part of the last layer
and the shared tokens, and both count as done. Seconds are of the CPU. Shares come from torch's profiler, of one further
step.
"""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from measure import Span, in_turns, ratios, span, written
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModel

from hllm.batches.batch import ItemBatch, text_batch
from hllm.jobs.planning.flops import backbone_cost
from hllm.models.backbone.backbone import Backbone, load_backbone
from hllm.models.item.text import TextItemEncoder
from hllm.precision import autocast, resolve_precision

REPEATS = 5
DECODER = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9,
    "num_key_value_heads": 3, "vocab_size": 49152, "rope_theta": 100000.0,
}  # fmt: skip
ENCODER = {
    "model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12,
    "vocab_size": 30522, "num_hidden_layers": 3,
}  # fmt: skip
KINDS = {
    "matrix products": ("mm", "addmm", "linear"),
    "attention": ("bmm", "baddbmm", "_softmax", "_softmax_backward_data", "_scaled_dot_product"),
    "casts and copies": ("copy_", "cat", "clone", "fill_", "zero_"),
}
"""Names of torch's operations; all others are work by element: norms, activations, rotations, sums."""


def context() -> AbstractContextManager[object]:
    """Return bf16 autocast where the machine has it."""
    device = torch.device("cpu")
    return autocast(resolve_precision("auto", device), device)


def decoder(layers: int) -> Backbone:
    """Return a network in the shape of SmolLM2 with random weights."""
    return load_backbone(DECODER | {"num_hidden_layers": layers}, num_layers=None, pretrained=False).train()


def ceiling() -> Callable[[], Tensor]:
    """Return one large product."""
    dtype = torch.bfloat16 if resolve_precision("auto", torch.device("cpu")) == "bf16" else torch.float32
    left, right = torch.randn(16384, 576).to(dtype), torch.randn(576, 1536).to(dtype)
    return lambda: left @ right


def items_of(lengths: Tensor, vocabulary: int) -> ItemBatch:
    """Return texts of random tokens."""
    return ItemBatch(torch.arange(len(lengths)), torch.randint(vocabulary, (int(lengths.sum()),)), lengths)


def encoder_of(backbone: Backbone, pooling: Any) -> TextItemEncoder:
    """Return an item tier without a projector."""
    return TextItemEncoder(backbone, backbone.width, pooling=pooling, whiten=False, train_word_embeddings=False)


def trains(forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return a function that runs it forward and backward."""

    def step() -> Tensor:
        with context():
            states = forward()
        loss = states.float().square().mean()
        loss.backward()
        return loss.detach()

    return step


def plain(ours: Backbone, tokens: Tensor, item_token: Tensor) -> Callable[[], Tensor]:
    """Return the forward pass of plain transformers with the same weights."""
    values = {name: value for name, value in DECODER.items() if name != "model_type"}
    config = AutoConfig.for_model("llama", **values, num_hidden_layers=4, use_cache=False)
    network = AutoModel.from_config(config, attn_implementation="sdpa").train()
    network.load_state_dict(ours.network.state_dict())
    mask = torch.ones(tokens.shape[0], tokens.shape[1] + 1, dtype=torch.long)

    def forward() -> Tensor:
        words = network.get_input_embeddings()(tokens)
        last = item_token.expand(len(words), -1, -1)
        states: Tensor = network(inputs_embeds=torch.cat([words, last], 1), attention_mask=mask).last_hidden_state
        return states[:, -1]

    return forward


def require_equal(name: str, ours: Tensor, theirs: Tensor) -> None:
    """Leave with a message unless each item has the same vector on both sides, as far as bf16 can tell."""
    lowest = float(torch.nn.functional.cosine_similarity(ours.float(), theirs.float(), dim=-1).min())
    print(f"{name}: lowest cosine with plain transformers {lowest:.4f}")
    if lowest < 0.999:
        raise SystemExit(f"{name}: the vectors differ from those of plain transformers")


def shares(step: Callable[[], object]) -> dict[str, float]:
    """Return the share of each kind of work in one step, of the time inside torch's operations."""
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        step()
    spent = dict.fromkeys((*KINDS, "by element"), 0.0)
    for event in trace.key_averages():
        if event.key.startswith("aten::"):
            name = event.key.removeprefix("aten::")
            kind = next((kind for kind, names in KINDS.items() if name.startswith(names)), "by element")
            spent[kind] += event.self_cpu_time_total
    return {kind: value / sum(spent.values()) for kind, value in spent.items()}


def main() -> dict[str, Any]:
    """Print tokens a second, the share of the ceiling, and where the time goes; return all of it."""
    torch.manual_seed(0)
    texts = torch.full((768,), 19)
    item_tier, users, minilm = decoder(4), decoder(2), load_backbone(ENCODER, num_layers=None, pretrained=False).train()
    reader, small = encoder_of(item_tier, "item"), encoder_of(minilm, "mean")
    batch = items_of(texts, 49152)
    prompt = torch.randint(49152, (9,)).expand(768, -1)
    prompted = text_batch(torch.cat([prompt, batch.tokens.view(768, 19)[:, 9:]], 1).tolist())
    short = torch.from_numpy(np.random.default_rng(0).integers(6, 15, size=1200))
    little, histories = items_of(short, 30522), torch.randn(64, 50, 576)
    present = torch.ones(64, 50, dtype=torch.bool)
    assert reader.item_token is not None
    steps: dict[str, Callable[[], Tensor]] = {
        "plain transformers": trains(plain(item_tier, batch.tokens.view(768, 19), reader.item_token)),
        "items, decoder": trains(lambda: reader(batch)),
        "items, decoder, a shared prompt": trains(lambda: reader(prompted)),
        "items, decoder, forward": lambda: forward_only(reader, batch),
        "items, encoder": trains(lambda: small(little)),
        "histories": trains(lambda: users(histories, present)),
    }
    for name, given in (("items, decoder", batch), ("items, decoder, a shared prompt", prompted)):
        theirs = plain(item_tier, given.tokens.view(768, 19), reader.item_token)
        with torch.no_grad(), context():
            require_equal(name, reader(given), theirs())
    size = 2 * 16384 * 576 * 1536
    seconds = in_turns({"ceiling": ceiling(), **steps}, repeats=REPEATS)
    rate = span([size / s for s in seconds.pop("ceiling")["cpu_s"]])
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"ceiling: {written(scaled(rate, 1e-9), 0)} GFLOP/s, {threads}")
    work = {
        "items, decoder": (item_tier, np.full(768, 20)),
        "items, encoder": (minilm, short.numpy()),
        "histories": (users, np.full(64, 50)),
    }
    alike = ("plain transformers", "items, decoder, a shared prompt", "items, decoder, forward")
    work |= dict.fromkeys(alike, work["items, decoder"])
    found: dict[str, Any] = {"ceiling": rate}
    for name, times in seconds.items():
        network, lengths = work[name]
        cost = backbone_cost(network)
        flops = cost.forward(lengths) + (0 if name.endswith("forward") else cost.backward(lengths))
        tokens = span([float(lengths.sum()) / s for s in times["cpu_s"]])
        share = flops / float(lengths.sum()) * tokens["median"] / rate["median"]
        found[name] = {"tokens a second": tokens, "share of the ceiling": share, "where": shares(steps[name])}
        where = ", ".join(f"{kind} {value:.0%}" for kind, value in found[name]["where"].items())
        print(f"{name}: {written(tokens, 0)} tokens a second, {share:.0%} of the ceiling; {where}")
    for name in ("items, decoder", "items, decoder, a shared prompt"):
        found[f"{name} / plain"] = ratios(seconds["plain transformers"]["cpu_s"], seconds[name]["cpu_s"])
        print(f"{name}: {written(found[f'{name} / plain'])} times as fast as plain transformers")
    return found


@torch.no_grad()
def forward_only(reader: TextItemEncoder, batch: ItemBatch) -> Tensor:
    """Encode items, as for a catalogue."""
    with context():
        return reader(batch)


def scaled(found: Span, factor: float) -> Span:
    """Return the span in another unit."""
    return {name: value * factor for name, value in found.items()}


if __name__ == "__main__":
    print(json.dumps(main()))
