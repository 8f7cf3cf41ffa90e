"""The goals that are measured on a GPU, H1 to H13: one command of at most eight minutes.

    python benchmarks/gpu.py --budget 480 --out gpu.jsonl
    python benchmarks/gpu.py --device cpu --size tiny          # tries every stage; the figures mean nothing

Both tiers have TinyLlama's shape and random weights; texts are lognormal, 150 tokens at the median and 256 at most,
histories of 50. The stages come one after another, each with a deadline, a share of --budget. What a stage finds is
printed, and appended to --out at once as one line of JSON, so that a kill loses no stage that has ended; a stage that
fails, or whose time is up, says so there, and the next one begins. Two stages compare two layers and a search with
float64; the sides of a comparison are compared with each other before they are timed. Times are by the clock, the
device waited for; medians with minimum and maximum.

Rates count the operations that the items and histories need, not those of padding, and are given as shares of what a
square product of matrices in bf16 reaches in the same run. The sides of "step" are those of step.py, in bf16: ours, and
a clean-room version of the reference's way, which pads histories with random items and texts to the longest, computes
logits of words that nobody reads, and keeps all hidden states, one window at a time, for want of memory. Without
optimizers, which would be the same.

Not measured, for want of the thing itself: float8 (H14).
"""

import argparse
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import gpu_retrieval
import gpu_training
import torch
from gpu_world import SIZES, World, told
from measure import machine

from hllm.precision import choose_device

STAGES: dict[str, tuple[Callable[[World], dict[str, Any]], float]] = {
    "ceilings": (World.ceilings, 20),
    "training is correct": (gpu_training.correctness, 40),
    "search is correct": (gpu_retrieval.correctness, 10),
    "encode": (gpu_training.encode, 100),
    "step": (gpu_training.a_step, 130),
    "loss": (gpu_training.contrastive_loss, 30),
    "users": (gpu_training.user_tier, 30),
    "search": (gpu_retrieval.search, 60),
    "serving": (gpu_retrieval.serving, 40),
    "evaluation": (gpu_retrieval.evaluation, 30),
    "compiled": (gpu_training.compiled, 100),
}
"""Each with its share of the budget."""


def out_of_time(_: int, __: FrameType | None) -> None:
    """End the stage."""
    raise TimeoutError("its time is up")


def run_stage(world: World, name: str, limit: float) -> dict[str, Any]:
    """Return what the stage found, or how it failed, with the seconds it took."""
    start = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        found: dict[str, Any] = {"found": STAGES[name][0](world)}
    except Exception as error:
        where = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name != out_of_time.__name__][-1]
        found = {"failed": f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
    return {"stage": name, "seconds": time.perf_counter() - start} | found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=480, help="seconds for all stages")
    parser.add_argument("--device", type=torch.device, default=choose_device())
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--only", nargs="+", choices=list(STAGES), help="these stages, after the ceilings")
    parser.add_argument("--out", type=Path, help="append a line of JSON for each stage")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGALRM, out_of_time)
    world, failed, start = World(asked.device, SIZES[asked.size]), 0, time.perf_counter()
    name = torch.cuda.get_device_name(asked.device) if asked.device.type == "cuda" else "CPU"
    about = {"device": name, "size": asked.size, "precision": world.precision} | machine()
    print(told(about))
    whole = sum(share for _, share in STAGES.values())
    for stage, (_, share) in STAGES.items():
        if asked.only and stage not in ("ceilings", *asked.only):
            continue
        left = asked.budget - (time.perf_counter() - start)
        found = run_stage(world, stage, min(left, 1.5 * share * asked.budget / whole)) if left > 1 else {
            "stage": stage, "failed": "the budget was used up"
        }  # fmt: skip
        failed += "failed" in found
        print(told(found), flush=True)
        if asked.out:
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(about | found) + "\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
