"""The stages of gpu.py that run the networks: correctness, encoding, a step, the loss, the user tier."""

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import step as steps
import torch
import torch.nn.functional as F
from gpu_world import World, require, told
from measure import ratios, span
from torch import Tensor
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

from hllm.data.tokens import TokenCache
from hllm.embedding.encode import encode_catalogue
from hllm.jobs.planning.flops import backbone_cost
from hllm.losses.contrastive import LossConfig, contrast
from hllm.models.backbone.backbone import Backbone
from hllm.models.backbone.compiled import compile_layers
from hllm.models.item.text import TextItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.user.llm import UserLLM
from hllm.objectives.next_item import NextItem
from hllm.precision import autocast
from hllm.training.parallel import Replicated
from hllm.training.step import accumulate, cached

ATTENTION = ("flash", "fmha", "attention", "softmax")
"""What the names of kernels of attention have in them."""


def correctness(world: World) -> dict[str, Any]:
    """Loss and gradients of two layers, against the padded baseline in float64 on the host."""
    ours, theirs = steps.same_weights(world.size.network | {"num_hidden_layers": 2}, "sdpa")
    tier = TextItemEncoder(ours[0], ours[0].width, pooling="item", whiten=False, train_word_embeddings=True)
    model = SequentialRecommender(tier, UserLLM(ours[1]))
    baseline = steps.Baseline(*theirs, tier.item_token, world.texts, lean=True).double()
    draw = windows_of(world, 1)  # float64 is slow
    expected = float(baseline.step(draw, baseline.encode))
    batch, objective = steps.collate(draw, world.texts).to(world.device), NextItem(LossConfig(), world.size.items)
    found: dict[str, Any] = {}
    for name, most in (("fp32", 1e-4), (world.precision, 0.1)):
        model.to(world.device).zero_grad()
        context = partial(autocast, name, world.device)
        outcome, _ = accumulate(model, objective, [batch], context, between=lambda: None, parallel=Replicated())
        error, worst = abs(float(outcome.loss) / expected - 1), max(steps.gradient_errors(model, baseline))
        found[name] = {"error of the loss": error, "of the worst gradient": worst}
        require(error <= most and worst <= most, f"{name} differs from float64: {told(found)}")
    return found


def windows_of(world: World, number: int) -> steps.Draw:
    """Return a batch of that many windows, with the same number of negatives each."""
    negatives = number * world.size.negatives
    (draw,) = steps.draws(1, steps.options([f"--batch={number}", f"--negatives={negatives}"]), items=world.size.items)
    return draw


def encode(world: World) -> dict[str, Any]:
    """H3, H4. Items a second, against plain transformers in bf16: padded by 64 in the order given, and by length."""
    lengths = world.texts.lengths[: world.size.encoded]
    texts = TokenCache(world.texts.tokens[: lengths.sum()], world.texts.offsets[: len(lengths) + 1])
    baseline = steps.Baseline(*world.networks[1], world.model.item_encoder.item_token, world.texts, lean=True)
    dtype = torch.bfloat16 if world.precision == "bf16" else torch.float32
    theirs = baseline.to(world.device, dtype)

    @torch.no_grad()
    def plain(order: np.ndarray) -> Tensor:
        vectors = []
        for start in range(0, len(order), 64):
            some = order[start : start + 64]
            vectors.append(theirs.encode(some, int(lengths[some].max()) + 1))
        return torch.cat(vectors)[torch.from_numpy(np.argsort(order))]

    def ours() -> Tensor:
        return encode_catalogue(
            world.model.item_encoder, len(lengths), texts, device=world.device, precision=world.precision
        )

    def ours_padded() -> Tensor:
        with patch.object(Backbone, "reads_rows", return_value=False):
            return ours()

    in_order = np.argsort(lengths, kind="stable")
    sides = {"padded": lambda: plain(np.arange(len(lengths))), "sorted": lambda: plain(in_order), "ours": ours}
    with world.autocast():
        in_rows = world.networks[0][0].reads_rows(world.device)
    if in_rows:
        sides["ours, padded"] = ours_padded
    vectors = {name: run().float() for name, run in sides.items()}
    for name in sides.keys() - {"ours"}:
        alike = float(F.cosine_similarity(vectors[name], vectors["ours"], dim=-1).min())
        require(alike >= 0.98, f"{name}: lowest cosine with ours {alike}")
    seconds = world.in_turns(sides, 5)
    operations = backbone_cost(world.networks[0][0]).forward(lengths + 1)
    found: dict[str, Any] = {
        "items/s": {name: span([len(lengths) / s for s in times]) for name, times in seconds.items()}
    }
    found |= {f"{name} / ours": ratios(times, seconds["ours"]) for name, times in seconds.items() if name != "ours"}
    return found | {
        "in rows": in_rows,
        "ours": world.rate(operations, seconds["ours"]),
        "share of attention": share_of_attention(world, ours),
    }


def share_of_attention(world: World, run: Callable[[], object]) -> float | None:
    """Return the share of the device's time in kernels of attention; None on a CPU."""
    if world.device.type != "cuda":
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        run()
        world.wait()
    spent = {event.key.lower(): event.self_device_time_total for event in trace.key_averages()}
    return sum(t for name, t in spent.items() if any(part in name for part in ATTENTION)) / sum(spent.values())


def a_step(world: World) -> dict[str, Any]:
    """H1, H2, H6, H7, H12. A step forward and backward, against the reference's way."""
    size = world.size
    draw, one = (windows_of(world, number) for number in (size.samples, 1))
    baseline = steps.Baseline(*world.networks[1], world.model.item_encoder.item_token, world.texts, lean=False)
    theirs = baseline.to(world.device, torch.float32).train()
    objective = NextItem(LossConfig(), size.items)
    whole, single = (steps.collate(each, world.texts).to(world.device) for each in (draw, one))
    between, parallel = (lambda: None), Replicated()

    def ours(batch: Any) -> Tensor:
        world.model.zero_grad()
        return accumulate(world.model, objective, [batch], world.autocast, between=between, parallel=parallel)[0].loss

    def in_parts(batch: Any) -> Tensor:
        world.model.zero_grad()
        part = -(-size.samples // 2)
        return cached(world.model, objective, batch, world.autocast, size=part, between=between, parallel=parallel)[
            0
        ].loss

    def padded() -> Tensor:
        theirs.zero_grad()
        with world.autocast():
            return theirs.step(one, theirs.encode)

    start = time.perf_counter()
    alone = float(ours(single))
    first_step = time.perf_counter() - start
    losses = {"padded": float(padded()), "in parts": float(in_parts(single))}
    require(all(abs(loss / alone - 1) < 0.01 for loss in losses.values()), f"losses differ: {alone}, {losses}")
    theirs.zero_grad()
    tier = world.model.item_encoder
    before = tier.tokens_needed, tier.tokens_computed
    kept = world.peak_bytes(lambda: ours(whole))
    needed, computed = tier.tokens_needed - before[0], tier.tokens_computed - before[1]
    seconds = world.in_turns({"ours": lambda: ours(whole), "in parts": lambda: in_parts(whole), "padded": padded}, 5)
    lengths = whole.mask.sum(-1).cpu().numpy()
    item, user = (backbone_cost(network) for network in world.networks[0])
    texts = whole.items.lengths.numpy() + 1
    operations = sum(cost.forward(n) + cost.backward(n) for cost, n in ((item, texts), (user, lengths)))
    samples = {"ours": size.samples, "padded": 1}
    rates = {name: [number / s for s in seconds[name]] for name, number in samples.items()}
    return {
        "samples/s": {name: span(values) for name, values in rates.items()},
        "ours / padded": ratios(rates["ours"], rates["padded"]),
        "tokens/s": span([needed / s for s in seconds["ours"]]),
        "tokens": {"needed": needed, "computed": computed},
        "ours": world.rate(operations, seconds["ours"]),
        "bytes a token": kept / computed,
        "gradient cache / direct": ratios(seconds["in parts"], seconds["ours"]),
        "waits for the device in a step": waits(world, lambda: ours(whole)),
        "seconds of the first step": first_step,
    }


def compiled(world: World) -> dict[str, Any]:
    """H12, H13. A step with layers that torch compiles, against the same without; to be the last stage: they stay so.

    A CPU only tries the graphs: to make code of them would take minutes.
    """
    objective, parallel = NextItem(LossConfig(), world.size.items), Replicated()
    sizes = (world.size.samples, 2, 3)
    batches = [steps.collate(windows_of(world, number), world.texts).to(world.device) for number in sizes]

    def step_of(batch: Any) -> tuple[float, list[Tensor]]:
        world.model.zero_grad()
        outcome, _ = accumulate(
            world.model, objective, [batch], world.autocast, between=lambda: None, parallel=parallel
        )
        return float(outcome.loss), [p.grad for p in world.model.parameters() if p.grad is not None]

    def as_before() -> tuple[float, list[Tensor]]:
        with torch.compiler.set_stance("force_eager"):
            return step_of(batches[0])

    expected, gradients = as_before()
    plain = torch.cat([gradient.flatten() for gradient in gradients])
    compile_layers(world.model, world.device, backend="inductor" if world.device.type == "cuda" else "eager")
    start = time.perf_counter()
    loss, gradients = step_of(batches[0])
    world.wait()
    first_step = time.perf_counter() - start
    alike = float(F.cosine_similarity(plain, torch.cat([gradient.flatten() for gradient in gradients]), dim=0))
    require(abs(loss / expected - 1) < 0.01, f"losses differ: {expected} and {loss}")
    require(alike >= 0.98, f"cosine of the gradients {alike}")
    for batch in batches[:2]:
        step_of(batch)
    made = counters["stats"]["unique_graphs"]
    step_of(batches[2])
    seconds = world.in_turns({"plain": as_before, "compiled": lambda: step_of(batches[0])}, 5)
    return {
        "plain / compiled": ratios(seconds["plain"], seconds["compiled"]),
        "seconds of the first step": first_step,
        "graphs": made,
        "more in steady steps": counters["stats"]["unique_graphs"] - made,
        "cosine of the gradients": alike,
        "waits for the device in a step": waits(world, lambda: step_of(batches[0])),
    }


def waits(world: World, run: Callable[[], object]) -> int | None:
    """Return how often the host waits for the device; None on a CPU."""
    if world.device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def contrastive_loss(world: World) -> dict[str, Any]:
    """H5. The loss, forward and backward, over many negatives."""
    queries, negatives = world.size.loss
    dim, device = world.size.network["hidden_size"], world.device
    user, items = (torch.randn(n, dim, device=device, requires_grad=True) for n in (queries, negatives))
    targets = torch.randint(negatives, (queries,), device=device)
    everything = torch.arange(negatives, device=device)

    def run() -> None:
        with world.autocast():
            loss = contrast(
                LossConfig(), user, F.embedding(targets, items), items, everything, positive_ids=targets, scale=14.0
            ).loss
        loss.backward()
        user.grad = items.grad = None

    seconds = world.in_turns({"loss": run}, 5)["loss"]
    return {"seconds": span(seconds), "bytes": world.peak_bytes(run)} | world.rate(
        6 * queries * negatives * dim, seconds
    )


def user_tier(world: World) -> dict[str, Any]:
    """H8. Training the user tier alone, on vectors that are there already."""
    number, dim = world.size.users, world.size.network["hidden_size"]
    vectors = torch.randn(number, steps.POSITIONS, dim, device=world.device)
    mask = torch.ones(number, steps.POSITIONS, dtype=torch.bool, device=world.device)
    network = world.model.user_encoder.backbone

    def run() -> None:
        with world.autocast():
            states = network(vectors, mask)
        states.float().square().mean().backward()
        world.model.zero_grad()

    seconds = world.in_turns({"users": run}, 5)["users"]
    cost, lengths = backbone_cost(network), np.full(number, steps.POSITIONS)
    found = {"samples/s": span([number / s for s in seconds])}
    return found | world.rate(cost.forward(lengths) + cost.backward(lengths), seconds)
