"""What the benchmarks share: spans of repeats, sides that take turns, and the machine's description."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

Span = dict[str, float]


def span(values: Sequence[float]) -> Span:
    """Return median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def written(found: Span, digits: int = 2) -> str:
    """Write a span for people."""
    return f"{found['median']:.{digits}f} ({found['min']:.{digits}f} to {found['max']:.{digits}f})"


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> Span:
    """Return the span of theirs / ours, turn by turn."""
    return span([a / b for a, b in zip(theirs, ours, strict=True)])


def in_turns(
    sides: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int = 1
) -> dict[str, dict[str, list[float]]]:
    """Run the sides one after another, `repeats` times; return the seconds of each turn, by the clock and of the CPU.

    The first `warm_up` rounds are not counted.
    """
    seconds = {name: {"wall_s": list[float](), "cpu_s": list[float]()} for name in sides}
    for turn in range(warm_up + repeats):
        for name, run in sides.items():
            start = time.perf_counter(), time.process_time()
            run()
            if turn >= warm_up:
                seconds[name]["wall_s"].append(time.perf_counter() - start[0])
                seconds[name]["cpu_s"].append(time.process_time() - start[1])
    return seconds


def in_process(command: Sequence[str | Path], *, python: str | Path = sys.executable) -> dict[str, Any]:
    """Run a script in a process of its own and return the JSON that its last line holds."""
    done = subprocess.run([str(python), *map(str, command)], check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def peak_bytes() -> int:
    """Return this process's greatest resident memory. What getrusage says would begin at the parent's (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    packages = {name: version(name) for name in ("numpy", "polars", "torch", "transformers")}
    threads = {name: os.environ.get(name) for name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS")}
    load = os.getloadavg()[0]
    return {"python": platform.python_version(), "cores": os.cpu_count(), "load": load} | packages | threads
