import dataclasses
import json
import re
import shutil

import pytest

from tests.conftest import recipe_values


def test_recommend_for_a_user_prints_titles(hllm, trained_folder, trained):
    code, out, _ = hllm("recommend", "--run", trained_folder, "--user", "u3", "-k", "2")
    best = trained.recommend(users=["u3"], k=2)
    assert code == 0
    assert "for user u3" in out
    lines = out.splitlines()[2:]
    for line, item_id, title in zip(lines, best["item_id"], trained.title_of(best["item_id"]), strict=True):
        assert re.search(rf"u3 +{item_id} +{title}$", line.rstrip())


def test_recommend_for_a_history_and_as_json(hllm, trained_folder, trained):
    code, out, _ = hllm("recommend", "--run", trained_folder, "--history", "i1, i2,i3", "-k", "3", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    expected = trained.recommend(histories=[["i1", "i2", "i3"]], k=3)
    assert [row["item_id"] for row in rows] == expected["item_id"].to_list()
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert [row["title"] for row in rows] == trained.title_of(expected["item_id"])


def test_recommend_from_a_sentence_alone_and_after_a_history(hllm, trained_folder, trained):
    for who, asked in (([], {}), (["--user", "u3"], {"users": ["u3"]}), (["--history", "i1"], {"histories": [["i1"]]})):
        code, out, _ = hllm("recommend", "--run", trained_folder, *who, "--text", "old hat", "-k", "3", "--json")
        rows = [json.loads(line) for line in out.splitlines()]
        assert code == 0
        expected = trained.recommend(**asked, texts=["old hat"], k=3)
        assert [row["item_id"] for row in rows] == expected["item_id"].to_list()
        assert {row["source"] for row in rows} == {"model"}


def test_where_nothing_is_known_what_is_popular_is_shown_and_called_so(hllm, trained_folder):
    for who in (["--history", ""], ["--user", "nobody", "--unknown", "popularity"]):
        code, out, _ = hllm("recommend", "--run", trained_folder, *who, "-k", "2")
        assert code == 0
        assert "nothing is known, so what is popular (score: training interactions)" in out
        code, out, _ = hllm("recommend", "--run", trained_folder, *who, "-k", "2", "--json")
        assert [json.loads(line)["source"] for line in out.splitlines()] == ["popularity"] * 2


def test_a_new_item_finds_its_users(hllm, trained_folder, trained):
    code, out, _ = hllm("recommend", "--run", trained_folder, "--new-item", "title: summer hat", "-k", "3", "--json")
    assert code == 0
    assert [json.loads(line)["user_id"] for line in out.splitlines()] == trained.audience("title: summer hat", k=3)[
        "user_id"
    ].to_list()


@pytest.mark.parametrize("question", [("--item", "i7"), ("--text", "title: red hat")])
def test_similar(hllm, trained_folder, question):
    code, out, _ = hllm("similar", "--run", trained_folder, *question, "-k", "2")
    assert code == 0
    assert len([line for line in out.splitlines() if re.match(r"\s+\d", line)]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["recommend", "--user", "nobody"],
            "DataError: 1 of 1 users asked for are not in the interactions; first: 'nobody'",
        ),
        (
            ["recommend", "--history", "i1,zz"],
            "DataError: 1 of 2 items asked for are not in the catalogue; first: 'zz'",
        ),
        (["recommend", "--new-item", " "], "DataError: a new item needs text"),
        (["recommend"], "ConfigError: give one of --user ID, --history ID,ID,…, --text SENTENCE or --new-item TEXT"),
        (["recommend", "--text", "hat", "--new-item", "hat"], "--text may also come with --user or --history"),
        (["recommend", "--user", "u1", "--unknown", "ignore"], "--unknown is 'ignore'; expected one of error, skip"),
        (["similar", "--item", "zz"], "DataError: 1 of 1 items asked for"),
        (["similar"], "ConfigError: give one of --item ID or --text TEXT"),
        (["evaluate", "--part", "train"], "ConfigError: --part is 'train'"),
        (["recommend", "--user", "u1", "--history-col", "x"], "--history-col is for a table of requests: give --input"),
        (["recommend", "--history", "i1", "--text-col", "x"], "--text-col is for a table of requests: give --input"),
        (["recommend", "--text", "hat", "--separator", "|"], "--separator is for a table of requests: give --input"),
        (["recommend", "--new-item", "hat", "--candidates", "c.csv"], "--candidates are items to recommend; with"),
        (["recommend", "--user", "u1", "-k", "0"], "Invalid value for '--k'"),
    ],
)
def test_wrong_input_exits_with_2_and_one_sentence(hllm, trained_folder, arguments, message):
    code, out, err = hllm(arguments[0], "--run", trained_folder, *arguments[1:])
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_corrupted_checkpoint_is_named(hllm, trained_folder, tmp_path):
    shutil.copytree(trained_folder, tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "best" / "user_encoder.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    code, _, err = hllm("recommend", "--run", tmp_path / "run", "--user", "u1")
    assert code == 2
    assert re.search(r"user_encoder\.safetensors is damaged: its SHA-256 is \w{12}…, the manifest says", err)


def test_no_run_and_no_verb(hllm, tmp_path):
    code, _, err = hllm("recommend", "--run", tmp_path, "--user", "u1")
    assert (code, "is not a run: it has no recipe.json; make one with hllm train" in err) == (2, True)
    code, _, err = hllm("recomend")
    assert (code, "No such command 'recomend'" in err) == (2, True)


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


def test_two_runs_of_one_name_are_refused(hllm, trained_folder, tmp_path):
    code, _, err = hllm("evaluate", "--run", trained_folder, "--against", trained_folder)
    assert code == 2
    assert "two runs are named 'trained'; a table needs names that differ" in err


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


def test_a_title_cannot_inject_markup(trained):
    from hllm.cli.examples import examples
    from hllm.reports.run import html_report

    nasty = trained.dataset.items.with_columns(title=trained.dataset.items["title"] + "<script>alert(1)</script>")
    trained.dataset = dataclasses.replace(trained.dataset, items=nasty)
    page = html_report([trained.evaluate()], examples(trained), {})
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>" not in page


def test_times_belong_to_a_history_and_are_numbers(hllm, trained_folder):
    code, _, error = hllm("recommend", "--run", str(trained_folder), "--user", "u1", "--times", "5")
    assert (code, "--times belongs to --history" in error) == (2, True)
    code, _, error = hllm("recommend", "--run", str(trained_folder), "--history", "i1", "--times", "noon")
    assert (code, "expected whole seconds since 1970" in error) == (2, True)
    code, output, _ = hllm("recommend", "--run", str(trained_folder), "--history", "i1,i2", "--times", "5,6", "--json")
    assert code == 0
    assert output


def test_candidates_limit_what_one_user_is_recommended(hllm, trained, trained_folder, tmp_path):
    """--candidates was accepted without --input and had no effect: the whole catalogue was recommended."""
    sale = tmp_path / "sale.csv"
    sale.write_text("item_id\ni20\ni28\ni2\n")
    expected = trained.recommend(users=["u3"], items=["i20", "i28", "i2"])["item_id"].to_list()
    arguments = ["recommend", "--run", trained_folder, "--user", "u3", "--candidates", sale, "--json"]
    code, out, _ = hllm(*arguments)
    assert code == 0
    assert [json.loads(line)["item_id"] for line in out.splitlines()] == expected
    sale.write_text("item_id\ni20\ngone\ni28\ni2\n")
    code, out, err = hllm(*arguments)
    assert (code, out) == (2, "")
    assert "1 of 4 items asked for are not in the catalogue; first: 'gone'" in err
    code, out, err = hllm(*arguments, "--unknown", "skip")
    assert code == 0
    assert [json.loads(line)["item_id"] for line in out.splitlines()] == expected
    assert "1 items among the candidates are not in the catalogue and were left out" in err
