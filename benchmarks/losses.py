"""Peak memory and time of the contrastive losses, forward and backward, against every logit at once with autograd.

    OMP_NUM_THREADS=1 python benchmarks/losses.py

Goal: at most 1/8 of the plain version's extra bytes, at most 1.1 of its time. Bytes are counted by torch's profiler,
allocation by allocation, so they are the same on every run; gradients of the inputs count, the inputs do not. The
versions take turns in time; the table gives the median seconds of the repeats with their minimum and maximum, by the
clock and of the CPU. Other work on the machine disturbs the latter less if there is one thread only: two that wait for
each other burn it. Losses and gradients are compared before anything is timed. "Plain" is ours too: the formula as one
writes it down.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from hllm.losses import LossConfig, contrast

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


def main() -> None:
    """Print one line for each loss, layout and version."""
    draw = torch.Generator().manual_seed(0)
    leaves = [torch.randn(QUERIES, DIM, generator=draw), torch.randn(ITEMS, DIM, generator=draw), torch.tensor(2.66)]
    targets = torch.randint(ITEMS, (QUERIES,), generator=draw)
    for leaf in leaves:
        leaf.requires_grad_()
    print(f"{QUERIES:,} queries, {DIM} dimensions, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for kind in ("info-nce", "bce"):
        for label, shape in NEGATIVES.items():
            negatives = torch.randint(ITEMS, shape, generator=draw)
            compare(f"{kind}, {label}", kind, leaves, targets, negatives)


def compare(label: str, kind: str, leaves: Sequence[Tensor], targets: Tensor, negatives: Tensor) -> None:
    """Check that both versions agree, then measure them."""

    def step(loss: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        value = loss(kind, *leaves, targets, negatives)
        return (value, *torch.autograd.grad(value, leaves))

    for ours, theirs in zip(step(chunked), step(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    versions = {"plain": plain, "chunked": chunked}
    peaks = {name: peak_bytes(lambda version=version: step(version)) for name, version in versions.items()}
    wall: dict[str, list[float]] = {name: [] for name in versions}
    cpu: dict[str, list[float]] = {name: [] for name in versions}
    for _ in range(REPEATS):
        for name, version in versions.items():
            start = time.perf_counter(), time.process_time()
            step(version)
            wall[name].append(time.perf_counter() - start[0])
            cpu[name].append(time.process_time() - start[1])
    for name in versions:
        print(f"{label}, {name}: {peaks[name] / 1e6:.1f} MB, {span(wall[name])} s, {span(cpu[name])} s of CPU")
    ratios = [statistics.median(times["chunked"]) / statistics.median(times["plain"]) for times in (wall, cpu)]
    bytes_ratio = peaks["chunked"] / peaks["plain"]
    print(f"{label}: {bytes_ratio:.3f} of the bytes, {ratios[0]:.2f} of the time, {ratios[1]:.2f} of the CPU time")


def span(times: list[float]) -> str:
    """Write median, minimum and maximum."""
    return f"{statistics.median(times):.3f} ({min(times):.3f} to {max(times):.3f})"


if __name__ == "__main__":
    main()
