"""Goal C7: from two CSV files to a leave-one-out split, against pandas and a Python loop.

    POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/cpu.py --only c7 --size 1000000

Ours reads, checks every fault, numbers, sorts and splits. The baseline does what the reference does, in pandas: read
three columns by position with ids as text, number the ids by `factorize` and a dict, sort by time, group by user in a
Python loop, and slice each user's sequence; items become a dict of dicts. It is ours too. Data: ids of 10 to 14
characters, items Zipf 0.9 over 100,000, users uniform with 10 interactions each on average, all times different, rows
in no order.

The sides take turns, each in a process of its own, whose peak memory is the one the kernel counted when the timed part
ended, interpreter and imports included; imports are not timed. Each side's result is reduced to one hash after the
clock has stopped, and the hashes must agree.
"""

import argparse
import hashlib
import importlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import in_process, peak_bytes, ratios, span

NUM_ITEMS = 100_000
SECONDS_OF_A_YEAR = 365 * 86_400


def measure(size: int, repeats: int) -> dict[str, Any]:
    """Return seconds and peak memory of preparing `size` interactions, and the ratios. Goal: 8 in time, 3 in memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_process([__file__, "tables", folder, str(size)])
        runs: dict[str, list[dict[str, Any]]] = {"pandas": [], "hllm": []}
        for _ in range(repeats):
            for side, measured in runs.items():
                measured.append(in_process([__file__, side, folder]))
        csv_bytes = (folder / "interactions.csv").stat().st_size
    hashes = {run["hash"] for measured in runs.values() for run in measured}
    if len(hashes) != 1:
        raise SystemExit(f"the sides disagree: {hashes}")
    result: dict[str, Any] = {"size": size, "repeats": repeats, "csv_bytes": csv_bytes}
    for unit in ("seconds", "cpu_seconds", "peak_bytes"):
        values = {side: [run[unit] for run in measured] for side, measured in runs.items()}
        ratio = ratios(values["pandas"], values["hllm"])
        result[unit] = {side: span(column) for side, column in values.items()} | {"ratio": ratio}
    return result


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
    from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
    from hllm.data.schema import DataConfig
    from hllm.data.split import split_dataset

    dataset = build_dataset(folder / "interactions.csv", folder / "items.csv", DataConfig())
    split_dataset(dataset, LeaveOneOutSplit())

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
        "peak_bytes": peak_bytes(),
    }
    digest = hashlib.sha256()
    for user, (item, length) in sorted(outcome().items()):
        digest.update(f"{user},{item},{length}\n".encode())
    print(json.dumps(measured | {"hash": digest.hexdigest()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["tables", "pandas", "hllm"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("size", type=int, nargs="?")
    given = parser.parse_args()
    if given.side == "tables":
        write_tables(given.folder, given.size)
        print("{}")
    else:
        run_side(given.side, given.folder)
