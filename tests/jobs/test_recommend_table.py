"""Recommendations for a table, in parts of four users."""

import json
import shutil

import polars as pl
import pytest

from hllm.errors import CheckpointError, ConfigError, DataError
from hllm.jobs import recommend_table as module
from hllm.jobs.recommend_table import TableOptions, recommend_table
from hllm.retrieval import query as question
from hllm.retrieval.index.retriever import build_index, source_of


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "USERS_PER_BATCH", 2)
    monkeypatch.setattr(module, "BATCHES_PER_PART", 2)


@pytest.fixture
def users(tmp_path, trained):
    path = tmp_path / "users.parquet"
    pl.DataFrame({"user_id": trained.dataset.users.reverse()}).write_parquet(path)
    return path


def same(found: pl.DataFrame, expected: pl.DataFrame) -> bool:
    keys = ["user_id", "item_id", "rank"]
    assert found["score"].to_numpy() == pytest.approx(expected["score"].to_numpy(), abs=1e-5)
    return found.select(keys).equals(expected.select(keys))


@pytest.mark.parametrize(("k", "seen"), [(5, False), (30, False), (1000, True)])
def test_a_table_of_users_gets_what_recommend_gives(trained, users, tmp_path, k, seen):
    options = TableOptions(k=k, exclude_seen=not seen)
    report = recommend_table(trained, users, tmp_path / "recs.parquet", options)
    found = pl.read_parquet(tmp_path / "recs.parquet")
    expected = trained.recommend(users=trained.dataset.users.reverse(), k=min(k, 30), exclude_seen=not seen)
    assert found.columns == ["user_id", "item_id", "score", "rank", "source"]
    assert same(found, expected)
    assert found["source"].unique().to_list() == ["model"]
    assert (report.rows, report.counts.rows) == (len(expected), 12)
    assert not (tmp_path / "recs.parquet.parts").exists()


def test_histories_as_lists_and_as_text_get_what_recommend_gives(trained, tmp_path):
    histories = [["i3", "i4", "i5"], ["i20"], ["i7", "i1"]]
    expected = trained.recommend(histories=histories, k=4)
    lists, text = tmp_path / "lists.parquet", tmp_path / "text.csv"
    pl.DataFrame({"history": histories}).write_parquet(lists)
    pl.DataFrame({"clicks": ["i3 | i4|i5", "i20", "i7|i1|"]}).write_csv(text)
    recommend_table(trained, lists, tmp_path / "a.parquet", TableOptions(k=4))
    options = TableOptions(k=4, history_col="clicks", separator="|")
    recommend_table(trained, text, tmp_path / "b.parquet", options)
    assert same(pl.read_parquet(tmp_path / "a.parquet"), expected), "user_id is the row's number"
    assert pl.read_parquet(tmp_path / "a.parquet").equals(pl.read_parquet(tmp_path / "b.parquet"))


@pytest.mark.parametrize(("option", "noun"), [("history_col", "histories"), ("text_col", "sentences")])
def test_a_column_that_is_named_must_be_there(trained, tmp_path, option, noun):
    pl.DataFrame({"user_id": ["u1"], "clicks": ["i3"], "history": ["i4"], "text": ["hat"]}).write_csv(
        tmp_path / "t.csv"
    )
    with pytest.raises(DataError, match=rf"no column 'click' of {noun} \(did you mean 'clicks'\?\); it has 'user_id'"):
        recommend_table(trained, tmp_path / "t.csv", tmp_path / "a.parquet", TableOptions(k=2, **{option: "click"}))


def test_a_user_without_a_history_of_her_own_row_has_the_logged_one(trained, tmp_path):
    table = tmp_path / "users.jsonl"
    table.write_text('{"user_id": "u3", "history": null}\n{"user_id": "u3", "history": ["i20"]}\n{"user_id": "u5"}\n')
    recommend_table(trained, table, tmp_path / "recs.parquet", TableOptions(k=3))
    found = pl.read_parquet(tmp_path / "recs.parquet")
    assert same(found[:3], trained.recommend(users=["u3"], k=3))
    assert same(found[3:6], trained.recommend(histories={"u3": ["i20"]}, k=3))
    assert same(found[6:], trained.recommend(users=["u5"], k=3))


def test_only_candidates_are_recommended(trained, users, tmp_path):
    pl.DataFrame({"item_id": ["i20", "i28", "i2"]}).write_csv(tmp_path / "sale.csv")
    recommend_table(trained, users, tmp_path / "recs.parquet", TableOptions(k=5, candidates=tmp_path / "sale.csv"))
    ids = trained.dataset.users.reverse()
    assert same(pl.read_parquet(tmp_path / "recs.parquet"), trained.recommend(ids, k=5, items=["i20", "i28", "i2"]))


def test_a_column_of_sentences_is_read_after_the_histories(trained, tmp_path, monkeypatch):
    """One row each: a sentence alone, after a logged and after a given history, none, and an unknown user's."""
    monkeypatch.setattr(question, "_TEXTS_AT_ONCE", 1)
    rows = [
        {"user_id": "a", "history": [], "text": "old hat"},
        {"user_id": "u3", "history": None, "text": "red coat"},
        {"user_id": "b", "history": ["i20"], "text": " "},
        {"user_id": "c", "history": ["i7", "i1"], "text": "blue shoe"},
        {"user_id": "nobody", "history": None, "text": "small"},
    ]
    table = tmp_path / "users.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = recommend_table(trained, table, tmp_path / "recs.parquet", TableOptions(k=3))
    assert (report.counts.texts, report.counts.without_history, report.rows) == (4, 0, 15)
    found = pl.read_parquet(tmp_path / "recs.parquet")
    expected = pl.concat(
        [
            trained.recommend(histories={"a": []}, texts=["old hat"], k=3),
            trained.recommend(["u3"], texts=["red coat"], k=3),
            trained.recommend(histories={"b": ["i20"], "c": ["i7", "i1"]}, texts=[None, "blue shoe"], k=3),
            trained.recommend(histories={"nobody": []}, texts=["small"], k=3),
        ]
    )
    assert same(found, expected)
    assert found["source"].unique().to_list() == ["model"]
    pl.DataFrame({"wish": ["old hat"]}).write_csv(tmp_path / "wishes.csv")
    recommend_table(trained, tmp_path / "wishes.csv", tmp_path / "b.parquet", TableOptions(k=3, text_col="wish"))
    assert same(pl.read_parquet(tmp_path / "b.parquet").with_columns(user_id=pl.lit("a")), expected[:3])


@pytest.fixture
def partly_known(tmp_path):
    """u0 is known; nobody is not; of two histories one has an unknown item and one nothing else."""
    path = tmp_path / "partly.jsonl"
    rows = [
        {"user_id": "nobody", "history": None},
        {"user_id": "u0", "history": None},
        {"user_id": "a", "history": ["i3", "gone"]},
        {"user_id": "b", "history": ["gone", "lost"]},
        {"user_id": "c", "history": []},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_unknown_users_and_items_are_an_error_by_default(trained, partly_known, tmp_path):
    message = (
        "3 of 5 rows name no known user and bring no known item; first: 'nobody', 'b', 'c'. "
        "3 items in the histories are not in the catalogue; first: 'gone', 'gone', 'lost'. Correct them"
    )
    with pytest.raises(DataError, match=message):
        recommend_table(trained, partly_known, tmp_path / "recs.parquet")
    assert not (tmp_path / "recs.parquet.parts").exists()
    assert not (tmp_path / "recs.parquet").exists()


def test_unknown_users_can_be_left_out(trained, partly_known, tmp_path):
    report = recommend_table(trained, partly_known, tmp_path / "recs.parquet", TableOptions(k=2, unknown="skip"))
    found = pl.read_parquet(tmp_path / "recs.parquet")
    assert same(found[:2], trained.recommend(users=["u0"], k=2))
    assert same(found[2:], trained.recommend(histories={"a": ["i3"]}, k=2))
    assert (report.counts.without_history, report.counts.unknown_items, report.rows) == (3, 3, 4)


def test_unknown_users_can_get_what_is_popular_and_it_is_labelled(trained, partly_known, tmp_path):
    """Counted here over the training part; u0 has seen all of the candidates but i9."""
    pl.DataFrame({"item_id": ["i1", "i2", "i3", "i4", "i9", "nowhere"]}).write_parquet(tmp_path / "some.parquet")
    options = TableOptions(k=2, unknown="popularity", candidates=tmp_path / "some.parquet")
    report = recommend_table(trained, partly_known, tmp_path / "recs.parquet", options)
    assert report.unknown_candidates == 1
    counts = dict.fromkeys(["i1", "i2", "i3", "i4", "i9"], 0)
    dataset, split = trained.dataset, trained.split
    for item in dataset.item_index[split.training]:
        if f"i{item}" in counts:
            counts[f"i{item}"] += 1
    best = sorted(counts, key=lambda item: -counts[item])[:2]
    found = pl.read_parquet(tmp_path / "recs.parquet")
    assert found["user_id"].to_list() == ["nobody", "nobody", "u0", "a", "a", "b", "b", "c", "c"]
    for user in ("nobody", "b", "c"):
        own = found.filter(pl.col("user_id") == user)
        assert own["item_id"].to_list() == best
        assert own["score"].to_list() == [counts[item] for item in best]
        assert own["source"].to_list() == ["popularity"] * 2
    assert found.filter(pl.col("user_id").is_in(["u0", "a"]))["source"].unique().to_list() == ["model"]


def test_a_killed_call_goes_on_to_the_same_table(trained, users, tmp_path, monkeypatch):
    recommend_table(trained, users, tmp_path / "whole.parquet", TableOptions(k=4))
    original, batches = module._Worker.recommend, []

    def killed(self, requests):
        batches.append(len(requests))
        if len(batches) == 4:
            raise KeyboardInterrupt
        return original(self, requests)

    monkeypatch.setattr(module._Worker, "recommend", killed)
    output = tmp_path / "recs.parquet"
    with pytest.raises(KeyboardInterrupt):
        recommend_table(trained, users, output, TableOptions(k=4))
    assert not output.exists()
    pl.DataFrame({"user_id": ["u1"]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(
        ConfigError, match=r"recs\.parquet\.parts holds parts for other inputs .they differ in: input, k.;"
    ):
        recommend_table(trained, tmp_path / "other.parquet", output, TableOptions(k=5))
    batches[:] = [0] * 4
    recommend_table(trained, users, output, TableOptions(k=4))
    assert batches[4:] == [2, 2, 2, 2], "the first part, of two batches, is kept"
    assert pl.read_parquet(output).equals(pl.read_parquet(tmp_path / "whole.parquet"))
    with pytest.raises(ConfigError, match=r"recs\.parquet exists already"):
        recommend_table(trained, users, output, TableOptions(k=4))


def test_a_killed_call_does_not_go_on_with_another_size_index_or_added_items(trained, users, tmp_path, monkeypatch):
    """The job did not name the size of the vectors, the index, and what was added but the number of items.

    So one file held the parts of two models.
    """
    trained.save(tmp_path / "run")
    output, original = tmp_path / "recs.parquet", module._Worker.recommend

    def killed(self, requests):
        raise KeyboardInterrupt

    def opened(title: str) -> module.Recommender:
        recommender = module.Recommender.load(tmp_path / "run")
        recommender.add_items(pl.DataFrame({"item_id": ["new"], "title": [title], "kind": ["hat"]}))
        return recommender

    monkeypatch.setattr(module._Worker, "recommend", killed)
    with pytest.raises(KeyboardInterrupt):
        recommend_table(opened("red hat"), users, output)
    with pytest.raises(ConfigError, match=r"they differ in: added_items."):
        recommend_table(opened("old coat"), users, output)
    with pytest.raises(ConfigError, match=r"they differ in: dim."):
        recommend_table(opened("red hat").at(5), users, output)
    build_index(trained.scorer, trained.dataset, source=source_of(trained.run.table_path)).save(
        tmp_path / "run" / "index"
    )
    with pytest.raises(ConfigError, match=r"they differ in: index."):
        recommend_table(opened("red hat"), users, output)
    shutil.rmtree(tmp_path / "run" / "index")
    monkeypatch.setattr(module._Worker, "recommend", original)
    assert recommend_table(opened("red hat"), users, output).counts.rows == 12


def test_integer_ids_are_found_in_any_form_and_come_back_as_they_are(tmp_path, interactions, items, id_recipe):
    short = id_recipe.model_copy(update={"stages": (id_recipe.stages[0].model_copy(update={"epochs": 1}),)})
    number = pl.col("item_id").str.slice(1).cast(pl.Int32)
    logged = interactions.with_columns(number, pl.col("user_id").str.slice(1).cast(pl.Int64))
    recommender = module.Recommender.fit(logged, items.with_columns(number), recipe=short, out=tmp_path / "run")
    pl.DataFrame({"user_id": [4, 2]}).write_csv(tmp_path / "users.csv")
    recommend_table(recommender, tmp_path / "users.csv", tmp_path / "recs.parquet", TableOptions(k=2))
    found = pl.read_parquet(tmp_path / "recs.parquet")
    assert found.schema["item_id"] == pl.Int32
    assert found["user_id"].to_list() == ["4", "4", "2", "2"], "as the file has them"
    assert found["item_id"].to_list() == recommender.recommend(users=[4, 2], k=2)["item_id"].to_list()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (
            "name\nu1\n",
            DataError,
            "has neither a column 'user_id' of user ids nor a column 'history' of item ids nor a column 'text'",
        ),
        ("user_id\n", DataError, "is empty: users to recommend to need at least one row"),
    ],
)
def test_wrong_tables_are_explained(trained, tmp_path, content, error, message):
    (tmp_path / "users.csv").write_text(content)
    with pytest.raises(error, match=message):
        recommend_table(trained, tmp_path / "users.csv", tmp_path / "recs.parquet")


def test_wrong_calls_are_explained(trained, users, tmp_path, monkeypatch):
    output = tmp_path / "recs.parquet"
    with pytest.raises(ConfigError, match="k is 0; it must be at least 1"):
        recommend_table(trained, users, output, TableOptions(k=0))
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.parquet"):
        recommend_table(trained, users, tmp_path / "recs.csv")
    with pytest.raises(DataError, match="there is no file"):
        recommend_table(trained, tmp_path / "none.parquet", output)
    pl.DataFrame({"history": [1.5]}).write_parquet(tmp_path / "wrong.parquet")
    with pytest.raises(DataError, match="the column 'history' is of type Float64; expected lists of item ids"):
        recommend_table(trained, tmp_path / "wrong.parquet", output)
    pl.DataFrame({"item_id": ["gone"]}).write_parquet(tmp_path / "sale.parquet")
    with pytest.raises(DataError, match="1 of 1 items asked for are not in the catalogue; first: 'gone'"):
        recommend_table(trained, users, output, TableOptions(candidates=tmp_path / "sale.parquet"))
    monkeypatch.setattr(type(trained.model), "reads_log", property(lambda _: True))
    pl.DataFrame({"history": [["i1"]]}).write_parquet(tmp_path / "histories.parquet")
    with pytest.raises(DataError, match="1 of 1 rows bring a history, but this model reads when things happened"):
        recommend_table(trained, tmp_path / "histories.parquet", output)
    pl.DataFrame({"text": ["old hat"]}).write_parquet(tmp_path / "texts.parquet")
    with pytest.raises(DataError, match="reads when things happened or what was done, which a sentence does not say"):
        recommend_table(trained, tmp_path / "texts.parquet", output)
    pl.DataFrame({"text": [5]}).write_parquet(tmp_path / "numbers.parquet")
    with pytest.raises(DataError, match="the column 'text' is of type Int64; expected sentences"):
        recommend_table(trained, tmp_path / "numbers.parquet", output)
    parts = tmp_path / "recs.parquet.parts"
    parts.mkdir()
    (parts / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and holds no parts of recommendations"):
        recommend_table(trained, users, output)
    (parts / "job.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"job\.json is damaged.*remove .* to begin again"):
        recommend_table(trained, users, output)
