"""Goal C13: what `import hllm` and `hllm --help` take, and whether they load torch.

    python benchmarks/start.py

Goal: 0.15 s each, no torch. Seconds are those of the whole process less those of a Python that does nothing.
"""

import json
import subprocess
import sys
import time
from typing import Any

from measure import span, written

REPEATS = 7
COMMANDS = {
    "nothing": ["-c", "pass"],
    "import hllm": ["-c", "import hllm"],
    "hllm --help": ["-m", "hllm", "--help"],
}
HEAVY = ("torch", "transformers", "polars", "numpy")
LOADED = f"import sys; before = set(sys.modules); import hllm; print([n for n in {HEAVY!r} if n in sys.modules])"


def loaded() -> list[str]:
    """Return the heavy packages that `import hllm` loads."""
    done = subprocess.run([sys.executable, "-c", LOADED], check=True, stdout=subprocess.PIPE, text=True)
    names: list[str] = json.loads(done.stdout.replace("'", '"'))
    return names


def main() -> dict[str, Any]:
    """Print the seconds and return them."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPEATS):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    found: dict[str, Any] = {"loaded": loaded()}
    for name in list(COMMANDS)[1:]:
        found[name] = span([a - b for a, b in zip(seconds[name], seconds["nothing"], strict=True)])
        print(f"{name}: {written(found[name])} s more than Python itself")
    return found


if __name__ == "__main__":
    print(json.dumps(main()))
