"""`hllm fine-tune` on the tiny world."""

import json
import shlex
import subprocess
import sys

import polars as pl
import pytest
import torch

from hllm.models.checkpoint import load_checkpoint
from hllm.runs.run import Run

KILLED_AT_STEP_2 = (
    "import os, signal, sys; from hllm.cli.main import main; from hllm.runs.run import Run; log = Run.log; "
    "Run.log = lambda self, e: (log(self, e), os.kill(os.getpid(), signal.SIGKILL) if e['step'] == 2 else None)[0]; "
    "main(sys.argv[1:])"
)


@pytest.fixture
def arguments(tmp_path, trained_folder) -> list[str]:
    rows = {"user_id": ["u1", "u2", "new"], "item_id": ["i2", "i30", "i30"], "timestamp": [5000, 5001, 5002]}
    pl.DataFrame(rows).write_csv(tmp_path / "new.csv")
    pl.DataFrame({"item_id": ["i30"], "title": ["summer coat"], "kind": ["coat"]}).write_csv(tmp_path / "items.csv")
    return ["fine-tune", trained_folder, "--interactions", tmp_path / "new.csv", "--items", tmp_path / "items.csv",
            "--set", "checkpoints.every_steps=1"]  # fmt: skip


def test_it_is_killed_and_goes_on_and_the_new_run_is_used(hllm, arguments, tmp_path, monkeypatch):
    command = [sys.executable, "-c", KILLED_AT_STEP_2, *arguments, "--out", tmp_path / "killed"]
    assert subprocess.run(map(str, command), capture_output=True, check=False, timeout=300).returncode == -9
    assert Run(tmp_path / "killed").checkpoints()
    assert not (tmp_path / "killed" / "drift.json").exists()
    code, out, err = hllm(*arguments, "--out", tmp_path / "killed")
    assert code == 0, err
    assert out.startswith("added   3 interactions, 1 users, 1 items\ndrift   of 30 old items, cosine with their vector")
    assert "targets of the validation before: 12, recall@10 " in out
    for command in out.rpartition("next: ")[2].strip().split("; "):
        assert hllm(*shlex.split(command)[1:])[0] == 0, command
    with monkeypatch.context() as another:  # of the processes that torchrun starts, one speaks
        another.setattr("hllm.cli.fine_tune.is_first_process", lambda: False)
        assert hllm(*arguments, "--out", tmp_path / "killed")[:2] == (0, "")
    code, out, _ = hllm(*arguments, "--out", tmp_path / "straight", "--json")
    report = json.loads(out)["report"]
    assert (code, report["counts"]["items"], report["drift"]["num_items"]) == (0, 1, 30)
    ours, expected = (
        load_checkpoint(tmp_path / name / "checkpoints" / "best")[0].state_dict() for name in ("killed", "straight")
    )
    assert all(torch.equal(value, expected[name]) for name, value in ours.items())
    code, out, _ = hllm("recommend", "--run", tmp_path / "killed", "--user", "new", "--k", "3", "--json")
    assert code == 0
    assert "i30" not in out, "it has been seen"
    code, out, _ = hllm("similar", "--run", tmp_path / "killed", "--item", "i30", "--k", "3", "--json")
    assert code == 0


def test_wrong_input_exits_with_2(hllm, arguments, tmp_path):
    pl.DataFrame({"item_id": ["i3"], "title": ["summer"], "kind": ["coat"]}).write_csv(tmp_path / "items.csv")
    code, _, err = hllm(*arguments, "--out", tmp_path / "run")
    assert (code, "DataError: 1 of 1 items are in the run's catalogue with another text" in err) == (2, True)
    code, _, err = hllm("fine-tune", tmp_path, "--interactions", tmp_path / "new.csv", "--out", tmp_path / "run")
    assert (code, "is not a run: it has no recipe.json" in err) == (2, True)
    code, _, err = hllm(*arguments, "--out", tmp_path / "run", "--set", "model.max_history=9")
    assert (code, "model.max_history must be as in" in err) == (2, True)
    assert not (tmp_path / "run").exists()
