"""Goals that are measured on a CPU: one function a goal, `--only` picks some, one JSON line each.

    POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/cpu.py --only c7
    python benchmarks/cpu.py --only c7 --size 1000000 --out results.json

The sides of a comparison take turns, each in a process of its own, whose peak memory is the one the kernel counted
when the timed part ended, interpreter and imports included; imports are not timed. Ratios are medians over the repeats
of theirs / ours. Each side's result is reduced to one hash after the clock has stopped, and the hashes must agree.
Baselines are ours too: clean-room versions of the reference's way of computing.

c6: ranking the whole catalogue, against all scores of a batch of users at once; evaluation.py describes it.

c7: from two CSV files to a leave-one-out split. Ours reads, checks every fault, numbers, sorts and splits. The baseline
does what the reference does, in pandas: read three columns by position with ids as text, number the ids by `factorize`
and a dict, sort by time, group by user in a Python loop, and slice each user's sequence; items become a dict of dicts.
Data: ids of 10 to 14 characters, items Zipf 0.9 over 100,000, users uniform with 10 interactions each on average, all
times different, rows in no order.
"""

import argparse
import hashlib
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NUM_ITEMS = 100_000
SECONDS_OF_A_YEAR = 365 * 86_400


def c7(size: int, repeats: int) -> dict[str, Any]:
    """Return seconds and peak memory of preparing `size` interactions, and the ratios. Goal: 8 in time, 3 in memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: a child's peak memory begins at what its parent had in memory.
        subprocess.run(
            [sys.executable, __file__, "--side", "tables", "--folder", name, "--size", str(size)], check=True
        )
        runs: dict[str, list[dict[str, Any]]] = {"pandas": [], "hllm": []}
        for _ in range(repeats):
            for side, measured in runs.items():
                measured.append(in_process(side, folder))
        csv_bytes = (folder / "interactions.csv").stat().st_size
    hashes = {run["hash"] for measured in runs.values() for run in measured}
    if len(hashes) != 1:
        raise SystemExit(f"the sides disagree: {hashes}")
    result: dict[str, Any] = {"goal": "c7", "size": size, "repeats": repeats, "csv_bytes": csv_bytes}
    for unit in ("seconds", "cpu_seconds", "peak_bytes"):
        values = {side: [run[unit] for run in measured] for side, measured in runs.items()}
        ratios = [theirs / ours for theirs, ours in zip(values["pandas"], values["hllm"], strict=True)]
        result[unit] = {side: span(column) for side, column in values.items()} | {"ratio": span(ratios)}
    return result


def span(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def in_process(side: str, folder: Path) -> dict[str, Any]:
    """Run one side in a process of its own and return what it measured."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def write_tables(folder: Path, size: int) -> None:
    """Write interactions.csv (item, user, time) and items.csv, a million rows at a time."""
    import polars as pl

    rng = np.random.default_rng(7)
    chance = np.arange(1, NUM_ITEMS + 1) ** -0.9
    below = np.cumsum(chance / chance.sum())
    times = rng.permutation(max(size, SECONDS_OF_A_YEAR))[:size] + 1_500_000_000
    with (folder / "interactions.csv").open("wb") as file:
        for start in range(0, size, 1_000_000):
            moments = times[start : start + 1_000_000]
            drawn = {
                "item_id": np.searchsorted(below, rng.random(len(moments))).clip(max=NUM_ITEMS - 1),
                "user_id": rng.integers(size // 10, size=len(moments)),
            }
            texts = [
                (pl.lit(prefix) + pl.col(name).cast(pl.String).str.zfill(width)).alias(name)
                for name, prefix, width in (("item_id", "B", 9), ("user_id", "user", 10))
            ]
            part = pl.DataFrame(drawn).with_columns(texts).with_columns(timestamp=pl.Series(moments))
            part.write_csv(file, include_header=start == 0)
    numbers = pl.Series("item_id", range(NUM_ITEMS)).cast(pl.String).str.zfill(9)
    items = pl.DataFrame({"item_id": "B" + numbers, "title": "the title of item " + numbers})
    items.write_csv(folder / "items.csv")


def prepare_with_hllm(folder: Path) -> Callable[[], dict[str, tuple[str, int]]]:
    """Build the dataset and split it; return a function that tells each user's test target and number of items."""
    from hllm.data.build import build_dataset
    from hllm.data.schema import DataConfig
    from hllm.data.split import SplitConfig, split_dataset

    dataset = build_dataset(folder / "interactions.csv", folder / "items.csv", DataConfig())
    split_dataset(dataset, SplitConfig())

    def outcome() -> dict[str, tuple[str, int]]:
        last = dataset.item_ids.gather(dataset.item_index[dataset.offsets[1:] - 1]).to_list()
        return dict(zip(dataset.users, zip(last, np.diff(dataset.offsets).tolist(), strict=True), strict=True))

    return outcome


def prepare_with_pandas(folder: Path) -> Callable[[], dict[str, tuple[str, int]]]:
    """Do the same as the reference does it."""
    import pandas as pd

    log = pd.read_csv(folder / "interactions.csv", dtype={0: str, 1: str, 2: "int64"})
    log.columns = ["item_id", "user_id", "timestamp"]
    items = pd.read_csv(folder / "items.csv", dtype={"item_id": str})
    texts = items.set_index("item_id").to_dict(orient="index")
    names: dict[str, list[str]] = {}
    for column in ("item_id", "user_id"):
        _, distinct = pd.factorize(log[column])
        names[column] = ["[PAD]", *distinct]
        numbers = {name: number for number, name in enumerate(names[column])}
        log[column] = log[column].map(numbers)
    log = log.sort_values("timestamp")
    sequences: dict[int, list[int]] = {}
    moments: dict[int, list[int]] = {}
    for user, item, moment in zip(log["user_id"], log["item_id"], log["timestamp"], strict=True):
        sequences.setdefault(user, []).append(item)
        moments.setdefault(user, []).append(moment)
    training = {user: items[:-2] for user, items in sequences.items() if len(items) >= 3}
    assert training
    assert texts

    def outcome() -> dict[str, tuple[str, int]]:
        of_item, of_user = names["item_id"], names["user_id"]
        return {of_user[user]: (of_item[items[-1]], len(items)) for user, items in sequences.items()}

    return outcome


def run_side(side: str, folder: Path) -> None:
    """Measure one side in this process and print what came out."""
    # What a program has imported anyway is not timed.
    importlib.import_module("pandas" if side == "pandas" else "hllm.data.build")
    start = time.perf_counter(), time.process_time()
    outcome = {"pandas": prepare_with_pandas, "hllm": prepare_with_hllm}[side](folder)
    measured: dict[str, Any] = {
        "seconds": time.perf_counter() - start[0],
        "cpu_seconds": time.process_time() - start[1],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    digest = hashlib.sha256()
    for user, (item, length) in sorted(outcome().items()):
        digest.update(f"{user},{item},{length}\n".encode())
    print(json.dumps(measured | {"hash": digest.hexdigest()}))


def c6(size: int, repeats: int) -> dict[str, Any]:
    """Return seconds and peak memory of ranking 20,000 x 100,000; see evaluation.py. Goal: 2 in time, 512 MB."""
    import evaluation

    return {"goal": "c6"} | evaluation.c6(repeats)


GOALS: dict[str, Callable[[int, int], dict[str, Any]]] = {"c6": c6, "c7": c7}


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    from importlib.metadata import version

    packages = {name: version(name) for name in ("numpy", "polars", "pandas")}
    threads = {name: os.environ.get(name) for name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS")}
    load = os.getloadavg()[0]
    return {"python": platform.python_version(), "cores": os.cpu_count(), "load": load} | packages | threads


def main() -> None:
    """Measure the goals that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(GOALS), default=sorted(GOALS))
    parser.add_argument("--size", type=int, default=10_000_000, help="interactions, for c7")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a JSON file with all results")
    parser.add_argument("--side", choices=["tables", "pandas", "hllm"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side == "tables":
        write_tables(options.folder, options.size)
        return
    if options.side:
        run_side(options.side, options.folder)
        return
    results = []
    for goal in options.only:
        results.append(GOALS[goal](options.size, options.repeats) | {"machine": machine()})
        print(json.dumps(results[-1]), flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
