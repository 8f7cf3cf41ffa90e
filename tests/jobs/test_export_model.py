import json
import shutil

import pytest
import torch

from hllm import artifacts
from hllm.api import Recommender
from hllm.errors import CheckpointError, ConfigError, DataError
from hllm.jobs.evaluate_ranking import evaluate_rankers
from hllm.jobs.export_model import export_model
from hllm.models.checkpoint import load_weights
from hllm.runs.run import Run
from hllm.runs.tables import embed_run_items
from hllm.training.fit import fit
from tests.training.test_ranking import rated, recipe_of, values  # noqa: F401, a fixture


@pytest.fixture(scope="module")
def exported(tmp_path_factory, trained_folder):
    """Both exports, by what the weights are in, with their reports."""
    folder = tmp_path_factory.mktemp("exports")
    return {name: (folder / name, export_model(trained_folder, folder / name, name)) for name in ("bf16", "int8")}


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_an_export_is_a_complete_run(exported, trained_folder, weights, tmp_path):
    path = tmp_path / "elsewhere"
    shutil.copytree(exported[weights][0], path)
    export, trained = Recommender.load(path), Recommender.load(trained_folder)
    assert export.recommend(["u3"], k=5).height == 5
    assert 0 < export.run.position().step <= trained.run.position().step
    assert export.evaluate(part="test").protocol == trained.evaluate(part="test").protocol
    assert embed_run_items(Run(path), tmp_path / "items").num_rows == 30
    assert embed_run_items(Run(path), tmp_path / "items").num_encoded == 0
    cosine = torch.nn.functional.cosine_similarity(export.scorer.table, trained.scorer.table)
    assert cosine.min() > 0.999
    assert not torch.equal(export.scorer.table, trained.scorer.table)


def test_the_manifest_has_both_runs_numbers_on_the_same_targets(exported, trained_folder, read_manifest):
    path, report = exported["int8"]
    assert read_manifest(path)["details"]["export"] == json.loads(report.model_dump_json())
    expected = Recommender.load(trained_folder).evaluate(part="validation").all_items["ndcg@10"]
    theirs = Recommender.load(path).evaluate(part="validation").all_items["ndcg@10"]
    fp32, int8 = report.comparison.tables[0].rows
    assert (fp32.name, fp32.value) == ("fp32", expected)
    assert (int8.name, int8.value) == ("int8", theirs)
    assert int8.test.against == "fp32"
    assert int8.test.difference.mean == pytest.approx(theirs.mean - expected.mean)
    assert report.loss == pytest.approx((expected.mean - theirs.mean) / expected.mean)


def test_sizes_are_those_of_the_files(exported, trained_folder):
    full = sum(file.stat().st_size for file in Run(trained_folder).best_path.glob("*.safetensors"))
    for path, report in exported.values():
        size = sum(file.stat().st_size for file in Run(path).best_path.glob("*.safetensors"))
        assert (report.weights_on_disk.before, report.weights_on_disk.after) == (full, size)
        assert report.in_memory.before == report.in_memory.after > 0
    bf16, int8 = (exported[name][1].weights_on_disk.after for name in ("bf16", "int8"))
    assert int8 < bf16 < full


def test_an_export_that_loses_too_much_is_not_written(trained_folder, tmp_path, monkeypatch):
    """Weights that are all steps of the largest one away from themselves: one bit instead of eight."""
    monkeypatch.setattr("hllm.models.compact._STEPS", 1)
    with pytest.raises(ConfigError, match=r"in int8 the model loses .*% of ndcg@10 on the validation part .* nothing"):
        export_model(trained_folder, tmp_path / "out", "int8", max_loss=0.0)
    assert not list(tmp_path.iterdir())


def test_an_export_is_not_trained_further(exported, interactions, items, recipe, tmp_path):
    path = exported["int8"][0]
    with pytest.raises(ConfigError, match="is an export with its weights in int8, which cannot be trained further"):
        fit(interactions, items, recipe, path, base=tmp_path)
    with pytest.raises(CheckpointError, match="holds weights in int8, made by hllm export-model for use, not for"):
        load_weights(Recommender.load(path).model, Run(path).best_path)
    with pytest.raises(ConfigError, match="lost digits; take the run that it was exported from"):
        export_model(path, tmp_path / "again", "bf16")


def test_an_export_does_not_replace_anything(exported, trained_folder):
    with pytest.raises(ConfigError, match="exists already; give a new directory"):
        export_model(trained_folder, exported["int8"][0], "int8")


def test_a_run_of_ids_is_exported_too(tmp_path, interactions, items, id_recipe):
    stage = id_recipe.stages[0].model_copy(update={"epochs": 1})
    run = fit(interactions, items, id_recipe.model_copy(update={"stages": (stage,)}), tmp_path / "run", base=tmp_path)
    report = export_model(run.folder, tmp_path / "int8", "int8")
    assert report.weights_on_disk.after < report.weights_on_disk.before
    assert Recommender.load(tmp_path / "int8").recommend(["u1"], k=3).height == 3
    assert "weights" not in artifacts.read_manifest(run.best_path, "checkpoint").details


@pytest.mark.parametrize(
    ("user", "select_by", "has_comparison"),
    [("din", "auc", False), ("sasrec", "gauc", True), ("sasrec", "ndcg@10", True)],
)
def test_a_run_that_ranks_is_measured_by_its_candidates(
    tmp_path,
    rated,  # noqa: F811
    items,
    tiny_bert,
    tiny_llama,
    user,
    select_by,
    has_comparison,
):
    """Exports were compared as retrievers only: "unknown metric 'auc'" after all the work, and DIN not at all."""
    given = values(tiny_bert, tiny_llama, labelled=True, user=user, fusion="early") | {"select_by": select_by}
    if user == "din":
        given["stages"][0]["terms"] = []
    run = fit(rated, items, recipe_of(given), tmp_path / "run", base=tmp_path)
    report = export_model(run.folder, tmp_path / "int8", "int8")
    assert (report.comparison is not None) == has_comparison
    own, theirs = (
        evaluate_rankers({"x": Recommender.load(path)}, part="validation")[0].targets["like"].metrics
        for path in (run.folder, tmp_path / "int8")
    )
    assert [each.targets["like"].metrics for each in report.ranking] == [own, theirs]
    assert "target like:" in str(report)
    if select_by != "ndcg@10":
        assert report.selected_by == (own[select_by].mean, theirs[select_by].mean)
        assert report.loss == pytest.approx(1 - theirs[select_by].mean / own[select_by].mean)
    assert "recall@50" not in str(report) or has_comparison


def test_a_part_without_the_metric_is_refused_before_any_work(
    tmp_path,
    rated,  # noqa: F811
    items,
    tiny_bert,
    tiny_llama,
    monkeypatch,
):
    given = values(tiny_bert, tiny_llama, labelled=True, user="din", fusion="early")
    given["stages"][0] |= {"epochs": 1, "terms": []}
    run = fit(rated, items, recipe_of(given), tmp_path / "run", base=tmp_path)
    of_auc = evaluate_rankers({"fp32": Recommender.load(run.folder)})[0]
    target = of_auc.targets["like"]
    without = target.model_copy(update={"metrics": {k: v for k, v in target.metrics.items() if k != "auc"}})
    monkeypatch.setattr(
        "hllm.jobs.export_model.evaluate_rankers",
        lambda *_, **__: [of_auc.model_copy(update={"targets": {"like": without}})],
    )
    with pytest.raises(DataError, match="target 'like' has no auc on the test part, by which the run was selected"):
        export_model(run.folder, tmp_path / "out", "int8", part="test")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
