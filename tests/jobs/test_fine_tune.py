"""Fine-tuning on the tiny world: the first part of the log and 26 items, then the rest and four new items."""

import json
import shutil
from dataclasses import replace

import polars as pl
import pytest
import torch

from hllm import records
from hllm.api import Recommender
from hllm.errors import CheckpointError, ConfigError, DataError, HllmWarning
from hllm.jobs.fine_tune import fine_tune, fine_tuning_recipe
from hllm.models.checkpoint import load_checkpoint, load_grown
from hllm.recipe.recipe import Recipe
from hllm.runs.bundle import open_run
from hllm.runs.run import Run
from hllm.training.fit import fit
from tests.conftest import recipe_values
from tests.training.test_ranking import rated, recipe_of, values  # noqa: F401, a fixture
from tests.training.test_resume import Killed, losses, stop_when


@pytest.fixture(scope="session")
def first(interactions) -> pl.DataFrame:
    return interactions.filter(pl.col("timestamp") < 700)


@pytest.fixture(scope="session")
def later(interactions) -> pl.DataFrame:
    """The rest of the log, a new user and a user of before with new items."""
    new = pl.DataFrame(
        {
            "user_id": ["u0", "new", "new", "new"],
            "item_id": ["i26", "i29", "i27", "i3"],
            "timestamp": [900, 901, 902, 903],
        }
    )
    return pl.concat([interactions.filter(pl.col("timestamp") >= 700), new])


def parents(kind: str, tiny_bert, tiny_llama, id_recipe) -> Recipe:
    values = recipe_values(tiny_bert, tiny_llama)
    if kind == "text and ids":
        values["model"]["inputs"] = {"item_id": True}
    if kind == "ids":
        values = id_recipe.model_dump(mode="json")
        values["stages"][0]["epochs"] = 3
    return Recipe.from_dict(values, where="test")


@pytest.fixture(scope="session", params=["text", "ids", "text and ids"])
def parent(request, tmp_path_factory, first, items, tiny_bert, tiny_llama, id_recipe) -> Run:
    folder = tmp_path_factory.mktemp("parent")
    return fit(first, items[:26], parents(request.param, tiny_bert, tiny_llama, id_recipe), folder / "run", base=folder)


@pytest.fixture(scope="session")
def straight(parent, tmp_path_factory, later, items) -> tuple[Run, object]:
    """The fine-tuned run that nothing stopped."""
    return fine_tune(parent, later, items[26:], tmp_path_factory.mktemp("straight") / "run", overrides=SETTINGS)


SETTINGS = ("stages.0.epochs=2", "checkpoints.every_steps=1")


def test_a_fine_tuned_run_is_an_ordinary_run_that_knows_its_parent(parent, straight):
    run, report = straight
    recommender, before = Recommender.load(run.folder), Recommender.load(parent.folder)
    manifests = [json.loads((each.best_path / "manifest.json").read_text())["details"] for each in (run, parent)]
    assert recommender.recipe.parent.checkpoint == open_run(parent).origin.checkpoint == report.parent
    assert recommender.recipe.parent.dataset == manifests[1]["dataset"] == before.dataset.fingerprint
    assert recommender.recipe.parent.recipe == manifests[1]["recipe"] == before.run.recipe_fingerprint
    assert recommender.dataset.item_ids.to_list() == [f"i{n}" for n in range(30)]
    assert recommender.dataset.users.to_list() == [*before.dataset.users, "new"]
    assert {"i26", "i29"} <= set(recommender.recommend(["u1"], k=30, exclude_seen=False)["item_id"])
    assert recommender.evaluate().all_items["recall@10"].mean >= 0
    assert records.read_sealed(run.folder / "drift.json", again="") == [report.model_dump(mode="json")]


def test_it_begins_with_the_parents_weights_and_new_rows_are_fresh(parent):
    """The first step's loss is taken before anything moves; so the weights are looked at as they are loaded."""
    kept = load_checkpoint(parent.best_path)[0].state_dict()
    torch.manual_seed(5)
    grown = load_grown(parent.best_path, parent.read_recipe().model, num_items=30, num_actions=0).state_dict()
    torch.manual_seed(6)
    again = load_grown(parent.best_path, parent.read_recipe().model, num_items=30, num_actions=0).state_dict()
    longer = {name for name, value in grown.items() if value.shape != kept[name].shape}
    assert longer <= {"item_encoder.embedding.weight", "fusion.items.weight"}
    for name, value in kept.items():
        assert torch.equal(grown[name][: len(value)] if value.dim() else grown[name], value), name
        if name in longer:
            assert not torch.equal(grown[name][26:], again[name][26:])
            assert 0.01 < grown[name][26:].std() < 0.03, "N(0, .02²), as before training"


def test_what_learns_is_what_learnt(parent, tiny_bert, tiny_llama):
    """The word embeddings of a pre-trained Item LLM stay: rebuilt from a checkpoint, they would have been trained."""
    model = load_grown(parent.best_path, parent.read_recipe().model, num_items=30, num_actions=0)
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert still == {name for name in still if "word_embeddings" in name or "embed_tokens" in name}
    has_words = any("word_embeddings" in name for name, _ in model.named_parameters())
    assert bool(still) == has_words


def test_the_whitening_of_the_parent_is_kept(parent, straight):
    kept, tuned = (load_checkpoint(run.best_path)[0].state_dict() for run in (parent, straight[0]))
    for name in ("item_encoder.projector.mean", "item_encoder.projector.whitening"):
        assert name not in kept or torch.equal(kept[name], tuned[name])


@pytest.mark.parametrize("event", [0, 2, 4, 7])
def test_a_kill_anywhere_changes_nothing(parent, straight, tmp_path, monkeypatch, later, items, event):
    """Each time in another way of asking: the stopped call is repeated as it was."""
    assert len(straight[0].events()) >= 6
    seen = []
    stop_when(monkeypatch, lambda found: seen.append(found) or len(seen) == min(event + 1, len(straight[0].events())))
    with pytest.raises(Killed):
        fine_tune(parent, later, items[26:], tmp_path / "run", overrides=SETTINGS)
    monkeypatch.undo()
    run, report = fine_tune(parent, later, items[26:], tmp_path / "run", overrides=SETTINGS)
    assert losses(run) == losses(straight[0])
    ours, expected = (load_checkpoint(each.best_path)[0].state_dict() for each in (run, straight[0]))
    assert all(torch.equal(value, expected[name]) for name, value in ours.items())
    assert report.drift == straight[1].drift


def test_a_finished_one_is_not_trained_again(parent, straight, later, items):
    run, report = straight
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    _, again = fine_tune(parent, later, items[26:], run.folder, overrides=SETTINGS)
    assert again == report
    assert before == {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}


def test_the_report_against_recommenders(parent, straight):
    """Before: what the parent says of its validation. Drift: the cosines of the two runs' own vectors."""
    run, report = straight
    before, after = Recommender.load(parent.folder), Recommender.load(run.folder)
    own = before.evaluate(part="validation").all_items
    assert report.all_targets.before == {
        name: pytest.approx(own[name].mean) for name in ("recall@10", "recall@50", "ndcg@10")
    }
    assert report.all_targets.num_targets == 12
    training = after.split.training
    users = after.dataset.user_rows(before.dataset.users)
    places = [after.dataset.offsets[users[n]] + len(before.dataset.history(n)) - 2 for n in range(12)]
    assert report.held_out_targets.num_targets == sum(not training[place] for place in places)
    ids = before.dataset.item_ids.to_list()
    vectors = [dict(zip(each.dataset.item_ids, each.scorer.table, strict=True)) for each in (before, after)]
    cosines = [float(torch.cosine_similarity(vectors[0][i], vectors[1][i], dim=0)) for i in ids]
    assert report.drift.cosine_mean == pytest.approx(sum(cosines) / 26, abs=1e-5)
    assert report.drift.worst[0].cosine == pytest.approx(min(cosines), abs=1e-5)
    assert report.drift.num_items == 26


def test_a_fine_tuned_run_can_be_fine_tuned(straight, tmp_path):
    more = pl.DataFrame({"user_id": ["new", "u5"], "item_id": ["i1", "i2"], "timestamp": [2000, 2001]})
    run, report = fine_tune(straight[0], more, None, tmp_path / "run")
    assert report.parent == open_run(straight[0]).origin.checkpoint
    assert len(Recommender.load(run.folder).dataset.preparation["added"]) == 2


def test_the_default_stage_is_the_last_one_once_at_a_quarter_of_its_rates(parent):
    opened = open_run(parent)
    last = opened.recipe.stages[-1]
    recipe = fine_tuning_recipe(opened, None, ("parent.known_items=update",))
    (stage,) = recipe.stages
    assert (stage.epochs, stage.learning_rate, stage.batch_size) == (1, last.learning_rate / 4, last.batch_size)
    assert (stage.negatives, stage.item_tier) == (last.negatives, last.item_tier)
    assert recipe.parent.known_items == "update"


def test_a_second_fine_tuning_refuses_other_texts_again(parent):
    """`known_items = "update"` of the first one was inherited: texts of a faulty table were taken without a word."""
    opened = open_run(parent)
    recipe = fine_tuning_recipe(opened, None, ("parent.known_items=update",))
    tuned = replace(opened, origin=replace(opened.origin, recipe=recipe))
    assert tuned.recipe.parent.known_items == "update"
    assert fine_tuning_recipe(tuned, None, ()).parent.known_items == "error"
    assert fine_tuning_recipe(tuned, None, ("parent.known_items=keep",)).parent.known_items == "keep"


def test_a_text_that_changes_is_marked_in_the_report(trained_folder, tmp_path):
    more = pl.DataFrame({"user_id": ["u1"], "item_id": ["i2"], "timestamp": [5000]})
    renamed = pl.DataFrame({"item_id": ["i2"], "title": ["summer summer hat new"], "kind": ["shoe"]})
    parent = Run(trained_folder)
    with pytest.raises(DataError, match="1 of 1 items are in the run's catalogue with another text"):
        fine_tune(parent, more, renamed, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run, report = fine_tune(parent, more, renamed, tmp_path / "run", overrides=("parent.known_items=update",))
    assert Recommender.load(run.folder).title_of(["i2"]) == ["summer summer hat new"]
    marked = [item.item_id for item in report.drift.worst if item.new_text]
    assert marked == ["i2"]
    assert "1 known items have another text" in report.lines()[0]


def test_a_recipe_of_another_model_is_refused(trained_folder, tmp_path, tiny_bert, tiny_llama):
    values = recipe_values(tiny_bert, tiny_llama)
    values["model"]["temperature"] = 0.1
    values["data"] = {"text_cols": ["title"]}
    (tmp_path / "other.json").write_text(json.dumps(values))
    message = r"other.json: model.temperature, data.text_cols must be as in .*trained, whose model goes on"
    with pytest.raises(ConfigError, match=message):
        fine_tuning_recipe(open_run(Run(trained_folder)), tmp_path / "other.json", ())
    values = recipe_values(tiny_bert, tiny_llama)
    values["seed"] = 7
    (tmp_path / "same.json").write_text(json.dumps(values))
    recipe = fine_tuning_recipe(open_run(Run(trained_folder)), tmp_path / "same.json", ())
    assert (recipe.seed, len(recipe.stages)) == (7, 2)


def test_another_directory_and_other_data_are_refused(trained_folder, tmp_path, later):
    parent = Run(trained_folder)
    with pytest.raises(ConfigError, match=r"holds a run of another recipe .they differ in: .*parent"):
        fine_tune(parent, later, None, trained_folder)
    more = pl.DataFrame({"user_id": ["u1", "u2"], "item_id": ["i2", "i3"], "timestamp": [5000, 5001]})
    fine_tune(parent, more, None, tmp_path / "run")
    with pytest.raises(DataError, match="was begun on other data"):
        fine_tune(parent, more[:1], None, tmp_path / "run")


def test_a_parent_that_is_damaged_or_not_finished_is_refused(trained_folder, tmp_path, later):
    shutil.copytree(trained_folder, tmp_path / "parent")
    file = tmp_path / "parent" / "checkpoints" / "best" / "user_encoder.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"user_encoder.safetensors is damaged"):
        fine_tune(Run(tmp_path / "parent"), later, None, tmp_path / "run")
    shutil.rmtree(tmp_path / "parent" / "table")
    with pytest.raises(CheckpointError, match="is not finished: it has no item vectors"):
        fine_tune(Run(tmp_path / "parent"), later, None, tmp_path / "run")


def test_training_refuses_a_recipe_that_has_a_parent(straight, tmp_path, interactions, items):
    with pytest.raises(ConfigError, match=r"goes on from another run \(it has a \[parent\]\): use hllm fine-tune"):
        fit(interactions, items, straight[0].read_recipe(), tmp_path / "run", base=tmp_path)


@pytest.fixture(scope="session")
def rankers(tmp_path_factory, rated, items, tiny_bert, tiny_llama) -> dict[str, Run]:  # noqa: F811
    """One that only ranks, and one that retrieves too, whose last stage is of next items alone."""
    given = {
        kind: values(tiny_bert, tiny_llama, labelled=True, user=kind, fusion="early") for kind in ("din", "sasrec")
    }
    given["din"]["stages"][0]["terms"] = []
    given["sasrec"]["stages"].append(
        {"name": "next", "epochs": 1, "batch_size": 8, "objective": {"negatives": {"kind": "catalogue"}}}
    )
    folder = tmp_path_factory.mktemp("rankers")
    return {kind: fit(rated, items, recipe_of(each), folder / kind, base=folder) for kind, each in given.items()}


MORE = {"user_id": ["u1", "u2"], "item_id": ["i2", "i3"], "timestamp": [5000, 5001], "rating": [1.0, 5.0]}


def test_a_run_of_din_is_fine_tuned(rankers, tmp_path):
    """Its report asked for vectors of users, which DIN does not make: after all of the training it failed, each time.
    The candidates of the parent's validation are scored instead."""
    run, report = fine_tune(rankers["din"], pl.DataFrame(MORE), None, tmp_path / "run")
    assert (report.all_targets, report.held_out_targets) == (None, None)
    found = [event for event in rankers["din"].events() if event["event"] == "validation"]
    best = max(found, key=lambda event: event["auc"])
    assert report.candidates.before == {name: pytest.approx(best[name], abs=1e-5) for name in report.candidates.before}
    assert set(report.candidates.before) == set(report.candidates.after) >= {"auc", "log_loss"}
    assert report.lines()[-1].startswith("their candidates scored:          ")
    assert records.read_sealed(run.folder / "drift.json", again="") == [report.model_dump(mode="json")]


def test_a_run_that_retrieves_and_ranks_reports_both(rankers, tmp_path):
    """Its last stage trains no heads, and as the only stage it was refused; the one before is taken."""
    run, report = fine_tune(rankers["sasrec"], pl.DataFrame(MORE), None, tmp_path / "run")
    (stage,) = run.read_recipe().stages
    assert (stage.objective.kind, stage.learning_rate, stage.epochs) == ("ranking", 1e-2 / 4, 1)
    assert {"recall@10"} <= set(report.all_targets.before)
    assert {"auc"} <= set(report.candidates.before)


def test_a_damaged_report_is_made_again(parent, straight, later, items, tmp_path):
    """One changed byte of drift.json was shown as it was, or ended in a traceback."""
    run, report = straight
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    text = (copy / "drift.json").read_text()
    for damaged in (text[:100], text.replace(": 0.", ": 0.9", 1)):
        (copy / "drift.json").write_text(damaged)
        with pytest.warns(HllmWarning, match=r"drift\.json is damaged: .*\. It is made again"):
            _, again = fine_tune(parent, later, items[26:], copy, overrides=SETTINGS)
        assert again == report
