import json

import pytest

RECIPE = """
about = "a tiny SASRec"
precision = "fp32"
[data]
interactions = "events.csv"
items = "items.parquet"
[model]
max_history = 8
[model.item]
kind = "id"
[model.user]
kind = "sasrec"
dim = 8
num_heads = 2
[[stages]]
epochs = 3
objective.negatives.kind = "catalogue"
"""
SEARCH = '[[space]]\nkey = "stages.0.learning_rate"\nlow = 1e-4\nhigh = 1e-1\nlog = true\n'


@pytest.fixture
def files(tmp_path, interactions, items):
    interactions.write_csv(tmp_path / "events.csv")
    items.write_parquet(tmp_path / "items.parquet")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "search.toml").write_text(SEARCH)
    return tmp_path / "recipe.toml", "--out", tmp_path / "tuning", "--search", tmp_path / "search.toml"


def test_tune_prints_the_best_trials_and_commands_that_work(hllm, files, tmp_path):
    code, out, err = hllm("tune", *files, "--trials", "2", "--set", "stages.0.epochs=1")
    assert code == 0, err
    assert "trial 1 (2 of 2): stages.0.learning_rate=" in err
    assert "2 of 2 trials complete, 0 failed" in out
    result = json.loads((tmp_path / "tuning" / "result.json").read_text())
    header, first = out.splitlines()[1:3]
    assert header.split() == ["trial", "ndcg@10", "seconds", "stages.0.learning_rate"]
    assert first.split()[:2] == [str(result["best"]["number"]), f"{result['best']['value']:.4f}"]
    evaluate, train = out.splitlines()[-1].removeprefix("next: ").split("; with another seed: ")
    code, table, err = hllm(*evaluate.split()[1:])
    assert (code, "popularity" in table) == (0, True), err
    code, _, err = hllm(*train.replace("RUN", str(tmp_path / "run")).split()[1:])
    assert code == 0, err


def test_tune_as_json(hllm, files):
    code, out, _ = hllm("tune", *files, "--trials", "1", "--set", "stages.0.epochs=1", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["best"] == answer["all_trials"][0]


def test_a_wrong_key_exits_with_2_and_one_sentence(hllm, files, tmp_path):
    (tmp_path / "search.toml").write_text(SEARCH.replace("learning_rate", "learning_rat"))
    code, out, err = hllm("tune", *files)
    assert (code, out) == (2, "")
    assert "unknown key 'stages.0.learning_rat' (did you mean 'learning_rate'?)" in err
    assert "Traceback" not in err


def test_the_test_part_cannot_be_tuned_on(hllm, files, tmp_path):
    code, _, err = hllm("tune", *files, "--part", "test")
    assert (code, "No such option" in err) == (2, True)
    (tmp_path / "search.toml").write_text('metric = "test_ndcg@10"\n' + SEARCH)
    code, _, err = hllm("tune", *files)
    assert (code, "is not measured in validation" in err) == (2, True)
