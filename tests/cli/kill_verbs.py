"""Run the verbs of examples/three_stage.sh, all in one process, once for each OUT=KILL: `python kill_verbs.py RECIPE …`.

Each time in a fork that kills itself as KILL says; imports are made once. One line is printed for each: KILL, the exit
code, and a hash of the names and times of all files in OUT.
"""

import hashlib
import os
import shlex
import signal
import sys
from pathlib import Path

import transformers

import hllm.api
from hllm.cli.main import main
from hllm.embedding import export, rows, shards
from hllm.retrieval.scorer import ModelScorer
from hllm.runs import tables
from hllm.runs.run import Run

SCRIPT = Path(__file__).parents[2] / "examples" / "three_stage.sh"


def verbs(out: str, recipe: str) -> list[list[str]]:
    """Return the script's commands but those that fetch, which are indented."""
    lines = [line for line in SCRIPT.read_text().splitlines() if line.startswith("hllm ")]
    return [shlex.split(line.replace("$out", out).replace("$2", recipe))[1:] for line in lines]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_call(owner: object, name: str, number: int) -> None:
    """Kill the process in the midst of a function: when its `number`-th call has done its work."""
    original, calls = getattr(owner, name), []

    def counted(*arguments, **named):
        result = original(*arguments, **named)
        calls.append(name)
        if len(calls) == number:
            die()
        return result

    setattr(owner, name, counted)


def die_at_step(stage: int) -> None:
    log = Run.log

    def log_then_die(self, event):
        log(self, event)
        if event["event"] == "step" and event["stage"] == stage and event["step"] % 3 == 2:
            die()

    Run.log = log_then_die


KILLS = {
    "nowhere": lambda: None,
    "stage-I": lambda: die_at_step(0),
    "stage-II": lambda: die_at_step(1),
    "item-shards": lambda: die_at_call(tables, "encode_in_batches", 3),
    "item-table": lambda: die_at_call(rows.RowWriter, "copy", 2),
    "user-shards": lambda: die_at_call(ModelScorer, "users", 2),
    "export": lambda: die_at_call(export, "_safetensors", 1),
}


def all_verbs(out: str, recipe: str) -> None:
    """Do what the script does: each verb in turn, until one fails."""
    for verb in verbs(out, recipe):
        if code := main(verb):
            os._exit(code)
    os._exit(0)


def times(out: str) -> str:
    """Return a hash that is another as soon as a file is written."""
    files = sorted((str(path), path.stat().st_mtime_ns) for path in Path(out).rglob("*") if path.is_file())
    return hashlib.sha256(repr(files).encode()).hexdigest()


if __name__ == "__main__":
    shards.ROWS_PER_SHARD = 8  # 30 items make 4 shards, 12 users 2
    recipe, *wanted = sys.argv[1:]
    assert all([hllm.api, transformers.BertModel, transformers.LlamaModel, transformers.PreTrainedTokenizerFast])
    for want in wanted:
        out, kill = want.split("=")
        child = os.fork()
        if child == 0:
            KILLS[kill]()
            all_verbs(out, recipe)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{kill} {code} {times(out)}\n")
        sys.stdout.flush()
