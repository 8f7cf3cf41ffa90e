import json
import warnings


def test_the_report_shows_ablations_of_this_model_and_leaves_out_those_of_another(hllm, run):
    assert hllm("ablate", "--run", run, "--only", "shuffled-order")[0] == 0
    code, _, err = hllm("report", "--run", run, "--baselines", "")
    assert (code, err) == (0, "")
    assert "<h2>Ablations</h2>" in (run / "report.html").read_text()
    changed = json.loads((run / "ablations.json").read_text())
    changed["intact"]["ndcg@10"]["mean"] += 0.01
    (run / "ablations.json").write_text(json.dumps(changed))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, _, err = hllm("report", "--run", run, "--baselines", "")
    assert code == 0
    assert "ablations.json is of another model or protocol than mine is now, and is left out" in err
    assert "<h2>Ablations</h2>" not in (run / "report.html").read_text()
