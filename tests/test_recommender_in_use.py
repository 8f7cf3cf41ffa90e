"""A recommender in use: arguments of every kind, copies, threads, forks, and answers that are empty."""

import copy
import os
import pickle
import threading
import tracemalloc
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from hllm.api import Recommender
from hllm.batches.batch import SequenceBatch
from hllm.embedding.table import ItemEmbeddingTable
from hllm.errors import ConfigError, DataError, HllmError, HllmWarning
from hllm.ranking.frame import rank_frame
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.histories import Histories
from tests.conftest import batch_of

NEW = pl.DataFrame({"item_id": ["new"], "title": ["summer hat"], "kind": ["hat"]})


@pytest.fixture(scope="module")
def numbered(tmp_path_factory, interactions, items, id_recipe) -> Recommender:
    """Users and items named by whole numbers."""
    number = pl.col("item_id").str.slice(1).cast(pl.Int64)
    log = interactions.with_columns(number, pl.col("user_id").str.slice(1).cast(pl.Int64))
    out = tmp_path_factory.mktemp("numbered") / "run"
    return Recommender.fit(log, items.with_columns(number), recipe=id_recipe, out=out)


@pytest.mark.parametrize(
    "call",
    [
        lambda r: r.recommend("11"),
        lambda r: r.recommend(histories=["12", "7"]),
        lambda r: r.recommend(histories={"a": "12"}),
        lambda r: r.recommend(histories=[[[1]]]),
        lambda r: r.recommend(histories="12"),
        lambda r: r.recommend([1], items="12"),
        lambda r: r.recommend(texts="red"),
        lambda r: r.recommend(histories=[[1]], times=[[1.5]]),
        lambda r: r.recommend(histories=[[1]], times=["1"]),
        lambda r: r.similar("12"),
        lambda r: r.title_of("12"),
        lambda r: r.rank("12", [1]),
        lambda r: r.rank([1], "1"),
        lambda r: r.rank({1: "12"}, [1]),
        lambda r: r.recommend([1.7]),
        lambda r: r.recommend([True]),
        lambda r: r.recommend([1, True]),
        lambda r: r.recommend(["007"]),
        lambda r: r.recommend(["+7"]),
        lambda r: r.recommend([Decimal("1.5")]),
        lambda r: r.recommend([1, "\ud800"]),
        lambda r: r.recommend(bytearray(b"12")),
        lambda r: r.recommend(torch.tensor(3)),
        lambda r: r.recommend(histories={None: [1]}),
        lambda r: r.recommend(histories={1: [1], "1": [2]}),
        lambda r: r.recommend([None]),
        lambda r: r.recommend([float("nan")]),
        lambda r: r.recommend(histories=[[1.5]]),
        lambda r: r.recommend(histories=[[None]]),
        lambda r: r.recommend([1], items=[1.5]),
        lambda r: r.similar([2.5]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(numbered, call):
    with pytest.raises(HllmError):
        call(numbered)


@pytest.mark.parametrize(
    "users",
    [[1, 2], ("1", "2"), [1.0, 2.0], np.array([1, 2]), np.array(["1", "2"]), pd.Series([1, 2]), pl.Series([1, 2])],
)
def test_users_of_any_type_are_the_same(numbered, users):
    expected = numbered.recommend([1, 2], k=3)
    assert numbered.recommend(users, k=3).equals(expected)
    for unknown in ("skip", "popularity"):
        assert (
            numbered.recommend(users, k=3, unknown=unknown)
            .select("item_id", "rank")
            .equals(expected.select("item_id", "rank"))
        )


def test_histories_of_one_length_may_be_one_array(numbered):
    expected = numbered.recommend(histories=[[1, 2], [3, 4]], k=3)
    for kind in (np.array, torch.tensor):
        assert numbered.recommend(histories=kind([[1, 2], [3, 4]]), k=3).equals(expected)


def test_an_answer_without_users_says_why(numbered):
    with pytest.warns(HllmWarning, match=r'nothing is known of the 2, and unknown="skip" leaves them out'):
        assert numbered.recommend([98, 99], unknown="skip").is_empty()
    with pytest.warns(HllmWarning, match="no users to recommend to: users is empty"):
        assert numbered.recommend([]).is_empty()


@pytest.mark.parametrize("item_id", [53.7, True, "0053", "x"])
def test_a_new_id_that_would_become_another_one_is_refused(trained, numbered, item_id):
    with pytest.raises(DataError, match=r"catalogue's types: 'item_id' holds .*, which is not of type Int64"):
        numbered.dataset.extended(NEW.with_columns(item_id=pl.lit(item_id)))


@pytest.mark.parametrize("text", ["\ud800 red", {"title": "red \udfff"}])
def test_a_text_that_cannot_be_read_is_refused_in_a_sentence(trained, text):
    with pytest.raises(DataError, match="half of a surrogate pair"):
        trained.encode([text])


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, pl.Series])
def test_items_and_histories_of_any_type_are_the_same(numbered, kind):
    given = kind([3, 4, 5])
    expected = numbered.recommend(histories=[[3, 4, 5]], k=3)
    assert numbered.recommend(histories=[given], k=3).equals(expected)
    assert numbered.recommend(histories={"a": given}, k=3)["item_id"].equals(expected["item_id"])
    assert set(numbered.recommend([1], items=given, k=9, exclude_seen=False)["item_id"]) == {3, 4, 5}
    assert numbered.similar(given, k=2)["query"].to_list() == [3, 3, 4, 4, 5, 5]
    assert numbered.title_of(given) == numbered.title_of([3, 4, 5])


class _ByNumber:
    """A ranker that likes items of high number, whoever asks."""

    targets = ("high",)

    def logits(self, histories, candidates, *, advance=None):
        return [items[:, None].astype(np.float32) for items in candidates]


@pytest.mark.parametrize("kind", [int, str, float, np.int32])
def test_candidates_are_of_a_user_however_the_id_is_written(numbered, kind):
    users, nothing = pl.Series([1, 2]), Histories([np.zeros(0, dtype=np.int64)] * 2)
    found = rank_frame(_ByNumber(), numbered.dataset, users, nothing, {kind(2): ["3"], kind(1): [4, 5.0], kind(9): [6]})
    assert found["user_id"].to_list() == [1, 1, 2]
    assert found["item_id"].to_list() == [5, 4, 3]
    with pytest.raises(DataError, match="1 of 2 users have no candidates; first: 2"):
        rank_frame(_ByNumber(), numbered.dataset, users, nothing, {kind(1): [4]})


def test_ids_of_histories_may_be_of_two_types(numbered):
    assert numbered.recommend(histories={1: [3], "b": [4]}, k=1)["user_id"].to_list() == ["1", "b"]


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, pl.Series])
def test_texts_of_any_type_are_the_same(trained, kind):
    given = kind(["red shoe", "blue coat"])
    assert (trained.encode(given) == trained.encode(["red shoe", "blue coat"])).all()
    assert trained.recommend(texts=given, k=2).equals(trained.recommend(texts=["red shoe", "blue coat"], k=2))
    assert trained.similar(texts=given, k=2).equals(trained.similar(texts=["red shoe", "blue coat"], k=2))


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, pd.NA])
def test_a_missing_cell_says_nothing(trained, missing):
    assert (trained.encode([{"title": "red", "kind": missing}]) == trained.encode([{"title": "red"}])).all()
    found = trained.recommend(["u1", "u2"], texts=["red shoe", missing], k=2).filter(pl.col("user_id") == "u2")
    assert found["item_id"].equals(trained.recommend(["u2"], k=2)["item_id"])
    with pytest.raises(DataError, match="a new item needs text"):
        trained.encode([{"title": missing}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("titel: red shoe", r"unknown field 'titel' \(did you mean 'title'\?\)"),
        ("title: red; kid: shoe", r"unknown field 'kid' \(did you mean 'kind'\?\)"),
        ({"titel": "red"}, r"unknown field 'titel' \(did you mean 'title'\?\)"),
    ],
)
def test_a_field_that_is_nearly_known_is_refused(trained, text, message):
    with pytest.raises(DataError, match=message):
        trained.encode([text])


def test_other_words_before_a_colon_are_text(trained):
    same = trained.encode([{"title": "summer: new shoe", "kind": "hat"}])
    assert (trained.encode(["title: summer: new shoe; kind: hat"]) == same).all()
    assert (trained.encode(["summer: new shoe; Kind: hat"]) == same).all()
    assert (trained.encode(["TITLE: summer: new shoe\nKIND: hat"]) == same).all()


@pytest.mark.parametrize("k", [20_000_000, 10**12])
def test_k_beyond_the_catalogue_costs_nothing(trained, k):
    for call in (
        lambda k: trained.recommend(["u1", "u2"], k=k),
        lambda k: trained.recommend(histories={"nobody": []}, k=k),
        lambda k: trained.similar(["i1"], k=k),
        lambda k: trained.similar(texts=["red"], k=k),
    ):
        expected = call(30)
        tracemalloc.start()
        found = call(k)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.equals(expected)
        assert peak < 20e6


@pytest.mark.parametrize("k", [0, -1, True])
def test_k_is_a_whole_number(trained, k):
    for call in (
        lambda: trained.recommend(k=k),
        lambda: trained.similar(["i1"], k=k),
        lambda: trained.audience("red", k=k),
    ):
        with pytest.raises(ConfigError, match=r"k is .*; it must be a whole number, at least 1"):
            call()


def test_items_like_all_items_are_found_in_tiles(trained, monkeypatch):
    alone = pl.concat([trained.similar([item], k=4) for item in trained.dataset.item_ids])
    monkeypatch.setattr("hllm.retrieval.similar.USERS_PER_TILE", 7)
    found = trained.similar(trained.dataset.item_ids, k=4)
    assert found.select("query", "item_id", "rank").equals(alone.select("query", "item_id", "rank"))
    assert found["score"].to_numpy() == pytest.approx(alone["score"].to_numpy(), abs=1e-6)
    assert trained.similar([], k=4).is_empty()


def test_an_empty_answer_says_why(trained):
    seen = trained.recommend(["u0"], k=30, exclude_seen=False).join(
        trained.recommend(["u0"], k=30), on="item_id", how="anti"
    )["item_id"]
    with pytest.warns(
        HllmWarning,
        match=r"no item is left for 1 of 1 users, the first of them 'u0'; left out is what the "
        r"argument items does not name and what a user has seen \(exclude_seen=False offers it again\)",
    ):
        assert trained.recommend(["u0"], items=seen).is_empty()
    assert len(trained.recommend(["u0"], items=seen, exclude_seen=False)) == len(seen)


def test_columns_may_be_called_like_ours(interactions, items, id_recipe):
    log = interactions.rename({"timestamp": "row", "user_id": "id"})
    names = {"user_col": "id", "time_col": "row", "text_cols": ("title",)}
    recipe = id_recipe.model_copy(update={"data": id_recipe.data.model_copy(update=names)})
    recommender = Recommender.fit(log, items.rename({"kind": "row"}), recipe=recipe)
    assert len(recommender.recommend(["u1"], k=3)) == 3


def test_copies_are_the_same_and_do_not_share_what_is_added(trained, tmp_path):
    trained.save(tmp_path / "run")
    first = Recommender.load(tmp_path / "run")
    first.add_items(NEW)
    expected = first.recommend(["u1", "u2"], k=31)
    for second in (copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        found = second.recommend(["u1", "u2"], k=31)
        assert found["item_id"].equals(expected["item_id"])
        assert found["score"].to_numpy() == pytest.approx(expected["score"].to_numpy(), abs=1e-6)
        second.add_items(NEW.with_columns(item_id=pl.lit("another")))
        assert "another" not in first.dataset.item_ids
    short = pickle.loads(pickle.dumps(trained.at(4)))
    assert short.recommend(["u1"], k=3)["item_id"].equals(trained.at(4).recommend(["u1"], k=3)["item_id"])


def test_a_copy_outlives_the_temporary_run_of_the_first(interactions, items, recipe):
    first = Recommender.fit(interactions, items, recipe=recipe)
    second = copy.deepcopy(first)
    del first
    assert second.encode(["red"]).shape[0] == 1, "the reader is opened only now"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_the_parts_can_be_copied(trained, copied):
    dataset = copied(trained.dataset)
    assert dataset.fingerprint == trained.dataset.fingerprint
    assert (dataset.history(3) == trained.dataset.history(3)).all()
    table = copied(ItemEmbeddingTable.load(trained.run.table_path, checkpoint=trained.bundle.origin.checkpoint))
    assert (table.vectors == trained.scorer.table).all()
    model, batch = copied(trained.model), Histories([trained.dataset.history(0)])
    assert [*model.state_dict()] == [*trained.model.state_dict()]
    same = ExactRetriever(copied(trained.scorer)).recommend(batch, 30)
    assert (same.items == ExactRetriever(trained.scorer).recommend(batch, 30).items).all()
    best = trained.retriever.recommend(Histories([trained.dataset.history(0)]), 3)
    assert (copied(best).items == best.items).all()
    batch = copied(batch_of([np.array([1, 2, 3])], [4]))
    assert isinstance(batch, SequenceBatch)


def test_threads_recommend_while_items_are_added(trained, tmp_path):
    trained.save(tmp_path / "run")
    recommender = Recommender.load(tmp_path / "run")
    done, errors = threading.Event(), []

    def ask(number: int) -> None:
        try:
            while not done.is_set():
                frame = recommender.recommend([f"u{number}"], k=40)
                assert frame["rank"].to_list() == list(range(1, len(frame) + 1))
                recommender.title_of(frame["item_id"])
                recommender.encode(["red " * (1 + number)])
                recommender.similar(texts=["green hat"], k=3)
        except BaseException as error:
            errors.append(error)

    def add(start: int) -> None:
        try:
            for number in range(start, start + 5):
                recommender.add_items(NEW.with_columns(item_id=pl.lit(f"new{number}")))
        except BaseException as error:
            errors.append(error)

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    adding = [threading.Thread(target=add, args=(start,)) for start in (0, 5)]
    for thread in [*asking, *adding]:
        thread.start()
    for thread in adding:
        thread.join()
    done.set()
    for thread in asking:
        thread.join()
    assert not errors
    assert recommender.dataset.num_items == 40, "none of two that add at a time is lost"


def test_a_fork_is_told_to_open_the_run_itself(trained):
    trained.recommend(["u1"], k=2)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        folder = trained._bundle.run.folder
        for call in (
            trained.recommend,
            lambda: trained.title_of(["i1"]),
            lambda: trained.encode(["red"]),
            lambda: Recommender.load(folder),
        ):
            try:
                call()
            except ConfigError as error:
                said.append(str(error))
        os.write(write, "\n".join(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(child, 0)
    assert len(lines) == 4
    assert all(f"opened in process {os.getpid()} and cannot answer in a fork of it" in line for line in lines[:3])
    assert f"this is a fork of process {os.getpid()}, which has opened a recommender" in lines[3]
