"""The goals that are measured on a CPU, C1 to C14: one command, one table, one JSON.

    POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/cpu.py
    OMP_NUM_THREADS=1 python benchmarks/cpu.py --only c1 c2 --out results.json
    python benchmarks/cpu.py --gate

Each goal has a module of its own here, whose docstring says what is measured and against what. The sides of a
comparison take turns in one run, and their results are compared before anything is timed. Ratios are medians over the
repeats of theirs / ours with minimum and maximum. Baselines are ours too, but for RecBole (--recbole, see sasrec.py)
and sentence-transformers (installed beside hllm, see encode.py): without these their goals say so.

--gate counts instead of timing: tokens, items, bytes and modules, which are the same on every machine, and compares
them with benchmarks/expected.json. --accept writes that file anew, for a change that is meant.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure import machine, written

EXPECTED = Path(__file__).parent / "expected.json"
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Outcome:
    """What came out of one goal."""

    found: str
    """For people."""
    met: bool | None
    """None: not measured."""
    numbers: dict[str, Any]


def tokens(_: argparse.Namespace) -> Outcome:
    """C1. Tokens through the Item LLM for one token of the distinct items needed. | at most 1.10."""
    counted = counted_tokens()
    waste = counted["tokens computed"] / counted["tokens needed"]
    padded = counted["tokens padded"] / counted["tokens needed"]
    return Outcome(f"{waste:.3f}; padded {padded:.2f}", waste <= 1.10, counted)


def a_step(asked: argparse.Namespace) -> Outcome:
    """C2. A training step against the reference's way, padded. | 4 times as fast."""
    import step

    found = step.main(step.options(["--repeats", str(asked.repeats)]))
    return Outcome(f"{written(found['padded'])} times as fast", found["padded"]["median"] >= 4, found)


def processes(_: argparse.Namespace) -> Outcome:
    """C3, C14. Two processes against one: items encoded twice; losses, gradients, metrics. | none; equal to 1e-6."""
    test = ROOT / "tests" / "training" / "test_distributed.py"
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", test], cwd=ROOT, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1]
    return Outcome(f"1.00 and equal: {last}" if done.returncode == 0 else last, done.returncode == 0, {"pytest": last})


def shards(_: argparse.Namespace) -> Outcome:
    """C4. Tokens of the busiest of eight processes over the mean, texts as long as those of books. | at most 1.02."""
    worst = busiest()
    return Outcome(f"{worst:.4f}", worst <= 1.02, {"worst of 20 batches": worst})


def contrastive_loss(_: argparse.Namespace) -> Outcome:
    """C5. A contrastive loss over many negatives against all logits at once. | 1/8 of the memory, 1.1 of the time."""
    import losses

    worst = losses.main()
    met = worst["bytes"] <= 1 / 8 and worst["cpu_s"] <= 1.1
    return Outcome(f"{worst['bytes']:.3f} of the memory, {worst['cpu_s']:.2f} of the time", met, worst)


def full_ranking(asked: argparse.Namespace) -> Outcome:
    """C6. Ranking 100,000 items for 20,000 users against all scores of a batch at once. | twice as fast, 512 MB."""
    import evaluation

    found = evaluation.c6(min(3, asked.repeats))
    faster, peak = found["ratio_cpu_s"], found["streamed_peak_mb"]
    said = f"{faster[0]:.2f} ({faster[1]:.2f} to {faster[2]:.2f}) times as fast, {peak[0]:.0f} MB"
    return Outcome(said, faster[0] >= 2 and peak[0] <= 512, found)


def prepared(asked: argparse.Namespace) -> Outcome:
    """C7. From CSV files to a split against pandas and a Python loop. | 8 times as fast, a third of the memory."""
    import preparation

    found = preparation.measure(asked.size, min(3, asked.repeats))
    faster, smaller = found["seconds"]["ratio"], found["peak_bytes"]["ratio"]
    said = f"{written(faster)} times as fast, {1 / smaller['median']:.2f} of the memory ({asked.size:,} rows)"
    return Outcome(said, faster["median"] >= 8 and smaller["median"] >= 3, found)


def batches(_: argparse.Namespace) -> Outcome:
    """C8. Batches from the memory-mapped tokens, a second and thread. | 20 million tokens."""
    import supply

    found = supply.main()
    rate = found["batches"]["median"] / 1e6
    said = f"{rate:.1f} million tokens; tokenising {found['tokenising']['median'] / 1e6:.2f} million"
    return Outcome(said, rate >= 20, found)


def sasrec_epoch(asked: argparse.Namespace) -> Outcome:
    """C9. An epoch of SASRec against RecBole 1.2.1's. | 5 times the samples a second."""
    if asked.recbole is None:
        return Outcome("not measured: give --recbole PYTHON (see benchmarks/sasrec.py)", None, {})
    import sasrec

    found = sasrec.main(asked.recbole)
    quality = " and ".join(f"{side} {found[side]['ndcg@10']:.3f}" for side in ("hllm", "recbole"))
    return Outcome(f"{written(found['ratio'])} times; ndcg@10 {quality}", found["ratio"]["median"] >= 5, found)


def encoding(_: argparse.Namespace) -> Outcome:
    """C10. Texts to vectors against sentence-transformers in fp32. | as fast in fp32, twice in bf16, cosine .999."""
    if importlib.util.find_spec("sentence_transformers") is None:
        return Outcome("not measured: pip install sentence-transformers", None, {})
    import encode

    found = encode.main()
    met = found["fp32"]["median"] >= 1 and found["bf16"]["median"] >= 2 and found["bf16 cosine"] >= 0.999
    said = f"fp32 {written(found['fp32'])}, bf16 {written(found['bf16'])} times, cosine {found['bf16 cosine']:.4f}"
    return Outcome(said, met, found)


def first_results(_: argparse.Namespace) -> Outcome:
    """C11. Train, evaluate and recommend with a small model on MovieLens-100K. | 120 s."""
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        start = time.perf_counter()
        for verb in (
            ["train", str(ROOT / "recipes" / "smoke.toml"), "--out", run],
            ["evaluate", "--run", run],
            ["recommend", "--run", run, "--user", "42"],
        ):
            subprocess.run([sys.executable, "-m", "hllm", *verb], check=True, capture_output=True)
        seconds = time.perf_counter() - start
    return Outcome(f"{seconds:.0f} s", seconds <= 120, {"seconds": seconds})


def server(_: argparse.Namespace) -> Outcome:
    """C12. Requests to a server. | p50 10 ms, p99 30 ms, 300 a second."""
    return Outcome("not measured: hllm has no server yet", None, {})


def starting(_: argparse.Namespace) -> Outcome:
    """C13. `import hllm` and `hllm --help`. | 0.15 s each, no torch."""
    import start

    found = start.main()
    slowest = max(found["import hllm"]["median"], found["hllm --help"]["median"])
    times = f"{found['import hllm']['median']:.2f} s and {found['hllm --help']['median']:.2f} s"
    said = f"{times}, loads {', '.join(found['loaded']) or 'nothing heavy'}"
    return Outcome(said, slowest <= 0.15 and "torch" not in found["loaded"], found)


GOALS: dict[str, Callable[[argparse.Namespace], Outcome]] = {
    "c1": tokens, "c2": a_step, "c3": processes, "c4": shards, "c5": contrastive_loss, "c6": full_ranking,
    "c7": prepared, "c8": batches, "c9": sasrec_epoch, "c10": encoding, "c11": first_results, "c12": server,
    "c13": starting,
}  # fmt: skip


def counted_tokens() -> dict[str, int]:
    """Return tokens and items of 50 steps, computed and needed."""
    import step

    return step.count_tokens(step.draws(step.COUNTED, step.options([])), step.catalogue(1000))


def busiest() -> float:
    """Return the worst imbalance of 20 batches of 9,000 items, shared by eight processes."""
    from hllm.batches.item_plan import plan_items

    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(20):
        lengths = np.clip(rng.lognormal(4.7, 0.6, size=9_000), 8, 257).astype(np.int64)
        plan = plan_items(lengths, num_shards=8)
        of_each = [int(lengths[plan.shard(number)].sum()) for number in range(8)]
        worst = max(worst, max(of_each) / float(np.mean(of_each)))
    return worst


def counters() -> dict[str, dict[str, Any]]:
    """Return what does not depend on the machine."""
    import losses
    import start

    return {
        "c1": counted_tokens(),
        "c4": {"worst of 20 batches": busiest()},
        "c5": {name: count for name, count in losses.count_bytes().items() if name.endswith("chunked")},
        "c13": {"loaded": start.loaded()},
    }


def gate(*, accept: bool) -> int:
    """Compare the counters with those expected; return the exit status."""
    found = counters()
    if accept:
        EXPECTED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return 0
    expected = json.loads(EXPECTED.read_text(encoding="utf-8"))
    differing = [
        f"{goal}, {name}: found {found.get(goal, {}).get(name)}, expected {value}"
        for goal, values in expected.items()
        for name, value in values.items()
        if not agree(found.get(goal, {}).get(name), value)
    ]
    for line in differing:
        print(line)
    if differing:
        print(f"{len(differing)} counters differ from {EXPECTED.name}; if that is meant, write it anew with --accept")
        return 1
    print(f"all counters are as in {EXPECTED.name}")
    return 0


def agree(found: Any, expected: Any) -> bool:
    """Return whether a counter is what it should be; a number may differ by a hundredth, as allocators do."""
    if isinstance(found, int | float) and isinstance(expected, int | float):
        return abs(found - expected) <= 0.01 * abs(expected)
    return bool(found == expected)


def main() -> int:
    """Measure the goals that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(GOALS), default=list(GOALS))
    parser.add_argument("--size", type=int, default=1_000_000, help="interactions, for c7; the goal is for 10,000,000")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--recbole", metavar="PYTHON", help="an interpreter that has RecBole 1.2.1, for c9")
    parser.add_argument("--out", type=Path, help="a JSON file with all results")
    parser.add_argument("--gate", action="store_true", help="count, and compare with expected.json")
    parser.add_argument("--accept", action="store_true", help="with --gate: write expected.json anew")
    asked = parser.parse_args()
    if asked.gate:
        return gate(accept=asked.accept)
    results = {}
    for name in asked.only:
        what, _, aim = (GOALS[name].__doc__ or "").rstrip(".").partition(" | ")
        with contextlib.redirect_stdout(io.StringIO()) as details:
            outcome = GOALS[name](asked)
        sys.stderr.write(details.getvalue())
        verdict = {True: "met", False: "missed", None: ""}[outcome.met]
        print(f"| {what} | {outcome.found} | {aim} | {verdict} |", flush=True)
        results[name] = {"found": outcome.found, "met": outcome.met, "numbers": outcome.numbers}
        if asked.out:
            text = json.dumps({"machine": machine(), "goals": results}, indent=1)
            asked.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
