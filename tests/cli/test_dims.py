"""hllm evaluate --dims, hllm embed --dim, hllm index --set dim."""

import json
import shutil

import pytest


@pytest.fixture
def run(tmp_path, trained_folder):
    return shutil.copytree(trained_folder, tmp_path / "run")


def test_a_curve_over_sizes_is_evaluated_stored_and_compared(hllm, run):
    ordinary = json.loads(hllm("evaluate", "--run", run, "--baselines", "", "--json")[1])
    code, out, err = hllm("evaluate", "--run", run, "--baselines", "", "--dims", "8,4,full", "--json")
    curve = json.loads(out)
    assert (code, err) == (0, "")
    assert [result["name"] for result in curve] == ["run@4", "run@8", "run"]
    assert curve[2]["all_items"] == ordinary[0]["all_items"]
    code, out, _ = hllm("compare", run, f"{run}:run@4", "--reference", "first", "--json")
    assert code == 0
    rows = json.loads(out)["tables"][0]["rows"]
    assert rows[1]["value"]["mean"] == pytest.approx(curve[0]["all_items"]["ndcg@10"]["mean"])


def test_sizes_that_cannot_be_are_refused_before_any_work(hllm, run, tmp_path):
    code, _, err = hllm("evaluate", "--run", run, "--dims", "4,big")
    assert (code, "--dims has 'big'; expected sizes such as 32,64,128, and \"full\"" in err) == (2, True)
    code, _, err = hllm("evaluate", "--run", run, "--dim", "99")
    assert (code, "the vectors have 16 numbers; dim is 99" in err) == (2, True)
    code, _, err = hllm("index", "--run", run, "--set", "dim=99")
    assert (code, "the vectors have 16 numbers; dim is 99" in err) == (2, True)
    assert not (run / "evaluation.json").exists()


def test_tables_and_indexes_of_short_vectors(hllm, run, tmp_path):
    code, out, _ = hllm("embed", "--run", run, "--out", tmp_path / "items", "--dim", "4")
    assert (code, "30 items of 4 numbers in fp32, 0 encoded" in out) == (0, True)
    code, out, _ = hllm("index", "--run", run, "--set", "dim=4", "--json")
    assert (code, json.loads(out)["config"]["dim"]) == (0, 4)
    assert hllm("recommend", "--run", run, "--user", "u1")[0] == 0
