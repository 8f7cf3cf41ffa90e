"""hllm evaluate stores ranks and counts test evaluations; hllm compare reads them."""

import json
import shutil

import pytest

from hllm.api import Recommender
from hllm.errors import CheckpointError, HllmWarning
from hllm.runs.results import log_evaluation, stored_ranks


@pytest.fixture(scope="module")
def folders(tmp_path_factory, trained_folder, interactions, items, id_recipe):
    """Three evaluated runs: the language models, SASRec, and SASRec on another split."""
    base = tmp_path_factory.mktemp("compare")
    shutil.copytree(trained_folder, base / "hllm")
    stage = id_recipe.stages[0].model_copy(update={"epochs": 2})
    short = id_recipe.model_copy(update={"stages": (stage,)})
    Recommender.fit(interactions, items, recipe=short, out=base / "sasrec")
    other = short.model_copy(update={"split": short.split.model_copy(update={"min_length": 8})})
    Recommender.fit(interactions, items, recipe=other, out=base / "longer")
    return base


@pytest.fixture
def evaluated(hllm, folders):
    for name in ("hllm", "sasrec", "longer"):
        if not (folders / name / "ranks-test.parquet").exists():
            code, _, error = hllm("evaluate", "--run", folders / name, "--baselines", "popularity")
            assert code == 0, error
    return folders


def test_two_runs_and_a_baseline_stand_in_one_table(hllm, evaluated):
    code, out, _ = hllm("compare", evaluated / "hllm", evaluated / "sasrec", f"{evaluated / 'hllm'}:popularity")
    assert code == 0
    for phrase in ("ndcg@10", "hllm:popularity", "sasrec", "best", "Holm", "split leave-one-out", "parameters"):
        assert phrase in out
    stored = json.loads((evaluated / "hllm" / "evaluation.json").read_text())
    code, out, _ = hllm("compare", evaluated / "hllm", evaluated / "sasrec", "--reference", "first", "--json")
    comparison = json.loads(out)
    rows = comparison["tables"][0]["rows"]
    assert rows[0]["value"] == stored[-1]["all_items"]["ndcg@10"], "the stored ranks give the printed numbers"
    assert (rows[0]["test"], rows[1]["test"]["against"]) == (None, "hllm")


def test_a_run_evaluated_beside_another_is_named_like_a_baseline(hllm, evaluated, tmp_path):
    shutil.copytree(evaluated / "hllm", tmp_path / "first")
    code, _, error = hllm("evaluate", "--run", tmp_path / "first", "--against", evaluated / "sasrec", "--baselines", "")
    assert code == 0, error
    code, out, error = hllm("compare", tmp_path / "first", f"{tmp_path / 'first'}:sasrec", "--json")
    assert code == 0, error
    assert [row["name"] for row in json.loads(out)["tables"][0]["rows"]] == ["first", "first:sasrec"]


def test_other_splits_exit_with_2_and_the_difference(hllm, evaluated):
    runs = (evaluated / "sasrec", evaluated / "longer")
    code, out, err = hllm("compare", *runs)
    assert (code, out) == (2, "")
    assert "ConfigError: sasrec and longer were made under different protocols: " in err
    assert "split_options.min_length (3 and 8), split_fingerprint (" in err
    code, out, _ = hllm("compare", *runs, "--force")
    assert (code, "MIXED PROTOCOLS, forced: longer differs in split_options.min_length (3 and 8)" in out) == (0, True)


@pytest.mark.parametrize(
    ("flag", "first"), [("--csv", "name,metric,slice"), ("--markdown", "| recommender |"), ("--latex", "% ")]
)
def test_formats(hllm, evaluated, flag, first):
    code, out, _ = hllm("compare", evaluated / "hllm", evaluated / "sasrec", flag)
    assert (code, out.startswith(first)) == (0, True)


def test_wrong_input_exits_with_2(hllm, evaluated, tmp_path):
    code, _, err = hllm("compare", evaluated / "hllm", evaluated / "sasrec", "--csv", "--latex")
    assert (code, "give at most one of --json, --csv, --markdown and --latex" in err) == (2, True)
    code, _, err = hllm("compare", evaluated / "hllm", tmp_path)
    assert (code, "has no stored ranks of the test part; make them with hllm evaluate --run" in err) == (2, True)
    code, _, err = hllm("compare", f"{evaluated / 'hllm'}:markov", evaluated / "hllm")
    assert (code, "has no ranks of 'markov'; known: popularity, hllm" in err) == (2, True)


def test_every_test_evaluation_is_counted(hllm, folders, tmp_path):
    run = tmp_path / "counted"
    shutil.copytree(folders / "sasrec", run, ignore=shutil.ignore_patterns("evaluations.jsonl"))
    for times, part in ((1, "test"), (1, "validation"), (2, "test")):
        code, out, _ = hllm("evaluate", "--run", run, "--baselines", "", "--part", part)
        assert (code, f"evaluations of this split's test part: {times}" in out) == (0, True)
    assert Recommender.load(run).evaluate().facts.test_evaluations == 3
    assert (run / "ranks-validation.parquet").exists()


def test_facts_of_a_run(folders):
    recommender = Recommender.load(folders / "sasrec")
    facts = recommender.evaluate(part="validation").facts
    validations = [event for event in recommender.run.events() if event["event"] == "validation"]
    best = max(validations, key=lambda event: event["ndcg@10"])
    assert (facts.epochs, facts.epochs_to_best) == (2, best["epoch"] + 1)
    assert facts.num_parameters == sum(p.numel() for p in recommender.model.parameters())
    assert (facts.max_history, facts.seed) == (8, 1)
    assert facts.training == "info-nce against catalogue negatives"
    assert facts.training_s > 0


def test_ranks_of_an_earlier_checkpoint_are_refused(evaluated, tmp_path):
    shutil.copytree(evaluated / "sasrec", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "best")
    shutil.copytree(evaluated / "longer" / "checkpoints" / "best", tmp_path / "run" / "checkpoints" / "best")
    with pytest.raises(CheckpointError, match="are of an earlier checkpoint of the run; run hllm evaluate --run"):
        stored_ranks(str(tmp_path / "run"), "test")


def test_a_run_that_cannot_be_written_to_is_evaluated_all_the_same(folders, tmp_path):
    recommender = Recommender.load(folders / "sasrec")
    (tmp_path / "evaluations.jsonl").mkdir()
    run = type(recommender.run)(tmp_path)
    with pytest.warns(HllmWarning, match=r"evaluations\.jsonl cannot be written .*: this evaluation is not counted"):
        log_evaluation(run, "test", recommender.split)
