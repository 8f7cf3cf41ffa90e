"""A bundle never changes: what is added or cut makes a new one, and the old one answers as before."""

import dataclasses

import polars as pl
import pytest

import hllm.embedding.texts as texts
from hllm.api import Recommender
from hllm.errors import ConfigError
from hllm.retrieval.index.retriever import build_index, source_of
from hllm.runs.bundle import open_run
from hllm.runs.run import Run

NEW = pl.DataFrame({"item_id": ["new"], "title": ["summer hat"], "kind": ["hat"]})
NEWER = NEW.with_columns(item_id=pl.lit("newer"))


def lists(bundle, k: int = 40) -> pl.DataFrame:
    return Recommender(bundle).recommend(["u2", "u3"], k=k)


def test_added_items_make_a_new_bundle_and_the_old_one_answers_as_before(trained_folder):
    old = open_run(Run(trained_folder))
    before = lists(old)
    new = old.with_items(NEW)
    newer = new.with_items(NEWER)
    assert [bundle.dataset.num_items for bundle in (old, new, newer)] == [30, 31, 32]
    assert [bundle.scorer.num_items for bundle in (old, new, newer)] == [30, 31, 32]
    assert [bundle.grown for bundle in (old, new, newer)] == [False, True, True]
    assert lists(old).equals(before)
    assert {"new"} <= set(lists(new)["item_id"])
    assert {"new", "newer"} <= set(lists(newer)["item_id"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        old.dataset = new.dataset


def test_the_index_of_the_old_bundle_stays_too(trained, tmp_path):
    trained.save(tmp_path / "run")
    built = build_index(trained.scorer, trained.dataset, source=source_of(trained.run.table_path))
    built.save(tmp_path / "run" / "index")
    old = open_run(Run(tmp_path / "run"))
    new = old.with_items(NEW)
    newer = new.with_items(NEWER)
    assert [bundle.index.num_items for bundle in (old, new, newer)] == [30, 31, 32]
    assert "newer" not in lists(new)["item_id"]
    assert new.at(None).index is new.index, "the one on disk lacks the item"


def test_the_tokenizer_is_opened_once_and_only_for_texts(trained_folder, monkeypatch):
    opened = []
    load = texts.load_tokenizer
    monkeypatch.setattr(texts, "load_tokenizer", lambda *asked, **more: opened.append(asked) or load(*asked, **more))
    recommender = Recommender.load(trained_folder)
    recommender.recommend(["u1"], k=2)
    assert not opened
    recommender.add_items(NEW)
    recommender.recommend(texts=["red hat"], k=2)
    recommender.at(4).similar(texts=["red hat"], k=2)
    assert len(opened) == 1


def test_a_model_of_ids_has_no_reader(tmp_path, interactions, items, id_recipe):
    short = id_recipe.model_copy(update={"stages": (id_recipe.stages[0].model_copy(update={"epochs": 1}),)})
    bundle = Recommender.fit(interactions, items, recipe=short, out=tmp_path / "run").bundle
    with pytest.raises(ConfigError, match="knows items by id only and cannot read text"):
        bundle.with_items(NEW)
