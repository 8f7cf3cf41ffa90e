import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hllm.api import Recommender, fit_recipe
from hllm.errors import CheckpointError, ConfigError, DataError, MissingExtraError, TrainingError
from hllm.jobs.tuning.trials import read_trials
from hllm.jobs.tuning.tune import TuningResult, tune
from hllm.recipe.recipe import Recipe
from hllm.runs.run import Run, StopTraining
from hllm.training.fit import fit

SEARCH = """
trials = 3
[[space]]
key = "stages.0.learning_rate"
low = 1e-4
high = 1e-1
log = true
[[space]]
key = "model.user.num_layers"
choices = [1, 2]
"""


@pytest.fixture
def world(tmp_path, interactions, items) -> Path:
    """A folder with tables, a recipe that names them by relative paths, and a search file."""
    interactions.write_csv(tmp_path / "events.csv")
    items.write_parquet(tmp_path / "items.parquet")
    (tmp_path / "recipe.toml").write_text(
        'about = "a tiny SASRec"\nprecision = "fp32"\n'
        '[data]\ninteractions = "events.csv"\nitems = "items.parquet"\n[evaluation]\nbootstrap_samples = 50\n'
        '[model]\nmax_history = 8\n[model.item]\nkind = "id"\n[model.user]\nkind = "sasrec"\ndim = 8\nnum_heads = 2\n'
        '[[stages]]\nepochs = 3\nbatch_size = 8\nobjective.negatives.kind = "catalogue"\n'
    )
    (tmp_path / "search.toml").write_text(SEARCH)
    return tmp_path


def tuned(world, out="tuning", lines=None, **options):
    said = [] if lines is None else lines
    return tune(world / "recipe.toml", world / "search.toml", world / out, say=said.append, **options)


def test_trials_are_runs_compared_by_their_best_validation_value(world):
    lines = []
    result, done = tuned(world, lines=lines)
    assert [trial.number for trial in done] == [0, 1, 2]
    for trial in done:
        run = Run(world / "tuning" / "trials" / f"000{trial.number}")
        assert trial.value == max(e["ndcg@10"] for e in run.events() if e["event"] == "validation")
        stored = run.read_recipe()
        assert trial.overrides == {
            "stages.0.learning_rate": stored.stages[0].learning_rate,
            "model.user.num_layers": stored.model.user.num_layers,
        }
        assert (trial.state, trial.error, trial.seconds > 0) == ("complete", None, True)
    best = max(done, key=lambda trial: trial.value)
    assert result.best == best
    assert (result.complete, result.failed, result.trials) == (3, 0, 3)
    assert read_trials(world / "tuning") == done
    assert TuningResult.model_validate_json((world / "tuning" / "result.json").read_bytes()) == result
    assert len(lines) == 6
    assert lines[0].startswith("trial 0 (1 of 3): stages.0.learning_rate=")


def test_only_the_best_run_is_kept_whole(world):
    result, done = tuned(world)
    assert Recommender.load(result.best_run).recommend(users=["u1"], k=2).height == 2
    for trial in done:
        if trial != result.best:
            kept = {path.name for path in (world / "tuning" / "trials" / f"000{trial.number}").iterdir()}
            assert kept == {"recipe.json", "metrics.jsonl"}


def test_the_best_recipe_can_be_trained_from_any_folder(world, monkeypatch, tmp_path_factory):
    result, _ = tuned(world, trials=1)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    again = fit_recipe(world / "tuning" / "best.json", Path("again"))
    assert again.recipe.stages[0].learning_rate == result.best.overrides["stages.0.learning_rate"]
    assert max(e["ndcg@10"] for e in again.run.events() if e["event"] == "validation") == result.best.value


class Stopped(Exception):
    pass


@pytest.mark.parametrize("trials_done", [0, 1])
def test_a_tuning_stopped_in_a_trial_goes_on_as_if_it_had_not(world, monkeypatch, trials_done):
    """The stop is in the third epoch of a trial, whose checkpoint of the second is taken up again."""
    _, straight = tuned(world, "straight")
    log = Run.log

    def stop(self, event):
        log(self, event)
        if self.folder.name == f"000{trials_done}" and event["event"] == "step" and event["epoch"] == 2:
            raise Stopped

    monkeypatch.setattr(Run, "log", stop)
    with pytest.raises(Stopped):
        tuned(world)
    monkeypatch.undo()
    assert len(read_trials(world / "tuning")) == trials_done
    _, done = tuned(world)
    assert [(t.overrides, t.value) for t in done] == [(t.overrides, t.value) for t in straight]


def test_a_finished_tuning_is_not_done_again_but_can_be_prolonged(world):
    first, done = tuned(world, trials=2)
    assert tuned(world, trials=2) == (first, done)
    longer, more = tuned(world, trials=3)
    assert more[:2] == done
    assert longer.search == first.search
    with pytest.raises(ConfigError, match="holds 3 trials already, more than the 2 asked for"):
        tuned(world, trials=2)


def test_no_trial_begins_after_the_given_seconds(world, monkeypatch):
    clock = iter([0.0, 1.0, 9.0])
    monkeypatch.setattr("hllm.jobs.tuning.tune.time", SimpleNamespace(monotonic=lambda: next(clock)))
    result, done = tuned(world, seconds=5.0)
    assert (len(done), result.trials, result.complete) == (1, 3, 1)


def test_a_trial_that_fails_is_kept_with_its_message_and_the_others_go_on(world):
    (world / "search.toml").write_text(
        'trials = 6\n[[space]]\nkey = "model.user.num_heads"\nchoices = [2, 3]\n'  # 3 does not divide 8
    )
    lines = []
    result, done = tuned(world, lines=lines)
    failed = [trial for trial in done if trial.value is None]
    assert {trial.overrides["model.user.num_heads"] for trial in failed} == {3}
    assert all("ConfigError: " in t.error and "dim 8 is not a multiple of num_heads 3" in t.error for t in failed)
    assert (result.failed, result.complete) == (len(failed), 6 - len(failed))
    assert 0 < len(failed) < 6
    assert f"trial {failed[0].number} failed: {failed[0].error}" in lines


@pytest.mark.parametrize(
    ("raised", "kept"),
    [
        (TrainingError("collapsed"), "TrainingError: collapsed"),
        (torch.OutOfMemoryError("CUDA out of memory"), "OutOfMemoryError: CUDA out of memory"),
    ],
)
def test_when_all_trials_fail_the_first_message_is_the_tunings(world, monkeypatch, raised, kept):
    def fail(*arguments, **options):
        raise raised

    monkeypatch.setattr("hllm.jobs.tuning.tune.fit", fail)
    with pytest.raises(TrainingError, match=rf"all 3 trials failed, the first with {kept}; remove .*tuning to try"):
        tuned(world)
    assert [trial.error for trial in read_trials(world / "tuning")] == [kept] * 3


def test_what_no_trial_could_survive_ends_the_tuning(world, monkeypatch):
    """A fault of the data is not the trial's: it is not counted, and the same command tries again."""

    def fail(*arguments, **options):
        raise DataError("the table has changed")

    monkeypatch.setattr("hllm.jobs.tuning.tune.fit", fail)
    with pytest.raises(DataError, match="the table has changed"):
        tuned(world)
    monkeypatch.undo()
    assert tuned(world)[0].complete == 3


def test_max_steps_ends_a_trial_which_can_be_used(world):
    _, full = tuned(world, "full", trials=1)
    steps_per_epoch = Run(world / "full" / "trials" / "0000").events()[-1]["step"] // 3
    (world / "search.toml").write_text(f"max_steps = {2 * steps_per_epoch}\n" + SEARCH)
    result, (trial,) = tuned(world, trials=1)
    events = Run(world / "tuning" / "trials" / "0000").events()
    checks = [e for e in events if e["event"] == "validation"]
    assert [e["step"] for e in checks] == [steps_per_epoch, 2 * steps_per_epoch], "the budget's own validation counts"
    assert trial.value == max(e["ndcg@10"] for e in checks)
    assert trial.overrides == full[0].overrides
    assert result.max_steps == 2 * steps_per_epoch
    assert Recommender.load(result.best_run).evaluate().all_items["ndcg@10"].mean >= 0


@pytest.mark.parametrize("limit", ["max_steps = 1", "max_seconds_per_trial = 1e-9"])
def test_a_budget_without_room_for_a_validation_is_said(world, limit):
    (world / "search.toml").write_text(f"{limit}\n{SEARCH}")
    with pytest.raises(
        TrainingError, match=rf"stopped before the first validation: {limit.replace('1e-9', '1e-09')} of the search"
    ):
        tuned(world, trials=1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "learning_rate", "learning_rat",
            r"search\.toml does not fit the recipe, .*unknown key 'stages\.0\.learning_rat' \(did you mean 'learning_rate'",
        ),
        ("stages.0", "stages.4", r"does not fit the recipe, .*there is no '4' to go into"),
        ("[1, 2]", '["many", 2]', r"'model\.user\.num_layers': .*found 'many'"),
        ("low = 1e-4", "low = 1", r"low 1 is not below high 0\.1"),
        ("trials = 3", 'metric = "loss"', r"'metric': .*is not measured in validation; known: recall@10, recall@50, ndcg"),
    ],
)  # fmt: skip
def test_a_search_that_does_not_fit_is_refused_before_anything_is_made(world, old, new, message):
    (world / "search.toml").write_text(SEARCH.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        tuned(world)
    assert not (world / "tuning").exists()


def test_a_language_model_that_is_not_there_is_said_before_anything_is_made(world):
    text = (world / "recipe.toml").read_text()
    changed = text.replace('kind = "sasrec"\ndim = 8\nnum_heads = 2', 'kind = "llm"\nbackbone = "absent"')
    (world / "recipe.toml").write_text(changed)
    with pytest.raises(ConfigError, match=r"backbone 'absent' is neither a known model .* nor a directory"):
        tuned(world)
    assert not (world / "tuning").exists()


def test_another_search_recipe_or_data_in_the_same_directory_is_refused(world, interactions):
    tuned(world, trials=1)
    (world / "search.toml").write_text(SEARCH.replace("1e-4", "1e-5"))
    with pytest.raises(ConfigError, match=r"holds a tuning of another kind \(they differ in: search\); give another"):
        tuned(world)
    (world / "search.toml").write_text(SEARCH)
    with pytest.raises(ConfigError, match=r"differ in: recipe\)"):
        tuned(world, overrides=["seed=5"])
    interactions[:-1].write_csv(world / "events.csv")
    with pytest.raises(ConfigError, match=r"differ in: data\)"):
        tuned(world)


def test_a_directory_that_is_no_tuning_is_left_alone(world):
    (world / "mine").mkdir()
    (world / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(ConfigError, match="mine is not empty and holds no tuning; give another --out"):
        tuned(world, "mine")
    assert [path.name for path in (world / "mine").iterdir()] == ["thesis.txt"]


def test_a_damaged_directory_is_named(world):
    tuned(world, trials=1)
    (world / "tuning" / "tune.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tune\.json is damaged: .*restore it, or tune anew"):
        tuned(world)


def test_without_optuna_the_error_says_how_to_install_it(world, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r'hllm tune needs the package .*: pip install "hllm\[tune\]"'):
        tuned(world)


def test_two_searches_by_one_file_have_one_budget(world):
    """What is needed to compare two models: equal search, data, metric and trials; the recipes differ."""
    sasrec, _ = tuned(world, trials=1)
    other, _ = tuned(world, "other", trials=1, overrides=["model.user.dropout=0.0"])
    same = {"search", "data", "metric", "trials", "max_steps", "max_seconds_per_trial"}
    assert sasrec.model_dump(include=same) == other.model_dump(include=same)
    assert sasrec.recipe != other.recipe


def test_listeners_are_told_every_event_and_may_stop_the_run(tmp_path, interactions, items, id_recipe):
    told = []

    def listen(event):
        told.append(event)
        if event["event"] == "step" and event["epoch"] == 2:
            raise StopTraining("enough")

    run = fit(interactions, items, id_recipe, tmp_path / "run", base=tmp_path, listeners=(listen,))
    assert run.events() == json.loads(json.dumps(told))
    assert [e["epoch"] for e in told if e["event"] == "validation"] == [0, 1]
    assert Recommender.load(tmp_path / "run").recommend(users=["u1"], k=1).height == 1
    shutil.rmtree(tmp_path / "run")

    def stop_at_once(event):
        raise StopTraining("too soon")

    with pytest.raises(TrainingError, match="stopped before the first validation: too soon"):
        fit(interactions, items, id_recipe, tmp_path / "run", base=tmp_path, listeners=(stop_at_once,))


def test_a_recipe_may_be_json(tmp_path, id_recipe):
    (tmp_path / "recipe.json").write_text(id_recipe.model_dump_json())
    assert Recipe.from_toml(tmp_path / "recipe.json") == id_recipe
    changed = Recipe.from_toml(tmp_path / "recipe.json", ["seed=7"])
    assert changed == id_recipe.model_copy(update={"seed": 7})
    (tmp_path / "recipe.json").write_text("about = 'TOML'")
    with pytest.raises(ConfigError, match=r"recipe\.json is not valid JSON"):
        Recipe.from_toml(tmp_path / "recipe.json")


def test_no_trial_sees_the_test_part(world, monkeypatch):
    """Not even the targets of the test part are looked up while a recipe is tuned, and no evaluation is counted."""
    from hllm.evaluation import evaluate

    asked, real = [], evaluate.queries

    def watched(dataset, split, part, *others):
        asked.append(part)
        return real(dataset, split, part, *others)

    monkeypatch.setattr(evaluate, "queries", watched)
    result, _ = tuned(world, trials=1)
    assert set(asked) == {"validation"}
    assert not (Path(result.best_run) / "evaluations.jsonl").exists()
