import json
import re


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
