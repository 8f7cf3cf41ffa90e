"""Forward and backward of a small decoder on this machine, by number format and attention: what `auto` rests on.

    python benchmarks/precision.py

Two layers in the shape of SmolLM2-135M with random weights; the variants take turns, and the table gives the
median seconds of the repeats with their minimum and maximum, and the ratio to fp32 with fused attention.
"""

import contextlib
import statistics
import time
from collections.abc import Iterator

import torch
from transformers import LlamaConfig, LlamaModel

SHAPES = {"histories, 64 x 50": (64, 50), "items, 512 x 12": (512, 12)}
REPEATS = 5


@contextlib.contextmanager
def matmul(precision: str) -> Iterator[None]:
    """Run fp32 products at that internal precision."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


FORMATS = {
    "fp32": contextlib.nullcontext,
    "fp32, matmul precision medium": lambda: matmul("medium"),
    "bf16 autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


def main() -> None:
    """Print one line for each shape, format and attention."""
    models = {}
    for attention in ("sdpa", "eager"):
        config = LlamaConfig(
            hidden_size=576, intermediate_size=1536, num_hidden_layers=2, num_attention_heads=9, num_key_value_heads=3,
            vocab_size=32, use_cache=False, attn_implementation=attention,
        )  # fmt: skip
        models[attention] = LlamaModel(config)
    for label, (rows, length) in SHAPES.items():
        inputs = torch.randn(rows, length, 576)
        seconds: dict[tuple[str, str], list[float]] = {}
        for repeat in range(REPEATS + 1):
            for name, context in FORMATS.items():
                for attention, model in models.items():
                    start = time.perf_counter()
                    with context():
                        states = model(inputs_embeds=inputs).last_hidden_state
                        states.float().square().mean().backward()
                    if repeat:  # the first round warms up
                        seconds.setdefault((name, attention), []).append(time.perf_counter() - start)
        base = statistics.median(seconds["fp32", "sdpa"])
        for (name, attention), times in seconds.items():
            median = statistics.median(times)
            span = f"{min(times):.2f} to {max(times):.2f}"
            print(f"{label}: {name}, {attention}: {median:.2f} s ({span}), {base / median:.2f} x")


if __name__ == "__main__":
    main()
