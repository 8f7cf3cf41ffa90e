import hashlib
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from hllm.api import Recommender
from hllm.data.build import build_dataset
from hllm.data.schema import DataConfig
from hllm.errors import CheckpointError, ConfigError, DataError, HllmWarning
from hllm.jobs.evaluate import evaluate_all
from hllm.retrieval.histories import Histories
from hllm.retrieval.scorer import POSITIONS_PER_BATCH, ModelScorer
from tests.conftest import history_of
from tests.test_artifacts import disk_of

NEW = pl.DataFrame({"item_id": ["new"], "title": ["summer hat"], "kind": ["hat"]})


def test_recommendations_carry_the_callers_ids(trained):
    frame = trained.recommend(users=["u3", "u0"], k=4)
    assert frame.columns == ["user_id", "item_id", "score", "rank", "source"]
    assert frame["source"].unique().to_list() == ["model"]
    assert frame["user_id"].to_list() == ["u3"] * 4 + ["u0"] * 4
    assert frame["rank"].to_list() == [1, 2, 3, 4] * 2
    assert set(frame["item_id"]) <= set(trained.dataset.item_ids)
    for _, rows in frame.group_by("user_id"):
        assert rows["score"].is_sorted(descending=True)
        assert rows["item_id"].n_unique() == 4


@torch.no_grad()
def test_scores_against_the_two_tiers_by_hand(trained):
    """Encode the catalogue and one history directly and rank by cosine; the frame must say the same."""
    history = trained.dataset.history(5)[-trained.recipe.model.max_history :].copy()
    table = torch.from_numpy(trained.encode(trained.dataset.items.select("title", "kind").to_dicts()))
    one = history_of(table[torch.from_numpy(history)][None])
    user = trained.model.user_encoder(one)[0, -1]
    cosine = torch.cosine_similarity(user[None], table).numpy()
    cosine[trained.dataset.history(5)] = -np.inf
    best = np.argsort(-cosine)[:5]
    frame = trained.recommend(users=["u5"], k=5)
    assert frame["item_id"].to_list() == [f"i{i}" for i in best]
    assert frame["score"].to_numpy() == pytest.approx(cosine[best], abs=1e-5)


def test_histories_of_like_length_are_read_together_within_the_budget(trained, monkeypatch):
    """In batches of 16 positions, padding included; the vectors are those of each history by itself."""
    histories = Histories([trained.dataset.history(n)[:length] for n, length in enumerate([3, 8, 1, 0, 2, 8, 6, 3, 1])])
    alone = torch.cat([trained.scorer.users(Histories([history])) for history in histories])
    read, shapes = ModelScorer.read, []

    def noting(self, all_histories, users):
        history = read(self, all_histories, users)
        shapes.append(tuple(history.mask.shape))
        return history

    monkeypatch.setattr(ModelScorer, "read", noting)
    monkeypatch.setitem(POSITIONS_PER_BATCH, "cpu", 16)
    together = trained.scorer.users(histories)
    assert torch.allclose(together, alone, rtol=0, atol=1e-6)
    assert not together[3].any()
    assert shapes == [(2, 8), (2, 6), (4, 3)]


def test_seen_items_are_left_out_unless_asked_for(trained):
    seen = {f"i{i}" for i in trained.dataset.history(0)}
    everything = trained.recommend(users=["u0"], k=30)
    assert seen.isdisjoint(everything["item_id"])
    assert len(everything) == 30 - len(seen), "fewer rows than asked for when fewer items are left"
    assert len(trained.recommend(users=["u0"], k=30, exclude_seen=False)) == 30


def test_only_the_given_items_are_recommended(trained):
    frame = trained.recommend(users=["u0"], k=5, items=["i20", "i21", "i22"])
    assert sorted(frame["item_id"]) == ["i20", "i21", "i22"]


def test_histories_stand_for_users(trained):
    stored = [f"i{i}" for i in trained.dataset.history(4)]
    by_user = trained.recommend(users=["u4"], k=5)
    by_history = trained.recommend(histories={"me": stored}, k=5)
    assert by_history.drop("user_id").equals(by_user.drop("user_id"))
    assert by_history["user_id"].unique().to_list() == ["me"]
    listed = trained.recommend(histories=[stored, []], k=5)
    assert listed.filter(listed["user_id"] == 0)["item_id"].to_list() == by_user["item_id"].to_list()
    assert len(listed.filter(listed["user_id"] == 1)) == 5, "someone without history gets a list too"


def test_all_users_are_the_default(trained):
    assert trained.recommend(k=1)["user_id"].to_list() == trained.dataset.users.to_list()


def test_a_cold_item_is_recommended_after_it_is_embedded(trained):
    """The new item gets the text of the user's best item, so it must stand level with that one."""
    best = trained.recommend(users=["u2"], k=1)["item_id"][0]
    text = trained.dataset.items.filter(pl.col("item_id") == best).with_columns(item_id=pl.lit("new"))
    with pytest.raises(DataError, match="1 of 1 items asked for are not in the catalogue"):
        trained.similar(items=["new"])
    trained.add_items(text)
    top = trained.recommend(users=["u2"], k=2)
    assert set(top["item_id"]) == {best, "new"}
    assert top["score"][0] == pytest.approx(top["score"][1], abs=1e-5)
    assert trained.similar(items=["new"], k=1)["item_id"][0] == best


def test_adding_a_wrong_item_changes_nothing(trained):
    before = trained.recommend(users=["u2"], k=3)
    for wrong, message in (
        (NEW.with_columns(item_id=pl.lit("i1")), "are in the catalogue already"),
        (NEW.with_columns(title=pl.lit(" "), kind=pl.lit(None)), "have no text"),
    ):
        with pytest.raises(DataError, match=message):
            trained.add_items(wrong)
    assert trained.dataset.num_items == 30
    assert trained.recommend(users=["u2"], k=3).equals(before)


def test_the_audience_of_a_new_item_is_where_it_would_rank_best(trained):
    """Against adding the item and reading off its place in every user's full list."""
    audience = trained.audience({"title": "summer hat", "kind": "hat"}, k=12)
    trained.add_items(NEW)
    lists = trained.recommend(k=31)
    places = dict(lists.filter(pl.col("item_id") == "new").select("user_id", "rank").rows())
    assert dict(audience.select("user_id", "rank").rows()) == places
    assert audience["rank"].is_sorted()


@pytest.fixture
def own(trained_folder, tmp_path) -> Recommender:
    """A copy that a test may write to."""
    shutil.copytree(trained_folder, tmp_path / "own", ignore=shutil.ignore_patterns("user-table"))
    return Recommender.load(tmp_path / "own")


@pytest.fixture
def histories_read(monkeypatch) -> list[int]:
    """How many histories each call of the user tier got."""
    users, counts = ModelScorer.users, []
    monkeypatch.setattr(ModelScorer, "users", lambda self, read: counts.append(len(read)) or users(self, read))
    return counts


def test_the_second_audience_reads_no_history_again(own, histories_read):
    text = {"title": "summer hat", "kind": "hat"}
    first = own.audience(text, k=12)
    assert histories_read == [12]
    assert own.audience(text, k=12).equals(first)
    assert Recommender.load(own.run.folder).audience(text, k=12).equals(first)
    assert histories_read == [12]
    short = own.at(4).audience(text, k=12)
    own.add_items(NEW)
    assert own.audience(text, k=12)["user_id"].n_unique() == 12
    assert histories_read == [12, 12], "with more items than the run has, nothing is taken from it or put there"
    assert Recommender.load(own.run.folder).at(4).audience(text, k=12).equals(short)
    assert len(histories_read) == 2


def test_other_weights_or_a_damaged_table_make_the_users_vectors_anew(own, histories_read, tmp_path):
    text = {"title": "summer hat", "kind": "hat"}
    first = own.audience(text, k=12)
    (file,) = own.run.user_table_path.glob("*.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.warns(HllmWarning, match=r"is damaged: .* Its vectors are made again"):
        assert own.audience(text, k=12).equals(first)
    other = replace(own.bundle, origin=replace(own.bundle.origin, checkpoint="another"))
    assert Recommender(other).audience(text, k=12).equals(first)
    assert histories_read == [12, 12, 12]


def test_a_wrong_text_is_refused_before_any_history_is_read(own, histories_read):
    with pytest.raises(DataError, match="a new item needs text"):
        own.audience(" ")
    assert histories_read == []


def test_an_audience_is_found_where_nothing_can_be_written(own):
    expected = own.audience({"title": "summer hat", "kind": "hat"}, k=12)
    shutil.rmtree(own.run.user_table_path)
    with disk_of(100), pytest.warns(HllmWarning, match=r"the disk is full: .* vectors are not kept for the next call"):
        assert own.audience({"title": "summer hat", "kind": "hat"}, k=12).equals(expected)
    assert not own.run.user_table_path.exists()


def test_similar_items_against_cosines(trained):
    table = trained.encode(trained.dataset.items.select("title", "kind").to_dicts())
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    cosine = unit @ unit[7]
    cosine[7] = -np.inf
    frame = trained.similar(items=["i7"], k=3)
    assert frame["item_id"].to_list() == [f"i{i}" for i in np.argsort(-cosine)[:3]]
    assert frame["query"].to_list() == ["i7"] * 3
    by_text = trained.similar(texts=[trained.dataset.items.select("title", "kind").row(7, named=True)], k=1)
    assert by_text["item_id"][0] == "i7", "an item's own text finds the item"


def test_a_text_is_encoded_alike_in_every_form_and_company(trained):
    alone = trained.encode(["title: red shoe; kind: shoe"])
    fields = trained.encode([{"kind": "shoe", "title": "red shoe"}])
    company = trained.encode(["title: old old old old hat", "title: red shoe; kind: shoe", "new"])
    assert alone == pytest.approx(fields, abs=1e-6)
    assert company[1:2] == pytest.approx(alone, abs=1e-5)
    assert alone.shape == (1, 16)


def test_the_text_of_a_known_item_ranks_behind_that_item(trained):
    """Ties go to what is there already, in the audience as in the lists."""
    best = trained.recommend(users=["u2"], k=1)["item_id"][0]
    text = trained.dataset.items.filter(pl.col("item_id") == best).select("title", "kind").row(0, named=True)
    audience = trained.audience(text, k=12)
    assert audience.filter(audience["user_id"] == "u2")["rank"].item() == 2


def test_a_damaged_recipe_or_other_data_are_refused(trained_folder, tmp_path, trained):
    for name, change in (
        (
            "recipe",
            lambda run: (run / "recipe.json").write_text(
                (run / "recipe.json").read_text().replace('"max_history": 8', '"max_history": 9')
            ),
        ),
        ("dataset", lambda run: (shutil.rmtree(run / "dataset"), trained.dataset.extended(NEW).save(run / "dataset"))),
    ):
        shutil.copytree(trained_folder, tmp_path / name)
        change(tmp_path / name)
        with pytest.raises(CheckpointError, match=f"the {name} in .* is not the one its checkpoint was trained with"):
            Recommender.load(tmp_path / name)
    (tmp_path / "recipe" / "recipe.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"recipe\.json is damaged"):
        Recommender.load(tmp_path / "recipe")


def test_training_over_a_saved_copy_is_refused_or_does_nothing(trained, tmp_path, interactions, items, recipe):
    """A copy without the last checkpoint once looked untrained and was overwritten."""
    trained.save(tmp_path / "kept")
    with pytest.raises(ConfigError, match="holds a run of another recipe"):
        Recommender.fit(interactions, items, recipe=recipe.model_copy(update={"seed": 5}), out=tmp_path / "kept")
    again = Recommender.fit(interactions, items, recipe=recipe, out=tmp_path / "kept")
    assert again.recommend(k=3).equals(trained.recommend(k=3))
    trained.add_items(NEW)
    with pytest.raises(ConfigError, match="items added by add_items live in memory only"):
        trained.save(tmp_path / "other")


def test_a_saved_recommender_is_the_same_and_small(trained, tmp_path):
    trained.save(tmp_path / "kept")
    again = Recommender.load(tmp_path / "kept")
    assert again.recommend(k=5).equals(trained.recommend(k=5))
    assert not list((tmp_path / "kept").rglob("optimizer*"))
    with pytest.raises(ConfigError, match="exists already"):
        trained.save(tmp_path / "kept")


def test_fitting_without_a_folder_from_pandas(interactions, items, id_recipe):
    short = id_recipe.model_copy(update={"stages": (id_recipe.stages[0].model_copy(update={"epochs": 1}),)})
    recommender = Recommender.fit(interactions.to_pandas(), items.to_pandas(), recipe=short)
    folder = recommender.run.folder
    assert recommender.recommend(users=["u1"], k=2)["item_id"].len() == 2
    with pytest.raises(ConfigError, match="knows items by id only and cannot read text"):
        recommender.encode(["red shoe"])
    assert folder.exists()
    del recommender
    assert not folder.exists(), "a temporary run goes with its recommender"


def test_without_a_recipe_the_default_says_what_to_fetch(interactions, items, tmp_path, monkeypatch):
    monkeypatch.setenv("HLLM_HOME", str(tmp_path / "home"))
    with pytest.raises(ConfigError, match="smollm2-135m is not on this machine yet: hllm model fetch smollm2-135m"):
        Recommender.fit(interactions, items, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_integer_ids_come_back_as_integers(tmp_path, interactions, items, id_recipe):
    short = id_recipe.model_copy(update={"stages": (id_recipe.stages[0].model_copy(update={"epochs": 1}),)})
    numbered = items.with_columns(pl.col("item_id").str.slice(1).cast(pl.Int32))
    logged = interactions.with_columns(
        pl.col("item_id").str.slice(1).cast(pl.Int32), pl.col("user_id").str.slice(1).cast(pl.Int64)
    )
    recommender = Recommender.fit(logged, numbered, recipe=short, out=tmp_path / "run")
    frame = recommender.recommend(users=[3], k=2)
    assert frame.schema["item_id"] == pl.Int32
    assert frame["user_id"].to_list() == [3, 3]
    assert recommender.recommend(users=["3"], k=2)["item_id"].to_list() == frame["item_id"].to_list()


def test_models_and_baselines_stand_in_one_table(trained, tmp_path, interactions, items, id_recipe):
    other = Recommender.fit(interactions, items, recipe=id_recipe, out=tmp_path / "id")
    results = [each.result for each in evaluate_all({"hllm": trained, "sasrec": other}, ["popularity"])]
    assert [r.name for r in results] == ["popularity", "hllm", "sasrec"]
    assert {r.protocol.dataset for r in results} == {trained.dataset.fingerprint}
    assert all(math.isfinite(e.mean) for r in results for e in r.all_items.values())
    with pytest.raises(ConfigError, match=r"unknown baseline 'popularty' \(did you mean 'popularity'\?\)"):
        evaluate_all({"hllm": trained}, ["popularty"])


def test_other_protocols_do_not_stand_in_one_table(trained, tmp_path, interactions, items, id_recipe):
    shorter = Recommender.fit(interactions[:-3], items, recipe=id_recipe, out=tmp_path / "id")
    with pytest.raises(ConfigError, match=r"a and b were made under different protocols: dataset \("):
        evaluate_all({"a": trained, "b": shorter}, [])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r.recommend(users=["nobody"]), DataError, "1 of 1 users asked for are not in the interactions; first: 'nobody'"),
        (lambda r: r.recommend(histories=[["i1", "i99"]]), DataError, "1 of 2 items asked for are not in the catalogue; first: 'i99'"),
        (lambda r: r.recommend(users=["u1"], histories=[[]]), ConfigError, "give users or histories, not both"),
        (lambda r: r.recommend(histories=[]), DataError, "histories is empty"),
        (lambda r: r.recommend(k=0), ConfigError, "k is 0; it must be a whole number, at least 1"),
        (lambda r: r.recommend(users=["u1"], unknown="ignore"), ConfigError, "unknown is 'ignore'; expected one of 'error', 'skip', 'popularity'"),
        (lambda r: r.recommend(["u1", "u2"], texts=["red hat"]), ConfigError, "1 texts for 2 users; give one for each, None for a user without one"),
        (lambda r: r.recommend(texts="red hat"), ConfigError, "texts is the text 'red hat', expected a list"),
        (lambda r: r.recommend(texts=[" "]), DataError, "a new item needs text"),
        (lambda r: r.similar(), ConfigError, "give either items or texts"),
        (lambda r: r.encode([]), ConfigError, "texts is empty; expected a list with at least one text"),
        (lambda r: r.encode("red shoe"), ConfigError, "texts is the text 'red shoe', expected a list"),
        (lambda r: r.encode(["  "]), DataError, "a new item needs text"),
        (lambda r: r.audience({"titel": "x"}), DataError, r"unknown field 'titel' \(did you mean 'title'\?\)"),
    ],
)  # fmt: skip
def test_wrong_questions_are_explained(trained, call, error, message):
    with pytest.raises(error, match=message):
        call(trained)


def test_vectors_of_another_checkpoint_are_refused(trained_folder, tmp_path):
    shutil.copytree(trained_folder, tmp_path / "run")
    manifest = tmp_path / "run" / "table" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["sha256"]
    content["details"]["checkpoint"] = "0" * 64
    text = json.dumps(content, indent=1)
    sealed = hashlib.sha256(text.encode()).hexdigest()
    manifest.write_text(f'{text.removesuffix("}").rstrip()},\n "sha256": "{sealed}"\n}}')
    with pytest.raises(
        CheckpointError, match=r"were made by checkpoint 000000000000…, the model is .* make them again"
    ):
        Recommender.load(tmp_path / "run")


def test_validation_in_training_and_evaluation_afterwards_agree(trained):
    """No train/serve skew: the kept checkpoint's logged value is what the served model gets."""
    position = trained.run.resume_point()[0]
    assert trained.evaluate(part="validation").all_items["ndcg@10"].mean == pytest.approx(position.best, abs=1e-6)


def test_the_run_keeps_the_data_it_was_trained_on(trained, interactions, items):
    assert trained.dataset.fingerprint == build_dataset(interactions, items, DataConfig()).fingerprint
