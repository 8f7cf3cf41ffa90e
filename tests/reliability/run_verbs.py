"""Run verbs of the command line in forks of one process, which imports once: `python run_verbs.py`.

Each line of its input is one trial, a JSON object: `verb`, the arguments; `folder`, where to run; `kill_after_s`, or
`kill_before`, the number of a change under the folder before which SIGKILL comes; `file_bytes`, which no file may
exceed; `user`, a user id to run as. One JSON line answers it: exit code, output, and how many changes were made.
"""

import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from typing import Any

import matplotlib.figure
import transformers

import hllm.api
from hllm.cli.main import main
from hllm.embedding import shards

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}


def is_change(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    """Return whether an audit event changes something under `folder`, or opens a file there for writing."""
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, str | bytes | os.PathLike) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return False
    elif event not in CHANGES:
        return False
    return any(
        isinstance(part, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(part)).startswith(folder)
        for part in arguments
    )


def count_changes(folder: str, kill_before: int | None, counted: int) -> None:
    """Write a byte to the pipe `counted` for each change; before the change number `kill_before`, from 0, die."""
    number = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal number
        if is_change(event, arguments, folder):
            if number == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)
            number += 1
            os.write(counted, b".")

    sys.addaudithook(hook)


def child(trial: dict[str, Any], output: int, counted: int) -> None:
    """Run one verb in this process, and end it."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w") for number in (1, 2))
    os.chdir(trial["folder"])
    count_changes(trial["folder"], trial.get("kill_before"), counted)
    if limit := trial.get("file_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if user := trial.get("user"):
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    code = main(trial["verb"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def drained(reading: int) -> tuple[threading.Thread, bytearray]:
    """Start to read a pipe to its end; return the thread and where the bytes come."""
    content = bytearray()

    def drain() -> None:
        while piece := os.read(reading, 1 << 16):
            content.extend(piece)
        os.close(reading)

    thread = threading.Thread(target=drain)
    thread.start()
    return thread, content


def run(trial: dict[str, Any]) -> dict[str, Any]:
    """Run one trial in a fork; return what came of it. Its output goes into a pipe, which no limit of files holds for."""
    (reading, output), (reading_changes, counted) = os.pipe(), os.pipe()
    start = time.monotonic()
    process = os.fork()
    if process == 0:
        try:
            child(trial, output, counted)
        finally:  # not back into the caller's loop, whatever happens
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(70)
    os.close(output)
    os.close(counted)
    (printing, printed), (counting, changes) = drained(reading), drained(reading_changes)
    if seconds := trial.get("kill_after_s"):
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    took = time.monotonic() - start
    printing.join()
    counting.join()
    return {"code": code, "output": printed.decode(errors="replace"), "changes": len(changes), "seconds": took}


if __name__ == "__main__":
    assert all(
        [
            hllm.api,
            matplotlib.figure.Figure,
            transformers.BertModel,
            transformers.LlamaModel,
            transformers.PreTrainedTokenizerFast,
        ]
    )
    "".encode("utf-8-sig")  # imports the codec, which another user may not be allowed to
    shards.ROWS_PER_SHARD = 8  # 30 items make 4 shards, 12 users 2
    os.fsync = lambda descriptor: None  # no trial cuts the power
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)  # noqa: T201
