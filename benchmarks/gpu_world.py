"""What the stages of gpu.py share: the sizes, the device, its clock and its memory."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import step as steps
import torch
from measure import in_turns, span

from hllm.data.tokens import TokenCache
from hllm.models.item.text import TextItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.models.user.llm import UserLLM
from hllm.precision import autocast, resolve_precision

TINY_LLAMA = {
    "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 22, "num_attention_heads": 32,
    "num_key_value_heads": 4, "intermediate_size": 5632, "vocab_size": 32_000, "use_cache": False,
}  # fmt: skip
SMALL = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 500,
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    network: dict[str, Any]
    product: int
    """Rows and columns of the matrices whose product is the ceiling."""
    items: int
    text: tuple[int, int]
    """Median and greatest number of tokens."""
    encoded: int
    """Items in "encode"."""
    samples: int
    """Windows in a step of ours; the padded one takes one at a time."""
    negatives: int
    """Of each window."""
    loss: tuple[int, int]
    """Queries and negatives."""
    users: int
    """Histories in "users"."""
    tables: tuple[int, ...]
    """Items to search."""
    ranked: tuple[int, int]
    """Users and items of "evaluation"."""


SIZES = {
    "full": Size(
        network=TINY_LLAMA, product=8192, items=20_000, text=(150, 256), encoded=2048, samples=26, negatives=4,
        loss=(28_160, 28_672), users=256, tables=(1_000_000, 10_000_000), ranked=(10_000, 687_000),
    ),
    "tiny": Size(
        network=TINY_LLAMA | SMALL, product=256, items=300, text=(8, 16), encoded=64, samples=3, negatives=4,
        loss=(200, 300), users=8, tables=(2000,), ranked=(300, 2000),
    ),
}  # fmt: skip


class World:
    """The device, and what several stages need."""

    def __init__(self, device: torch.device, size: Size) -> None:
        self.device, self.size = device, size
        self.precision = resolve_precision("auto", device)
        self.ceiling = float("nan")  # operations a second; see `ceilings`
        torch.manual_seed(0)

    @cached_property
    def texts(self) -> TokenCache:
        """Return the items' texts."""
        median, longest = self.size.text
        return steps.catalogue(self.size.network["vocab_size"], items=self.size.items, median=median, longest=longest)

    @cached_property
    def networks(self) -> tuple[Any, Any]:
        """Return our two networks, and the same as causal LMs, on the host."""
        return steps.same_weights(self.size.network, "sdpa")

    @cached_property
    def model(self) -> SequentialRecommender:
        """Return our model."""
        item, user = self.networks[0]
        tier = TextItemEncoder(item, item.width, pooling="item", whiten=False, train_word_embeddings=True)
        return SequentialRecommender(tier, UserLLM(user)).to(self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of training."""
        return autocast(self.precision, self.device)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def in_turns(self, sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
        """Return the seconds of each side's turns, until the device is done; the first round is not counted."""

        def until_done(run: Callable[[], object]) -> None:
            run()
            self.wait()

        waited = {name: partial(until_done, run) for name, run in sides.items()}
        return {name: seconds["wall_s"] for name, seconds in in_turns(waited, repeats=repeats).items()}

    def peak_bytes(self, run: Callable[[], object]) -> int:
        """Return how much more memory the device needs while it runs; 0 on a CPU, which does not tell."""
        if self.device.type != "cuda":
            run()
            return 0
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        self.wait()
        return torch.cuda.max_memory_allocated() - before

    def rate(self, operations: float, seconds: list[float]) -> dict[str, Any]:
        """Return operations a second, and their share of the ceiling."""
        found = span([operations / s for s in seconds])
        return {
            "TFLOP/s": {name: value / 1e12 for name, value in found.items()},
            "share": found["median"] / self.ceiling,
        }

    def ceilings(self) -> dict[str, Any]:
        """Return what the device copies and multiplies, and set `ceiling`."""
        number = self.size.product
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        square, other = torch.randn(2, number, number, device=self.device).to(dtype)
        tall = torch.randn(8 * number, number // 4, device=self.device).to(dtype)
        inner = torch.randn(number // 4, 11 * number // 16, device=self.device).to(dtype)
        copy = torch.empty_like(square)
        seconds = self.in_turns(
            {"copy": lambda: copy.copy_(square), "square": lambda: square @ other, "tall": lambda: tall @ inner}, 10
        )
        operations = 2 * number**3
        self.ceiling = operations / float(np.median(seconds["square"]))
        return {
            "GB/s": span([2 * square.nbytes / s / 1e9 for s in seconds["copy"]]),
            "square": self.rate(operations, seconds["square"]),
            "tall": self.rate(2 * tall.numel() * inner.shape[1], seconds["tall"]),
        }


def require(good: bool, otherwise: str) -> None:
    """Raise AssertionError unless it is good."""
    if not good:
        raise AssertionError(otherwise)


def told(value: Any) -> str:
    """Write what a stage found for people."""
    if not isinstance(value, dict):
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    if set(value) == {"median", "min", "max"}:
        return f"{told(value['median'])} ({told(value['min'])} to {told(value['max'])})"
    return "; ".join(f"{name} {told(each)}" for name, each in value.items())
