"""hllm export-model."""

import json


def test_an_export_prints_both_runs_and_can_be_used_by_other_verbs(hllm, trained_folder, tmp_path):
    out = tmp_path / "int8"
    code, printed, err = hllm("export-model", trained_folder, "--dtype", "int8", "--max-loss", "1", "--out", out)
    assert (code, err) == (0, "")
    assert "int8" in printed
    assert "weights on disk" in printed
    assert "of ndcg@10" in printed
    assert hllm("evaluate", "--run", out, "--baselines", "")[0] == 0
    assert hllm("recommend", "--run", out, "--user", "u1")[0] == 0
    assert hllm("embed", "--run", out, "--out", tmp_path / "items")[0] == 0


def test_an_export_as_json(hllm, trained_folder, tmp_path):
    code, printed, _ = hllm("export-model", trained_folder, "--dtype", "bf16", "--out", tmp_path / "bf16", "--json")
    found = json.loads(printed)
    assert (code, found["weights"], found["select_by"]) == (0, "bf16", "ndcg@10")
    assert found["weights_on_disk"]["after"] < found["weights_on_disk"]["before"]


def test_an_unknown_dtype_is_refused(hllm, trained_folder, tmp_path):
    code, _, err = hllm("export-model", trained_folder, "--dtype", "int4", "--out", tmp_path / "x")
    assert (code, "--dtype is 'int4' (did you mean 'int8'?); expected one of bf16, int8" in err) == (2, True)
