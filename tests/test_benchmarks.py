"""The counters of benchmarks/cpu.py: what a step computes, which no machine changes."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hllm.data.build import build_dataset
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.split import split_dataset
from hllm.errors import ConfigError
from hllm.sources.data_sets import locate
from hllm.training.fit import recipe_from

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_the_counters_are_those_that_were_accepted():
    done = subprocess.run([sys.executable, BENCHMARKS / "cpu.py", "--gate"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_accepted_counters_meet_the_goals():
    expected = json.loads((BENCHMARKS / "expected.json").read_text())
    tokens = expected["c1"]
    assert tokens["tokens computed"] <= 1.10 * tokens["tokens needed"]
    assert tokens["items encoded"] == tokens["distinct items"]
    assert expected["c4"]["worst of 20 batches"] <= 1.02
    # 4,096 queries and 16,384 negatives in fp32 are 268 MB of logits alone.
    assert expected["c5"]["info-nce, 16,384 shared, chunked"] <= 4096 * 16384 * 4 / 5
    assert "torch" not in expected["c13"]["loaded"]


def test_a_counter_that_differs_is_named(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cpu

    expected = json.loads(cpu.EXPECTED.read_text())
    monkeypatch.setattr(cpu, "counters", lambda: expected | {"c4": {"worst of 20 batches": 1.3}})
    assert cpu.gate(accept=False) == 1
    assert "c4, worst of 20 batches: found 1.3, expected 1.00" in capsys.readouterr().out


def test_every_stage_of_the_gpu_benchmark_runs(tmp_path):
    out = tmp_path / "found.jsonl"
    command = [sys.executable, BENCHMARKS / "gpu.py", "--device", "cpu", "--size", "tiny", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    stages = {line["stage"]: line for line in map(json.loads, out.read_text().splitlines())}
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(stages) == 11
    assert stages["training is correct"]["found"]["fp32"]["of the worst gradient"] < 1e-4
    tokens = stages["step"]["found"]["tokens"]
    assert 0 < tokens["needed"] <= tokens["computed"]
    compiled = stages["compiled"]["found"]
    assert compiled["graphs"] > 0
    assert compiled["more in steady steps"] == 0


def test_a_stage_whose_time_is_up_says_so_and_the_next_one_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    before, out = signal.getsignal(signal.SIGALRM), tmp_path / "found.jsonl"
    monkeypatch.setitem(gpu.STAGES, "training is correct", (lambda _: time.sleep(600), 40))
    try:
        chosen = ["--only", "training is correct", "search is correct", "--budget", "5"]
        assert gpu.main(["--device", "cpu", "--size", "tiny", "--out", str(out), *chosen]) == 1
    finally:
        signal.signal(signal.SIGALRM, before)
    _, training, search = map(json.loads, out.read_text().splitlines())
    assert training["failed"].startswith("TimeoutError: its time is up (test_benchmarks.py:")
    assert search["found"]["error of the scores"] < 1e-3
    assert "its time is up" in capsys.readouterr().out


@pytest.fixture
def baselines(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import baselines

    return baselines


def test_the_pages_of_the_baselines_are_those_of_the_stored_numbers(baselines):
    store = json.loads(baselines.STORE.read_text(encoding="utf-8"))
    assert baselines.PAGE.read_text(encoding="utf-8") == "\n".join(baselines._page(store, {})) + "\n"
    assert baselines.NOTE.read_text(encoding="utf-8") == "\n".join(baselines._closer_look(store)) + "\n"


@pytest.mark.parametrize("number", range(6))
def test_the_stored_numbers_are_of_the_data_and_splits_of_today(baselines, number):
    """Where the data set is at hand, as MovieLens-100K is after the demo."""
    setting = baselines.SETTINGS[number]
    recipe, base = recipe_from(baselines.ROOT / setting.recipe, setting.overrides)
    try:
        tables = locate(recipe.data, base)
    except ConfigError as error:
        pytest.skip(str(error))
    dataset = build_dataset(*tables, recipe.data)
    split = split_dataset(dataset, recipe.split)
    data, said_split = json.loads(baselines.STORE.read_text(encoding="utf-8"))[setting.name]["protocol"][:2]
    assert data.startswith(f"data {dataset.fingerprint[:12]}: ")
    assert f" {split.fingerprint[:12]}, test part: " in said_split


def test_fingerprints_in_the_other_pages_are_of_stored_or_tested_data(dataset):
    known = "".join((BENCHMARKS.parent / "docs/results.json").read_text(encoding="utf-8"))
    split = split_dataset(dataset, LeaveOneOutSplit())
    tiny = {dataset.fingerprint[:12], split.fingerprint[:12]}
    data, evaluation = (
        (BENCHMARKS.parent / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("data", "evaluation")
    )
    (said,) = re.findall(r"Split \(leave-one-out, ([0-9a-f]{12})\)", data)
    assert said in known
    assert set(re.findall(r"(?:data|min_length 3\)) ([0-9a-f]{12})", evaluation)) == tiny
