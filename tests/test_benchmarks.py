"""The counters of benchmarks/cpu.py: what a step computes, which no machine changes."""

import json
import subprocess
import sys
from pathlib import Path

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
