import json
import math
import shutil

import pytest
import torch
from torch import nn

from hllm.api import Recommender
from hllm.errors import CheckpointError, ConfigError, DataError, TrainingError
from hllm.models.checkpoint import load_checkpoint
from hllm.training.alarm import PATIENCE, CollapseAlarm
from hllm.training.fit import fit
from hllm.training.optimizer import build_optimizer
from hllm.training.recipe import Recipe, StageConfig
from hllm.training.run import Run

from ..conftest import recipe_values


def losses(run: Run) -> list[float]:
    return [event["loss"] for event in run.events() if event["event"] == "step"]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.last)[0].state_dict()


class Stopped(Exception):
    pass


@pytest.mark.parametrize("epochs_done", [1, 2, 3])
def test_a_run_stopped_after_any_epoch_goes_on_as_if_it_had_not(
    tmp_path, monkeypatch, interactions, items, recipe, trained_folder, epochs_done
):
    """Stopped in the first stage, between the stages, and in the second one: same losses, same weights."""
    saved = []
    save = Run.log

    def log_then_stop(self, event):
        save(self, event)
        if event["event"] == "validation":
            saved.append(event)
        if event["event"] == "step" and len(saved) == epochs_done:
            raise Stopped  # in the middle of the next epoch

    monkeypatch.setattr(Run, "log", log_then_stop)
    with pytest.raises(Stopped):
        fit(interactions, items, recipe, tmp_path / "run", base=tmp_path)
    monkeypatch.undo()
    run = fit(interactions, items, recipe, tmp_path / "run", base=tmp_path)
    straight = Run(trained_folder)
    assert losses(run) == losses(straight)
    assert [e["step"] for e in run.events()] == [e["step"] for e in straight.events()]
    theirs = weights(straight)
    assert all(torch.equal(value, theirs[name]) for name, value in weights(run).items())


def test_dropout_too_is_the_same_after_a_stop(tmp_path, monkeypatch, interactions, items, id_recipe):
    short = id_recipe.model_copy(update={"stages": (id_recipe.stages[0].model_copy(update={"epochs": 3}),)})
    straight = fit(interactions, items, short, tmp_path / "straight", base=tmp_path)
    save = Run.log

    def stop_in_the_third_epoch(self, event):
        save(self, event)
        if event["event"] == "step" and event["epoch"] == 2:
            raise Stopped

    monkeypatch.setattr(Run, "log", stop_in_the_third_epoch)
    with pytest.raises(Stopped):
        fit(interactions, items, short, tmp_path / "run", base=tmp_path)
    monkeypatch.undo()
    assert losses(fit(interactions, items, short, tmp_path / "run", base=tmp_path)) == losses(straight)


def test_a_finished_run_is_not_trained_again(tmp_path, interactions, items, recipe, trained_folder):
    before = {p: p.stat().st_mtime_ns for p in trained_folder.rglob("*.safetensors")}
    fit(interactions, items, recipe, trained_folder, base=tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in trained_folder.rglob("*.safetensors")}


def test_the_best_validation_checkpoint_is_kept(trained_folder):
    run = Run(trained_folder)
    values = [event["ndcg@10"] for event in run.events() if event["event"] == "validation"]
    kept = json.loads((run.best / "manifest.json").read_text())["details"]
    assert kept["validation"]["ndcg@10"] == max(values)
    assert len(values) == 4


def test_the_id_baseline_goes_through_the_same_loop_and_learns(tmp_path, interactions, items, id_recipe):
    recommender = Recommender.fit(interactions, items, recipe=id_recipe, out=tmp_path / "run")
    logged = losses(recommender.run)
    assert logged[-1] < 0.5 * logged[0]
    # Users walk round a circle of 25 items, so the next item can be known; chance is about 10/17.
    assert recommender.evaluate(part="validation").all_items["recall@5"].mean > 0.8


def test_every_step_is_logged_with_its_speed(trained_folder):
    steps = [event for event in Run(trained_folder).events() if event["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, len(steps) + 1))
    for name in ("loss", "items_per_s", "tokens_per_s", "learning_rate", "gradient_norm", "mean_cosine", "scale"):
        assert all(math.isfinite(event[name]) for event in steps)


def test_a_folder_of_another_recipe_or_other_data_is_refused(tmp_path, interactions, items, recipe, trained_folder):
    other = recipe.model_copy(update={"seed": 9})
    with pytest.raises(
        ConfigError, match=r"holds a run of another recipe \(they differ in: seed\); give another --out"
    ):
        fit(interactions, items, other, trained_folder, base=tmp_path)
    with pytest.raises(DataError, match="was begun on other data"):
        fit(interactions[:-1], items, recipe, trained_folder, base=tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(ConfigError, match="is not empty and holds no run"):
        fit(interactions, items, recipe, tmp_path / "mine", base=tmp_path)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_recipe_that_cannot_be_built_leaves_nothing(tmp_path, interactions, items, tiny_llama):
    values = recipe_values(tiny_llama, tiny_llama)
    values["model"]["user"]["num_layers"] = 9
    with pytest.raises(ConfigError, match=r"num_layers is 9, but the model in .* has 2 layers"):
        fit(interactions, items, Recipe.from_dict(values, where="test"), tmp_path / "run", base=tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_checkpoint_may_be_begun_anew(tmp_path, monkeypatch, interactions, items, recipe):
    def stop(self, event):
        raise Stopped

    monkeypatch.setattr(Run, "log", stop)
    for seed, rows in ((1, interactions), (2, interactions[:-2])):
        with pytest.raises(Stopped):
            fit(rows, items, recipe.model_copy(update={"seed": seed}), tmp_path / "run", base=tmp_path)
    assert Run(tmp_path / "run").read_recipe().seed == 2


def test_what_is_no_run_or_unfinished_is_explained(tmp_path, monkeypatch, interactions, items, recipe):
    with pytest.raises(CheckpointError, match=r"is not a run: it has no recipe\.json"):
        Recommender.load(tmp_path)

    def stop(self, event):
        raise Stopped

    monkeypatch.setattr(Run, "log", stop)
    with pytest.raises(Stopped):
        fit(interactions, items, recipe, tmp_path / "run", base=tmp_path)
    with pytest.raises(CheckpointError, match="is not finished: it has no item vectors; run hllm train again"):
        Recommender.load(tmp_path / "run")


def test_the_alarm_stops_a_collapse_but_bears_a_slow_start():
    alarm = CollapseAlarm()
    collapsed = {"loss": 6.0, "gradient_norm": 1.0, "mean_cosine": 0.999, "masked_negatives": 0.0}
    for step in range(PATIENCE - 1):
        alarm.check(step, **collapsed)
    alarm.check(PATIENCE, **(collapsed | {"mean_cosine": 0.9}))
    for step in range(PATIENCE - 1):
        alarm.check(step, **collapsed)
    with pytest.raises(
        TrainingError, match=r"collapsed: mean cosine 0\.9990 for 100 steps .* Lower item_learning_rate"
    ):
        alarm.check(PATIENCE, **collapsed)


def test_the_alarm_stops_what_is_not_finite_and_negatives_that_are_all_masked():
    with pytest.raises(TrainingError, match=r"step 7 has loss nan and gradient norm 1\.0: lower learning_rate"):
        CollapseAlarm().check(7, math.nan, 1.0, mean_cosine=0.0, masked_negatives=0.0)
    with pytest.raises(TrainingError, match=r"step 7 has loss 1\.0 and gradient norm inf: lower learning_rate"):
        CollapseAlarm().check(7, 1.0, math.inf, mean_cosine=0.0, masked_negatives=0.0)
    alarm = CollapseAlarm()
    for step in range(PATIENCE - 1):
        alarm.check(step, 1.0, 1.0, mean_cosine=0.0, masked_negatives=0.9)
    with pytest.raises(TrainingError, match="90% of the negatives are the target itself"):
        alarm.check(PATIENCE, 1.0, 1.0, mean_cosine=0.0, masked_negatives=0.9)


def test_the_alarm_watches_training(tmp_path, monkeypatch, interactions, items, recipe):
    """With a threshold that any embeddings pass, three steps must be enough to stop."""
    monkeypatch.setattr("hllm.training.alarm.COLLAPSED_COSINE", -1.0)
    monkeypatch.setattr("hllm.training.alarm.PATIENCE", 3)
    with pytest.raises(TrainingError, match=r"the item embeddings have collapsed: .* for 3 steps up to step 3"):
        fit(interactions, items, recipe, tmp_path / "run", base=tmp_path)


def test_embeddings_that_are_not_finite_stop_training(tmp_path, interactions, items, tiny_llama):
    """A rate that blows the weights up ends in an error, not in a run that looks finished."""
    values = recipe_values(tiny_llama, tiny_llama)
    values["stages"] = [{"epochs": 40, "learning_rate": 1e30, "warmup": 0.0, "max_gradient_norm": 1e30}]
    with pytest.raises(TrainingError, match="the item embeddings are no longer finite: lower learning_rate"):
        fit(interactions, items, Recipe.from_dict(values, where="test"), tmp_path / "run", base=tmp_path)


def test_a_line_of_metrics_cut_off_by_a_kill_does_not_block_the_run(tmp_path, trained_folder):
    shutil.copytree(trained_folder, tmp_path / "run")
    run = Run(tmp_path / "run")
    whole = run.events()
    with run.metrics.open("a") as file:
        file.write('{"event": "st')
    assert run.events() == whole
    run.forget_after(3)
    assert run.events() == [event for event in whole if event["step"] <= 3]
    assert 0 < len(run.events()) < len(whole)


def test_rates_warm_up_and_fall_as_a_cosine():
    model = nn.Linear(2, 2)
    stage = StageConfig(learning_rate=1.0, warmup=0.2)
    optimizer, schedule = build_optimizer(model, stage, 10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    expected = [0.5, 1.0] + [0.5 * (1 + math.cos(math.pi * n / 8)) for n in range(8)]
    assert rates == pytest.approx(expected)


def test_only_matrices_decay_and_the_language_model_has_its_own_rate(trained):
    stage = StageConfig(learning_rate=1e-3, item_learning_rate=1e-4, weight_decay=0.1)
    optimizer, _ = build_optimizer(trained.model, stage, 10)
    names = {id(p): n for n, p in trained.model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.1 if parameter.ndim >= 2 else 0.0)
            in_item_llm = names[id(parameter)].startswith("item_encoder.backbone")
            assert group["initial_lr"] == (1e-4 if in_item_llm else 1e-3)
    listed = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert listed == {id(p) for p in trained.model.parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0}, r"model\.temperature.*greater than or equal to 0\.01"),
        ({"max_history": 0}, r"model\.max_history.*greater than or equal to 1"),
        ({"user": {"kind": "sasrec", "dim": 10, "num_heads": 3}}, "dim 10 is not a multiple of num_heads 3"),
        ({"item": {"kind": "id"}}, 'item_tier = "frozen" needs model.item.kind = "llm"'),
    ],
)
def test_a_wrong_model_is_explained(tiny_llama, change, message):
    values = recipe_values(tiny_llama, tiny_llama)
    values["model"] |= change
    with pytest.raises(ConfigError, match=message):
        Recipe.from_dict(values, where="test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": []}, r"at least one \[\[stages\]\] table is needed"),
        ({"stages": [{"epochs": 0}]}, r"stages\.0\.epochs.*greater than or equal to 1"),
        ({"stages": [{"learning_rat": 1}]}, r"unknown key 'stages\.0\.learning_rat' \(did you mean 'learning_rate'"),
        ({"about": None}, "about"),
        ({"stages": [{"negatives": {"num_sampled": 0}}]}, r"num_sampled.*greater than or equal to 1, found 0"),
        ({"evaluation": {"cutoffs": []}}, r"cutoffs"),
    ],
)
def test_a_wrong_recipe_is_explained(tiny_llama, change, message):
    with pytest.raises(ConfigError, match=message):
        Recipe.from_dict(recipe_values(tiny_llama, tiny_llama) | change, where="test")
