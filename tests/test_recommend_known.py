"""Recommending to users of whom a sentence, or nothing at all, is known."""

import numpy as np
import polars as pl
import pytest
import torch

from hllm.api import Recommender
from hllm.errors import ConfigError, DataError, HllmWarning
from hllm.retrieval.index.retriever import build_index, source_of
from tests.conftest import history_of


def unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("length", [0, 1, 3, 8, 11])
def test_a_sentence_is_one_more_element_after_the_history(trained, length):
    """By hand: the vectors of the latest 7 items, then the sentence's, through the user tier."""
    items = [f"i{n}" for n in range(length)]
    texts = trained.dataset.items.select("title", "kind").to_dicts()
    table = torch.from_numpy(trained.encode(texts))
    sentence = torch.from_numpy(trained.encode(["summer hat"]))
    read = torch.cat([table[:length][-7:], sentence])
    user = trained.model.user_encoder(history_of(read[None]))[0, -1]
    cosine = (unit(table) @ unit(user)).numpy()
    cosine[:length] = -np.inf
    found = trained.recommend(histories=[items], texts=["summer hat"], k=5)
    assert found["score"].to_numpy() == pytest.approx(np.sort(cosine)[::-1][:5], abs=1e-5)
    assert found["item_id"].to_list() == [f"i{n}" for n in np.argsort(-cosine)[:5]]
    assert found["source"].to_list() == ["model"] * 5


def test_a_text_may_stand_anywhere_in_a_history(trained):
    """The fields of item i9 in place of its id; known items of the history stay out, and i9 does not."""
    fields = trained.dataset.items.row(9, named=True)
    histories = {"a": ["i3", {name: fields[name] for name in ("title", "kind")}, "i5"], "b": ["i1"]}
    found = trained.recommend(histories=histories, k=30)
    expected = trained.recommend(histories={"a": ["i3", "i9", "i5"], "b": ["i1"]}, k=30, exclude_seen=False)
    expected = expected.filter(~((pl.col("user_id") == "a") & pl.col("item_id").is_in(["i3", "i5"])))
    expected = expected.filter(~((pl.col("user_id") == "b") & (pl.col("item_id") == "i1")))
    assert found["item_id"].to_list() == expected["item_id"].to_list()
    assert found["score"].to_numpy() == pytest.approx(expected["score"].to_numpy(), abs=1e-5)
    partly = trained.recommend(histories=[["gone", histories["a"][1], "i5", {"title": "red", "kind": "hat"}]],
                               texts=["old coat"], k=3, unknown="skip")  # fmt: skip
    whole = trained.recommend(histories=[[histories["a"][1], "i5", {"title": "red", "kind": "hat"}]],
                              texts=["old coat"], k=3)  # fmt: skip
    assert partly.drop("score").equals(whole.drop("score"))


def test_many_users_each_with_a_sentence_get_what_each_gets_alone(trained):
    histories = {"a": ["i3", "i4"], "b": [], "c": ["i9"] * 10, "d": ["i1"], "e": []}
    texts = ["red shoe", "old coat", None, {"title": "new", "kind": "hat"}, "title: big; kind: shoe"]
    together = trained.recommend(histories=histories, texts=texts, k=4)
    for (user, history), text in zip(histories.items(), texts, strict=True):
        alone = trained.recommend(histories={user: history}, texts=[text], k=4)
        own = together.filter(pl.col("user_id") == user)
        assert own["item_id"].to_list() == alone["item_id"].to_list()
        assert own["score"].to_numpy() == pytest.approx(alone["score"].to_numpy(), abs=1e-5)
    assert trained.recommend(texts=["red shoe", "old coat"], k=2)["user_id"].to_list() == [0, 0, 1, 1]
    logged = trained.recommend(["u3", "u5"], texts=["red shoe", None], k=4)
    assert logged[4:].drop("score").equals(trained.recommend(["u5"], k=4).drop("score"))
    assert set(trained.recommend(["u3"], k=30)["item_id"]) == set(
        trained.recommend(["u3"], texts=["red shoe"], k=30)["item_id"]
    ), "what the user has seen stays out"


def test_an_index_is_searched_with_sentences_too(trained, tmp_path):
    trained.save(tmp_path / "run")
    build_index(trained.scorer, trained.dataset, source=source_of(trained.run.table_path)).save(
        tmp_path / "run" / "index"
    )
    indexed = Recommender.load(tmp_path / "run")
    question = {"histories": [["i3"], [], []], "texts": ["red shoe", "old coat", None], "k": 4}
    assert indexed.recommend(**question).drop("score").equals(trained.recommend(**question).drop("score"))


def most_popular(recommender: Recommender, k: int) -> tuple[list[str], list[float]]:
    """Counted one by one; equal counts in catalogue order."""
    counts = [0] * recommender.dataset.num_items
    for position in np.flatnonzero(recommender.split.training):
        counts[recommender.dataset.item_index[position]] += 1
    best = sorted(range(len(counts)), key=lambda item: (-counts[item], item))[:k]
    return [recommender.dataset.item_ids[item] for item in best], [counts[item] for item in best]


def test_a_user_of_whom_nothing_is_known_gets_what_is_popular_and_it_is_called_so(trained):
    found = trained.recommend(histories={"known": ["i3"], "new": []}, k=3)
    assert found["source"].to_list() == ["model"] * 3 + ["popularity"] * 3
    items, counts = most_popular(trained, 3)
    assert found["item_id"][3:].to_list() == items
    assert found["score"][3:].to_list() == counts
    assert found[:3].equals(trained.recommend(histories={"known": ["i3"]}, k=3))
    only = trained.recommend(histories=[[]], k=3, items=["i29", items[2]])
    assert only["item_id"].to_list() == [items[2], "i29"], "a filter holds for what is popular as well"
    trained.add_items(pl.DataFrame({"item_id": ["new"], "title": ["summer hat"], "kind": ["hat"]}))
    everything = trained.recommend(histories=[[]], k=99)
    assert everything["item_id"][-1] == "new", "nobody has it yet"


def test_unknown_users_and_items_are_treated_as_asked(trained):
    items, _ = most_popular(trained, 2)
    found = trained.recommend(["u3", "nobody"], k=2, unknown="popularity")
    assert found["user_id"].to_list() == ["u3", "u3", "nobody", "nobody"]
    assert found["item_id"][2:].to_list() == items
    assert found[:2].equals(trained.recommend(["u3"], k=2))
    assert trained.recommend(["u3", "nobody"], k=2, unknown="skip").equals(trained.recommend(["u3"], k=2))
    partly = trained.recommend(histories={"a": ["i3", "gone"], "b": ["gone"]}, k=2, unknown="popularity")
    assert partly[:2].equals(trained.recommend(histories={"a": ["i3"]}, k=2))
    assert partly["item_id"][2:].to_list() == items
    both = trained.recommend(["nobody"], texts=["red hat"], k=2, unknown="skip")
    assert both["source"].to_list() == ["model", "model"], "a sentence is something known"
    with pytest.warns(HllmWarning, match="nothing is known of the 1"):
        assert trained.recommend(["nobody"], unknown="skip").is_empty()


def test_models_that_cannot_read_a_sentence_say_so(trained, tmp_path, interactions, items, id_recipe, monkeypatch):
    short = id_recipe.model_copy(update={"stages": (id_recipe.stages[0].model_copy(update={"epochs": 1}),)})
    by_id = Recommender.fit(interactions, items, recipe=short, out=tmp_path / "ids")
    with pytest.raises(ConfigError, match="knows items by id only and cannot read text; train one with an Item LLM"):
        by_id.recommend(texts=["red hat"])
    assert by_id.recommend(histories=[[]], k=2)["source"].to_list() == ["popularity"] * 2
    monkeypatch.setattr(type(trained.model), "reads_log", property(lambda _: True))
    with pytest.raises(DataError, match="reads when things happened or what was done, which a sentence does not say"):
        trained.recommend(texts=["red hat"])
    assert trained.recommend(histories=[[]], k=2)["source"].to_list() == ["popularity"] * 2, "there is nothing to read"
