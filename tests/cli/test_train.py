import json
import re

from tests.conftest import recipe_values


def test_train_evaluate_and_report_end_to_end(hllm, tmp_path, interactions, items, tiny_llama, tiny_bert):
    values = recipe_values(tiny_bert, tiny_llama)
    interactions.write_csv(tmp_path / "events.csv")
    items.write_parquet(tmp_path / "items.parquet")
    toml = f"""
about = "a tiny world, from files"
precision = "fp32"
[data]
interactions = "events.csv"
items = "items.parquet"
[evaluation]
bootstrap_samples = 50
[model]
max_history = 8
[model.item]
kind = "llm"
backbone = "{values["model"]["item"]["backbone"]}"
[model.user]
kind = "llm"
backbone = "{tiny_llama}"
[[stages]]
epochs = 3
"""
    (tmp_path / "recipe.toml").write_text(toml)
    run = tmp_path / "run"
    code, out, err = hllm("train", tmp_path / "recipe.toml", "--out", run, "--set", "stages.0.epochs=1")
    assert code == 0
    assert "best validation ndcg@10" in out
    code, out, err = hllm("evaluate", "--run", run)
    assert code == 0
    for word in ("popularity", "co-occurrence", "markov", "recall@10", "cold items", "split leave-one-out"):
        assert word in out
    stored = json.loads((run / "evaluation.json").read_text())
    assert [r["name"] for r in stored] == ["popularity", "co-occurrence", "markov", "run"]
    assert stored[0]["protocol"]["ranked"] == "the full catalogue"

    code, out, err = hllm("report", "--run", run)
    assert code == 0, err
    page = (run / "report.html").read_text()
    assert "User u0" in page
    assert "An item known only by its text" in page
    assert page.count("<img") == 2 + 1 + 3 + 6, "bars of two metrics, ranks, the data's distributions, and the curves"
    assert re.search(r"<li>run: \d+ steps in [\d,]+ s</li>", page)
    assert not re.search(r'(src|href)="(?!data:|#)', page), "nothing is loaded from outside the file"

    (run / "report.html").unlink()
    code, out, err = hllm("evaluate", "--run", run, "--report", "--json")
    assert code == 0, err
    assert [result["name"] for result in json.loads(out)] == ["popularity", "co-occurrence", "markov", "run"]
    assert f"the report: {run / 'report.html'}" in err
    assert (run / "report.html").read_text().count("<img") == page.count("<img")
    code, _, err = hllm("evaluate", "--run", run, "--report", "--part", "validation")
    assert code == 2
    assert "--report is of the test part" in err

    code, _, err = hllm("train", tmp_path / "recipe.toml", "--out", run)
    assert code == 2
    assert "holds a run of another recipe (they differ in: stages)" in err


def test_an_empty_file_ends_in_one_sentence_and_makes_nothing(hllm, tmp_path, items, tiny_llama):
    (tmp_path / "events.csv").write_text("")
    items.write_parquet(tmp_path / "items.parquet")
    (tmp_path / "recipe.toml").write_text(
        'about = "x"\n[data]\ninteractions = "events.csv"\nitems = "items.parquet"\n'
        f'[model.item]\nkind = "id"\n[model.user]\nkind = "llm"\nbackbone = "{tiny_llama}"\n[[stages]]\n'
    )
    code, _, err = hllm("train", tmp_path / "recipe.toml", "--out", tmp_path / "run")
    assert code == 2
    assert "events.csv is empty: it has no bytes; interactions need a header and at least one row" in err
    assert not (tmp_path / "run").exists()
