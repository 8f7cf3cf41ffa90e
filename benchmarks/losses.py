"""Peak memory and time of the contrastive losses, forward and backward, against every logit at once with autograd.

    OMP_NUM_THREADS=1 python benchmarks/losses.py

Goal: at most 1/8 of the plain version's extra bytes, at most 1.1 of its time. Bytes are counted by torch's profiler,
allocation by allocation, so they are the same on every run; gradients of the inputs count, the inputs do not. The
versions take turns in time; printed are the median seconds of CPU of the repeats with their minimum and maximum. Other
work on the machine disturbs these less if there is one thread only: two that wait for each other burn it. Losses and
gradients are compared before anything is timed. "Plain" is ours too: the formula as one writes it down.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from measure import in_turns, ratios, span, written
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from hllm.losses.contrastive import LossConfig, contrast

QUERIES, DIM, ITEMS = 4096, 64, 20_000
NEGATIVES = {"16,384 shared": (16_384,), "256 of each query's own": (QUERIES, 256)}
REPEATS = 7


def plain(kind: str, user: Tensor, items: Tensor, log_scale: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """Return the loss from the full matrix of logits."""
    user, items = F.normalize(user, dim=-1), F.normalize(items, dim=-1)
    user = log_scale.exp() * user
    positive = (user * items[targets]).sum(-1, keepdim=True)
    if negatives.ndim == 1:
        logits = user @ items[negatives].T
    else:
        logits = torch.einsum("qd,qkd->qk", user, items[negatives])
    masked = targets[:, None] == negatives
    if kind == "info-nce":
        both = torch.cat([positive, logits.masked_fill(masked, -1e9)], dim=-1)
        return F.cross_entropy(both, torch.zeros(len(both), dtype=torch.long))
    terms = F.softplus(logits).masked_fill(masked, 0).sum(-1) + F.softplus(-positive[:, 0])
    return (terms / (1 + (~masked).sum(-1))).mean()


def chunked(kind: str, user: Tensor, items: Tensor, log_scale: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """Return the library's loss."""
    config = LossConfig.from_dict({"kind": kind}, where="benchmark")
    scale = log_scale.exp()
    return contrast(config, user, items[targets], items, negatives, positive_ids=targets, scale=scale).loss


def peak_bytes(run: Callable[[], object]) -> int:
    """Return the most bytes of tensors alive at once, beyond those alive before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        result = run()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    del result
    return peak


def cases() -> Iterator[tuple[str, dict[str, Callable[[], tuple[Tensor, ...]]]]]:
    """Yield each loss and layout, with a function for each version: loss and gradients."""
    draw = torch.Generator().manual_seed(0)
    leaves = [torch.randn(QUERIES, DIM, generator=draw), torch.randn(ITEMS, DIM, generator=draw), torch.tensor(2.66)]
    targets = torch.randint(ITEMS, (QUERIES,), generator=draw)
    for leaf in leaves:
        leaf.requires_grad_()
    for kind in ("info-nce", "bce"):
        for layout, shape in NEGATIVES.items():
            negatives = torch.randint(ITEMS, shape, generator=draw)

            def step(loss: Callable[..., Tensor], kind: str = kind, drawn: Tensor = negatives) -> tuple[Tensor, ...]:
                value = loss(kind, *leaves, targets, drawn)
                return (value, *torch.autograd.grad(value, leaves))

            yield f"{kind}, {layout}", {"plain": partial(step, plain), "chunked": partial(step, chunked)}


def count_bytes() -> dict[str, int]:
    """Return the peak bytes of every case and version, once both agree."""
    found = {}
    for label, versions in cases():
        for ours, theirs in zip(versions["chunked"](), versions["plain"](), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        found |= {f"{label}, {name}": peak_bytes(version) for name, version in versions.items()}
    return found


def main() -> dict[str, float]:
    """Print one line for each case; return the worst share of the plain version's bytes and of its CPU time."""
    print(f"{QUERIES:,} queries, {DIM} dimensions, {torch.get_num_threads()} threads, torch {torch.__version__}")
    peaks, shares = count_bytes(), []
    for label, versions in cases():
        seconds = in_turns(versions, repeats=REPEATS)
        for name, times in seconds.items():
            size = peaks[f"{label}, {name}"] / 1e6
            print(f"{label}, {name}: {size:.1f} MB, {written(span(times['cpu_s']), 3)} s of CPU")
        time = ratios(seconds["chunked"]["cpu_s"], seconds["plain"]["cpu_s"])
        shares.append((peaks[f"{label}, chunked"] / peaks[f"{label}, plain"], time["median"]))
        print(f"{label}: {shares[-1][0]:.3f} of the bytes, {written(time)} of the CPU time")
    return {"bytes": max(share for share, _ in shares), "cpu_s": max(share for _, share in shares)}


if __name__ == "__main__":
    main()
