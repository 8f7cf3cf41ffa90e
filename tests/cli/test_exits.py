import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
import pytest

from hllm import artifacts
from hllm.jobs import recommend_table
from hllm.locks import locked, locked_inside
from hllm.runs import tables
from hllm.runs.run import Run
from tests.conftest import recipe_values

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def tiny_recipe(tmp_path, interactions, items, tiny_bert, tiny_llama) -> Path:
    interactions.write_parquet(tmp_path / "interactions.parquet")
    items.write_parquet(tmp_path / "items.parquet")
    values = recipe_values(tiny_bert, tiny_llama)
    values["data"] = {"interactions": "interactions.parquet", "items": "items.parquet"}
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    return tmp_path / "recipe.json"


@pytest.mark.reliability("signals")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_a_step_exits_with_its_number_and_says_what_is_saved(
    hllm, tiny_recipe, tmp_path, monkeypatch, number
):
    """The command line took it for a Ctrl-C of its own: 130 whatever the signal, and no word."""
    log = Run.log

    def log_then_signal(self, event):
        log(self, event)
        if event["step"] == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Run, "log", log_then_signal)
    before = [signal.getsignal(each) for each in SIGNALS]
    code, _, err = hllm("train", tiny_recipe, "--out", tmp_path / "run")
    assert code == 128 + number
    assert (
        f"stopped by {number.name}; step 2 is saved in {tmp_path / 'run'}: the same command goes on from there" in err
    )
    assert [signal.getsignal(each) for each in SIGNALS] == before
    monkeypatch.undo()
    assert hllm("train", tiny_recipe, "--out", tmp_path / "run")[0] == 0


@pytest.mark.reliability("signals")
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("verb", ["train", "embed", "recommend"])
def test_a_signal_outside_of_the_steps_exits_with_its_number_and_leaves_nothing_half_written(
    hllm, tiny_recipe, run, tmp_path, monkeypatch, number, verb
):
    def stop(*_, **__):
        os.kill(os.getpid(), number)
        time.sleep(60)

    (tmp_path / "out").mkdir()
    pl.DataFrame({"user_id": ["u1"]}).write_csv(tmp_path / "users.csv")
    target = {
        "train": tmp_path / "out" / "run",
        "embed": tmp_path / "out" / "table",
        "recommend": tmp_path / "out" / "x.parquet",
    }[verb]
    arguments = {
        "train": ["train", tiny_recipe, "--out", target],
        "embed": ["embed", "--run", run, "--out", target],
        "recommend": ["recommend", "--run", run, "--input", tmp_path / "users.csv", "--output", target],
    }[verb]
    shutil.rmtree(run / "table") if verb == "embed" else None
    owner, name = {
        "train": (artifacts, "_seal"),
        "embed": (tables, "encode_in_batches"),
        "recommend": (recommend_table._Worker, "recommend"),
    }[verb]
    monkeypatch.setattr(owner, name, stop)
    code, _, err = hllm(*arguments)
    assert code == 128 + number
    assert f"hllm: stopped by {number.name}; what was finished is kept" in err
    assert "Traceback" not in err
    left = [path.name for path in (tmp_path / "out").rglob(".*") if ".shards-" not in path.name]
    assert left == []
    monkeypatch.undo()
    assert hllm(*arguments)[0] == 0
    assert list((tmp_path / "out").rglob(".*")) == []


@pytest.mark.reliability("signals")
def test_a_real_process_ends_with_the_number_of_the_signal(tiny_recipe, tmp_path):
    arguments = ["train", str(tiny_recipe), "--out", str(tmp_path / "run"), "--set", "stages.0.epochs=500"]
    process = subprocess.Popen([sys.executable, "-m", "hllm", *arguments], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 143
    assert "hllm: stopped by SIGTERM; " in err


@pytest.mark.reliability("second writer")
@pytest.mark.parametrize(
    ("verb", "place", "inside"),
    [
        (["train", "RECIPE", "--out", "OUT"], "OUT", True),
        (["embed", "--run", "RUN", "--out", "OUT"], "OUT", False),
        (["embed", "--run", "RUN", "--out", "RUN/table"], "RUN", True),
        (["embed-users", "--run", "RUN", "--out", "OUT"], "OUT", False),
        (["index", "--run", "RUN"], "RUN/index", False),
        (["index", "--run", "RUN"], "RUN", True),
        (["recommend", "--run", "RUN", "--input", "USERS", "--output", "OUT.parquet"], "OUT.parquet", False),
        (["export-vectors", "--table", "RUN/table", "--out", "OUT"], "OUT", False),
        (["export-model", "RUN", "--out", "OUT", "--dtype", "bf16"], "OUT", False),
        (["fine-tune", "RUN", "--interactions", "NEW", "--out", "OUT"], "OUT", True),
    ],
)
def test_every_second_writer_is_refused_in_one_sentence(
    hllm, tiny_recipe, run, tmp_path, interactions, verb, place, inside
):
    pl.DataFrame({"user_id": ["u1"]}).write_csv(tmp_path / "users.csv")
    interactions.head(1).with_columns(timestamp=pl.lit(10**6)).write_parquet(tmp_path / "new.parquet")
    names = {"OUT": "out", "RUN": run.name, "RECIPE": tiny_recipe.name, "USERS": "users.csv", "NEW": "new.parquet"}

    def at(word: str) -> str:
        for key, name in names.items():
            if word.startswith(key):
                return str(tmp_path / name) + word.removeprefix(key)
        return word

    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        path = Path(at(place))
        with locked_inside(path) if inside else locked(path):
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    code, out, err = hllm(*map(at, verb))
    done.set()
    holder.join()
    assert (code, out) == (2, "")
    assert f"hllm: BusyError: {at(place)} is in use by process {os.getpid()} on this machine" in err
    assert "Traceback" not in err
    assert hllm(*map(at, verb))[0] == 0


def test_readers_need_no_lock_and_leave_no_trace(hllm, run):
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with locked_inside(run), locked(run / "table"), locked(run / "index"):
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    codes = [hllm("recommend", "--run", run, "--user", "u1")[0], hllm("similar", "--run", run, "--item", "i1")[0]]
    done.set()
    holder.join()
    assert codes == [0, 0]
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before


@pytest.mark.reliability("verb killed")
def test_a_job_that_was_killed_while_it_began_is_begun_again(hllm, run, tmp_path):
    """Its own half-written file was taken for somebody else's."""
    pl.DataFrame({"user_id": ["u1"]}).write_csv(tmp_path / "users.csv")
    parts = tmp_path / "x.parquet.parts"
    for left in (
        [".job.json.partial-7"],
        [".requests.parquet.partial-7", ".lock"],
        ["requests.parquet", ".job.json.lock"],
        [".input.partial-requests.parquet"],
        ["requests.parquet", ".input.partial-requests.parquet", ".job.json.partial-7"],
    ):
        parts.mkdir()
        for name in left:
            (parts / name).touch()
        output = tmp_path / "x.parquet"
        assert hllm("recommend", "--run", run, "--input", tmp_path / "users.csv", "--output", output)[0] == 0
        assert not parts.exists()
        output.unlink()


@pytest.mark.parametrize("verb", ["embed", "embed-users"])
def test_a_link_that_is_named_as_output_leads_to_the_table(hllm, run, tmp_path, verb):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "table")
    for dtype in ("fp32", "bf16"):
        assert hllm(verb, "--run", run, "--out", tmp_path / "out", "--dtype", dtype)[0] == 0
        assert (tmp_path / "out").is_symlink()
        assert json.loads((tmp_path / "disk" / "table" / "manifest.json").read_text())["details"]["dtype"] == dtype
    assert not list((tmp_path / "disk").rglob(".*"))
