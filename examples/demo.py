"""From nothing to recommendations: fetch, train a baseline and HLLM, compare, recommend, report. Usage: demo.py [OUT].

Run it again and it goes on where it stopped, or reuses what is finished. The commands are those that one would type;
they share a process, because importing torch and transformers takes longer than most of them.
"""

import os
import shlex
import sys
from pathlib import Path

import typer

from hllm.cli.main import main

COMMANDS = """
data fetch movielens-100k
model fetch minilm-l6
model fetch smollm2-135m
train recipes/sasrec-movielens.toml --out {out}/sasrec
train recipes/demo.toml --out {out}/hllm
evaluate --run {out}/hllm --against {out}/sasrec --report
recommend --run {out}/hllm --user 42 --k 8
recommend --run {out}/hllm --history "50,172,181" --k 8
recommend --run {out}/hllm --new-item "title: The Phantom Menace; year: 1999; genres: Action Adventure Sci-Fi" --k 5
similar --run {out}/hllm --item 1 --k 5
"""


def demo(out: str) -> int:
    """Run the commands in turn; return the exit code of the first that fails, or 0."""
    os.chdir(Path(__file__).parents[1])
    for command in COMMANDS.format(out=shlex.quote(out)).strip().splitlines():
        typer.echo(f"\n$ hllm {command}")
        if code := main(shlex.split(command)):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(demo(*sys.argv[1:2] or ["demo-output"]))
