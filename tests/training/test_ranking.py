"""Runs that rank, from tables to scores: training, validation, evaluation, candidates, retrieve-then-rank."""

import copy

import numpy as np
import polars as pl
import pytest
import torch

from hllm.api import Recommender
from hllm.data.build import build_dataset
from hllm.errors import ConfigError, DataError, HllmWarning, TrainingError
from hllm.evaluation.evaluate import evaluate, queries
from hllm.evaluation.impressions import evaluate_ranker, impressions
from hllm.jobs.evaluate import evaluate_all
from hllm.jobs.evaluate_ranking import evaluate_rankers
from hllm.ranking.ranker import ModelRanker
from hllm.ranking.two_stage import TwoStageRetriever
from hllm.recipe.recipe import Recipe
from hllm.retrieval.histories import Histories
from tests.conftest import recipe_values

RATIO = {"kind": "ratio", "validation_share": 0.25, "test_share": 0.25}


@pytest.fixture(scope="session")
def rated(interactions):
    """Items of odd number are liked; every fifth interaction has no rating."""
    number = interactions["item_id"].str.slice(1).cast(pl.Int64)
    rating = (number % 2 * 4 + 1).cast(pl.Float64)
    gaps = pl.Series(np.arange(len(interactions)) % 5 == 0)
    return interactions.with_columns(rating=pl.select(pl.when(gaps).then(None).otherwise(rating)).to_series())


def values(tiny_bert, tiny_llama, *, labelled, item="id", user="sasrec", **ranking) -> dict:
    given = recipe_values(tiny_bert, tiny_llama)
    if item == "id":
        given["model"]["item"] = {"kind": "id"}
        given["model"]["user"] = {"kind": user, "dim": 16}
    given["model"]["ranking"] = ({} if ranking.get("head") == "linear" else {"width": 16}) | ranking
    points = {"per_window": 4} | ({} if labelled else {"num_negatives": 3})
    stage = {"objective": {"kind": "ranking", "points": points},
             "terms": [{"kind": "next-item", "negatives": {"kind": "catalogue"}}],
             "epochs": 2, "batch_size": 8, "learning_rate": 1e-2}  # fmt: skip
    given["stages"] = [stage]
    given["select_by"] = "auc"
    given["evaluation"] = {"bootstrap_samples": 20, "ranking_negatives": 4}
    if labelled:
        given["data"] = {"targets": [{"name": "like", "column": "rating", "at_least": 4}]}
        given["split"] = RATIO
        given["model"]["ranking"]["targets"] = ["like"]
    return given


def recipe_of(given: dict) -> Recipe:
    return Recipe.from_dict(given, where="test")


@pytest.fixture(scope="session")
def labelled_recipe(tiny_bert, tiny_llama):
    given = values(tiny_bert, tiny_llama, labelled=True, fusion="early", head="mlp")
    given["stages"][0] |= {"epochs": 20, "batch_size": 3, "learning_rate": 3e-2}
    given["stages"][0]["terms"][0]["weight"] = 0.1
    return recipe_of(given)


@pytest.fixture(scope="session")
def ranking_folder(tmp_path_factory, rated, items, labelled_recipe):
    folder = tmp_path_factory.mktemp("runs") / "early"
    Recommender.fit(rated, items, recipe=labelled_recipe, out=folder)
    return folder


@pytest.fixture
def ranking(ranking_folder):
    return Recommender.load(ranking_folder)


def test_a_rule_of_the_labels_is_learnt(ranking):
    """Whether an item is liked depends on its number alone; items of the test occur in training."""
    (result,) = evaluate_rankers({"early": ranking})
    found = result.targets["like"]
    assert found.metrics["auc"].mean > 0.9
    assert found.metrics["auc"].low <= found.metrics["auc"].mean <= found.metrics["auc"].high
    assert set(found.metrics) == {"auc", "gauc", "log_loss", "calibration", "calibration_error"}
    assert result.protocol.candidates.startswith("each target by itself")
    assert result.facts.test_evaluations == 1


def test_the_impressions_of_a_part_are_its_labelled_targets(ranking):
    result = evaluate_ranker("x", ModelRanker(ranking.scorer), ranking.dataset, ranking.split, "test",
                             ranking.recipe.evaluation)  # fmt: skip
    labels = ranking.dataset.labels[ranking.split.test, 0]
    assert (labels == -1).any(), "the premise: some are not known"
    assert result.targets["like"].num_impressions == (labels != -1).sum()
    assert result.targets["like"].num_positive == (labels == 1).sum()


def test_the_validation_picks_the_best_auc(ranking):
    found = [event for event in ranking.run.events() if event["event"] == "validation"]
    assert len(found) == 20
    assert ranking.run.resume_point()[0].best == max(event["auc"] for event in found)
    assert "recall@10" not in found[0]
    steps = [event for event in ranking.run.events() if event["event"] == "step"]
    assert {"classification", "next_item", "top1"} <= set(steps[0])


@pytest.mark.parametrize("how", [{"fusion": "late", "head": "mixer"}, {"fusion": "early", "head": "linear"}])
def test_both_language_models_learn_from_sampled_negatives(tiny_bert, tiny_llama, interactions, items, how, tmp_path):
    given = values(tiny_bert, tiny_llama, labelled=False, item="llm", **how)
    frozen = copy.deepcopy(given["stages"][0]) | {"item_tier": "frozen", "epochs": 1}
    given["stages"] = [frozen, given["stages"][0] | {"epochs": 1, "micro_batch_size": 3, "gradient_cache": True}]
    run = Recommender.fit(interactions, items, recipe=recipe_of(given), out=tmp_path / "run")
    (result,) = evaluate_rankers({"run": run})
    assert set(result.targets) == {"next"}
    assert result.targets["next"].num_impressions == 12 * 5
    assert result.targets["next"].num_positive == 12
    assert "4 items drawn evenly" in result.protocol.candidates


def test_din_learns_and_does_not_retrieve(tiny_bert, tiny_llama, rated, items, tmp_path):
    given = values(tiny_bert, tiny_llama, labelled=True, user="din", fusion="early", head="linear")
    given["stages"][0] |= {"epochs": 20, "terms": []}
    run = Recommender.fit(rated, items, recipe=recipe_of(given), out=tmp_path / "run")
    assert evaluate_rankers({"din": run})[0].targets["like"].metrics["auc"].mean > 0.9
    with pytest.raises(ConfigError, match="makes no vector of a user"):
        run.recommend(["u1"])


@pytest.mark.reliability("training stopped")
def test_a_resumed_run_is_the_same(tiny_bert, tiny_llama, rated, items, tmp_path):
    """Stopped after the first epoch's checkpoint by a listener, against a run that was not."""
    from hllm.runs.run import Run
    from hllm.training.fit import fit

    recipe = recipe_of(values(tiny_bert, tiny_llama, labelled=True, fusion="late"))
    recipe = recipe.model_copy(update={"checkpoints": recipe.checkpoints.model_copy(update={"every_steps": 1})})
    whole = fit(rated, items, recipe, tmp_path / "whole", base=tmp_path)

    class Killed(Exception):
        pass

    def kill(event):
        if event["event"] == "step" and event["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        fit(rated, items, recipe, tmp_path / "cut", base=tmp_path, listeners=(kill,))
    again = fit(rated, items, recipe, tmp_path / "cut", base=tmp_path)
    assert isinstance(again, Run)

    def numbers(run):
        return [(e["step"], e["loss"]) for e in run.events() if e["event"] == "step"]

    assert numbers(again) == numbers(whole)


def test_sampled_impressions_are_the_same_every_time_and_never_met(dataset, tiny_bert, tiny_llama):
    recipe = recipe_of(values(tiny_bert, tiny_llama, labelled=False))
    from hllm.data.split import split_dataset

    split = split_dataset(dataset, recipe.split)
    one, two = (impressions(dataset, split, "test", ("next",), recipe.evaluation) for _ in range(2))
    asked = queries(dataset, split, "test")
    for user, target, first, second, labels in zip(asked.users, asked.targets, one.candidates, two.candidates,
                                                   one.labels, strict=True):  # fmt: skip
        assert first.tolist() == second.tolist()
        assert (first[0], labels[:, 0].tolist()) == (target, [1, 0, 0, 0, 0])
        assert not set(first[1:]) & set(dataset.history(user))
        assert len(set(first)) == 5


def test_candidates_come_back_by_the_users_own_ids_best_first(ranking):
    frame = ranking.rank(["i3", "i4", "i8", "i29"], ["u5", "u0"])
    assert frame.columns == ["user_id", "item_id", "score", "rank"]
    assert frame["user_id"].to_list() == ["u5"] * 4 + ["u0"] * 4
    assert sorted(frame["item_id"][:4]) == ["i29", "i3", "i4", "i8"]
    for part in (frame[:4], frame[4:]):
        assert part["rank"].to_list() == [1, 2, 3, 4]
        assert part["score"].is_sorted(descending=True)
    assert frame["score"].is_between(0, 1).all()


def test_candidates_are_scored_as_the_model_says(ranking):
    """Against one pass through the model by hand, for one user and item."""
    frame = ranking.rank({"u3": ["i7"]}, ["u3"])
    history = ranking.dataset.history(3)[-8:].copy()
    table = ranking.scorer.table
    sequence = torch.cat([table[torch.from_numpy(history)], table[7:8]])[None]
    mask = torch.ones(1, len(history) + 1, dtype=torch.bool)
    with torch.no_grad():
        state = ranking.model.user_encoder.after(
            ranking.model.history(sequence, mask, items=mask.long(), times=mask.long(), actions=mask.long())
        )
        expected = torch.sigmoid(ranking.model.ranker(state, table[7:8]))
    assert frame["score"][0] == pytest.approx(float(expected), abs=1e-6)


def test_histories_have_candidates_too_and_may_be_empty(ranking):
    frame = ranking.rank({"a": ["i1", "i2"], "b": ["i5"]}, histories={"a": ["i4", "i5"], "b": []})
    assert frame["user_id"].to_list() == ["a", "a", "b"]


def test_several_targets_have_a_column_each(tiny_bert, tiny_llama, rated, items, tmp_path):
    given = values(tiny_bert, tiny_llama, labelled=True)
    given["data"]["targets"].append({"name": "low", "column": "rating", "values": ["1.0"]})
    given["model"]["ranking"]["targets"] = ["low", "like"]
    run = Recommender.fit(rated, items, recipe=recipe_of(given), out=tmp_path / "run")
    frame = run.rank(["i1", "i2"], ["u0"], target="like")
    assert frame.columns == ["user_id", "item_id", "score", "score_low", "score_like", "rank"]
    assert frame["score"].to_list() == frame["score_like"].to_list()
    assert {"auc", "auc/low", "auc/like"} <= set(run.run.events()[-1])
    with pytest.raises(ConfigError, match=r"unknown target 'lik'; did you mean 'like'|unknown target 'lik'"):
        run.rank(["i1"], ["u0"], target="lik")


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], "the list of candidates is empty"),
        (["i1", "i1"], r"the list of candidates name 1 items twice; first: 'i1'"),
        (["i99"], "1 of 1 items asked for are not in the catalogue"),
        ({"u1": ["i1"]}, r"1 of 2 users have no candidates; first: 'u0'"),
    ],
)
def test_wrong_candidates_are_refused(ranking, candidates, message):
    with pytest.raises(DataError, match=message):
        ranking.rank(candidates, ["u0", "u1"])


def test_two_stages_are_evaluated_like_any_retriever(ranking):
    """Against sorting by hand: 5 retrieved items in the ranker's order."""
    two = TwoStageRetriever(ranking.retriever, ModelRanker(ranking.scorer), num_retrieved=5)
    result = evaluate("two", two, ranking.dataset, ranking.split, "test", ranking.recipe.evaluation)
    asked = queries(ranking.dataset, ranking.split, "test")
    first = ranking.retriever.recommend(asked.histories, 5, exclude=asked.histories).items
    hits = []
    for history, items, target in zip(asked.histories, first, asked.targets, strict=True):
        own = np.sort(items[items >= 0])
        logits = ModelRanker(ranking.scorer).logits(Histories([history]), [own])[0][:, 0]
        hits.append(target in own[np.argsort(-logits, kind="stable")][:5])
    assert result.all_items["recall@5"].mean == pytest.approx(np.mean(hits))
    both = two.recommend(asked.histories, 5, exclude=asked.histories).items
    assert [sorted(row) for row in both.tolist()] == [sorted(row) for row in first.tolist()]


def test_a_run_without_heads_does_not_rank(trained):
    with pytest.raises(ConfigError, match="no head that scores candidates"):
        trained.rank(["i1"], ["u0"])


@pytest.mark.filterwarnings("ignore:every label of target:hllm.errors.HllmWarning")
def test_a_split_of_one_class_cannot_be_validated(tiny_bert, tiny_llama, rated, items, tmp_path):
    given = values(tiny_bert, tiny_llama, labelled=True)
    given["data"]["targets"][0]["at_least"] = 0
    with pytest.raises(DataError, match=r"target 'like': \d+ of \d+ labelled impressions of the validation part"):
        Recommender.fit(rated, items, recipe=recipe_of(given), out=tmp_path / "run")
    assert not (tmp_path / "run").exists(), "it is found before anything is trained"


def test_gauc_needs_users_with_both_classes(tiny_bert, tiny_llama, rated, items, tmp_path):
    """Leave-one-out asks each user once."""
    given = values(tiny_bert, tiny_llama, labelled=True) | {"split": {}, "select_by": "gauc"}
    with pytest.raises(TrainingError, match=r"the validation has no gauc.*split.targets"):
        Recommender.fit(rated, items, recipe=recipe_of(given), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["model"].pop("ranking"), 'select_by = "auc" scores candidates: it needs the table model.ranking'),
        (lambda v: (v["model"].pop("ranking"), v.pop("select_by")), 'objective.kind = "ranking" needs the table'),
        (lambda v: v["stages"][0].update(objective={}, terms=[]), "has heads that no stage trains"),
        (lambda v: v["model"]["ranking"].update(targets=["lik"]), r"no \[\[data.targets\]\] table is named 'lik'"),
        (lambda v: v["data"]["targets"][0].update(name="next"), '"next" is the name of the target of sampled'),
        (lambda v: (v["model"].update(user={"kind": "din"}), v["model"]["ranking"].update(fusion="early")),
         "learns candidates alone"),
        (lambda v: (v["model"].update(user={"kind": "din"}), v["model"]["ranking"].update(fusion="early"),
                    v["stages"][0].update(terms=[]), v.pop("select_by")), "does not retrieve"),
    ],
)  # fmt: skip
def test_recipes_that_do_not_agree_are_refused(tiny_bert, tiny_llama, change, message):
    given = values(tiny_bert, tiny_llama, labelled=True)
    change(given)
    with pytest.raises(ConfigError, match=message):
        recipe_of(given)


def test_a_model_that_is_never_trained_to_retrieve_is_warned_of(tiny_bert, tiny_llama):
    given = values(tiny_bert, tiny_llama, labelled=True)
    given["stages"][0]["terms"] = []
    with pytest.warns(HllmWarning, match=r"no stage has the objective or the term .next-item.: .* not to retrieve"):
        recipe_of(given)
    given["stages"].append({"objective": {"negatives": {"kind": "catalogue"}}})
    assert len(recipe_of(given).stages) == 2, "and no warning, which would be an error"


def test_short_vectors_are_not_trained_without_the_next_item_loss(tiny_bert, tiny_llama):
    given = values(tiny_bert, tiny_llama, labelled=True)
    given["stages"][0]["objective"]["loss"] = {"matryoshka": [8]}
    with pytest.raises(ConfigError, match=r"unknown key .*objective\.loss"):
        recipe_of(given)


def test_labels_that_the_data_lack_are_named(dataset, tiny_bert, tiny_llama):
    from hllm.data.split import split_dataset

    recipe = recipe_of(values(tiny_bert, tiny_llama, labelled=True))
    with pytest.raises(
        DataError, match=r"the data have no label 'like', which model.ranking.targets names; they have: none"
    ):
        impressions(dataset, split_dataset(dataset, recipe.split), "test", ("like",), recipe.evaluation)


def test_protocols_that_differ_are_not_put_in_one_table(ranking, tiny_bert, tiny_llama, rated, items, tmp_path):
    given = values(tiny_bert, tiny_llama, labelled=True) | {"split": RATIO | {"test_share": 0.3}}
    other = Recommender.fit(rated, items, recipe=recipe_of(given), out=tmp_path / "other")
    with pytest.raises(ConfigError, match=r"early and other were made under different protocols: split_fingerprint"):
        evaluate_rankers({"early": ranking, "other": other})


def test_labels_do_not_change_what_is_retrieved_from(rated, items):
    """The premise of comparing: rated and unrated interactions are all in the history."""
    config = Recipe.from_dict(
        {"about": "x", "data": {"targets": [{"name": "l", "column": "rating", "at_least": 4}]},
         "model": {"item": {"kind": "id"}, "user": {"kind": "sasrec"}}, "stages": [{}]}, where="test")  # fmt: skip
    assert build_dataset(rated, items, config.data).num_interactions == len(rated)


def test_labels_do_not_keep_a_run_from_being_compared_in_retrieval(
    ranking, tiny_bert, tiny_llama, rated, items, tmp_path
):
    """Labels are part of the data's fingerprint, and once made every protocol of retrieval another one."""
    given = values(tiny_bert, tiny_llama, labelled=False)
    del given["model"]["ranking"]
    given["stages"][0]["objective"] = given["stages"][0].pop("terms")[0]
    recipe = recipe_of(given | {"split": RATIO, "select_by": "ndcg@10"})
    plain = Recommender.fit(rated, items, recipe=recipe, out=tmp_path / "plain")
    assert plain.dataset.fingerprint != ranking.dataset.fingerprint
    names = [each.result.name for each in evaluate_all({"plain": plain, "heads": ranking}, [], part="test")]
    assert names == ["plain", "heads"]


@pytest.mark.filterwarnings("ignore:every label of target:hllm.errors.HllmWarning")
def test_auc_is_only_watched_where_it_picks_nothing(tiny_bert, tiny_llama, rated, items, tmp_path):
    """A validation part whose labels are all alike once ended a run that is selected by another metric."""
    given = values(tiny_bert, tiny_llama, labelled=True) | {"select_by": "ndcg@10"}
    liked = rated.with_columns(rating=pl.lit(5.0))
    run = Recommender.fit(liked, items, recipe=recipe_of(given), out=tmp_path / "run").run
    validated = [event for event in run.events() if event["event"] == "validation"]
    assert validated
    assert not any("auc" in event for event in validated)
