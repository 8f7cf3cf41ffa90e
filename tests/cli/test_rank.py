"""`hllm rank` and `hllm evaluate-ranking`."""

import json
import shlex

import polars as pl
import pytest

from hllm.api import Recommender
from hllm.cli.show import next_steps
from tests.training.test_ranking import rated, recipe_of, values  # noqa: F401, a fixture


@pytest.fixture(scope="module")
def run(tmp_path_factory, rated, items, tiny_bert, tiny_llama):  # noqa: F811
    folder = tmp_path_factory.mktemp("runs") / "ranker"
    given = values(tiny_bert, tiny_llama, labelled=True)
    given["stages"][0]["epochs"] = 1
    Recommender.fit(rated, items, recipe=recipe_of(given), out=folder)
    return folder


@pytest.fixture
def shared(tmp_path):
    path = tmp_path / "candidates.csv"
    pl.DataFrame({"item_id": ["i1", "i2", "i7"]}).write_csv(path)
    return path


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_candidates_for_a_user_and_for_a_history(hllm, run, shared):
    for options in (("--user", "u3"), ("--history", "i4, i5")):
        code, out, _ = hllm("rank", "--run", run, "--candidates", shared, *options, "--json")
        assert code == 0
        assert sorted(row["item_id"] for row in rows(out)) == ["i1", "i2", "i7"]
        assert [row["rank"] for row in rows(out)] == [1, 2, 3]
    code, out, _ = hllm("rank", "--run", run, "--candidates", shared, "--user", "u3")
    assert code == 0
    assert "candidates by like" in out


def test_a_table_says_each_users_candidates(hllm, run, tmp_path):
    pl.DataFrame({"user_id": ["u2", "u1", "u2"], "item_id": ["i1", "i2", "i3"]}).write_csv(tmp_path / "own.csv")
    out = tmp_path / "ranked.parquet"
    code, said, _ = hllm("rank", "--run", run, "--candidates", tmp_path / "own.csv", "--out", out)
    assert (code, said) == (0, f"{out}: 3 rows\n")
    found = pl.read_parquet(out)
    assert found["user_id"].to_list() == ["u2", "u2", "u1"]
    assert sorted(found["item_id"][:2]) == ["i1", "i3"]


def test_tables_of_users_and_of_histories(hllm, run, shared, tmp_path):
    pl.DataFrame({"user_id": ["u2", "u1"]}).write_csv(tmp_path / "users.csv")
    pl.DataFrame({"user_id": ["x", "y"], "history": [["i1"], ["i2", "i3"]]}).write_parquet(tmp_path / "h.parquet")
    for options, ids in ((("--users", tmp_path / "users.csv"), ["u2", "u1"]),
                         (("--histories", tmp_path / "h.parquet"), ["x", "y"])):  # fmt: skip
        code, out, _ = hllm("rank", "--run", run, "--candidates", shared, *options, "--json")
        assert code == 0
        assert [row["user_id"] for row in rows(out)] == [name for name in ids for _ in range(3)]


def test_wrong_use_is_explained(hllm, run, shared, tmp_path, trained_folder):
    code, _, said = hllm("rank", "--run", run, "--candidates", shared)
    assert code == 2
    assert "does not say whom to rank for" in said
    assert "give one of" in hllm("rank", "--run", run, "--candidates", shared, "--user", "u1", "--history", "i1")[2]
    twice = tmp_path / "twice.csv"
    pl.DataFrame({"user_id": ["x", "x"], "history": ["i1", "i2"]}).write_csv(twice)
    assert "names 1 users twice" in hllm("rank", "--run", run, "--candidates", shared, "--histories", twice)[2]
    for verb in (("rank", "--candidates", shared, "--user", "u1"), ("evaluate-ranking",)):
        code, _, said = hllm(*verb, "--run", trained_folder)
        assert code == 2
        assert "no head that scores candidates" in said


def test_an_evaluation_is_shown_and_kept(hllm, run):
    code, out, _ = hllm("evaluate-ranking", "--run", run)
    assert code == 0
    assert "target like:" in out
    assert "calibration_error" in out
    (kept,) = json.loads((run / "ranking.json").read_text())
    assert kept["name"] == "ranker"
    assert 0 <= kept["targets"]["like"]["metrics"]["auc"]["low"] <= 1
    code, out, _ = hllm("evaluate-ranking", "--run", run, "--part", "validation", "--json")
    assert code == 0
    assert json.loads(out) == json.loads((run / "ranking-validation.json").read_text())


def test_what_comes_next_for_a_run_selected_by_auc_can_be_done(hllm, run, shared):
    """Evaluating and recommending was named for every run; DIN does neither."""
    commands = next_steps(run, "auc", "u0").replace("FILE", str(shared)).split("; ")
    assert [command.split()[1] for command in commands] == ["evaluate-ranking", "rank"]
    for command in commands:
        assert hllm(*shlex.split(command)[1:])[0] == 0, command
