import json
import math
import shutil

import polars as pl
import pytest
import torch

from hllm import artifacts
from hllm.api import Recommender
from hllm.batches.negatives import NegativesConfig
from hllm.errors import CheckpointError, ConfigError, DataError, HllmWarning
from hllm.losses.contrastive import LossConfig
from hllm.models.checkpoint import load_checkpoint
from hllm.models.recommender import SequentialRecommender
from hllm.objectives.next_item import NextItemConfig
from hllm.recipe.recipe import Recipe
from hllm.recipe.stages import StageConfig
from hllm.runs.position import Position
from hllm.runs.run import Run
from hllm.training.fit import fit
from tests.conftest import recipe_values


def losses(run: Run) -> list[float]:
    return [event["loss"] for event in run.events() if event["event"] == "step"]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.checkpoints()[-1])[0].state_dict()


class Stopped(Exception):
    pass


def test_a_finished_run_is_not_trained_again(tmp_path, interactions, items, recipe, trained_folder):
    before = {p: p.stat().st_mtime_ns for p in trained_folder.rglob("*.safetensors")}
    fit(interactions, items, recipe, trained_folder, base=tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in trained_folder.rglob("*.safetensors")}


def test_the_best_validation_checkpoint_is_kept(trained_folder):
    run = Run(trained_folder)
    values = [event["ndcg@10"] for event in run.events() if event["event"] == "validation"]
    kept = json.loads((run.best_path / "manifest.json").read_text())["details"]
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


@pytest.mark.reliability("other parts")
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


def test_a_log_of_one_item_is_refused_and_of_one_user_is_warned_of(tmp_path, interactions, items, id_recipe):
    """Both once trained without a word."""
    one_item = interactions.with_columns(item_id=pl.lit("i1"))
    with pytest.raises(DataError, match="training interactions are with one item, so there is nothing to tell apart"):
        fit(one_item, items, id_recipe, tmp_path / "run", base=tmp_path)
    assert not (tmp_path / "run").exists()
    one_user = interactions.filter(pl.col("user_id") == "u3")
    with pytest.warns(HllmWarning, match="the validation part has 1 target of 1 user: one user more or less moves"):
        fit(one_user, items, id_recipe, tmp_path / "run", base=tmp_path)


def test_a_log_whose_rows_stand_twice_is_warned_of(tmp_path, interactions, items, id_recipe):
    """The validation asked for the first of two rows, the test for the second: .958 and 0, without a word."""
    twice = pl.concat([interactions, interactions])
    with pytest.warns(HllmWarning, match=r"12 of the 12 test targets .* met before.*duplicate_interactions = \"drop"):
        fit(twice, items, id_recipe, tmp_path / "run", base=tmp_path)


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


def test_a_line_of_metrics_cut_off_by_a_kill_does_not_block_the_run(tmp_path, trained_folder):
    shutil.copytree(trained_folder, tmp_path / "run")
    run = Run(tmp_path / "run")
    whole = run.events()
    with run.metrics_path.open("a") as file:
        file.write('{"event": "st')
    assert run.events() == whole
    run.forget_after(Position(epoch=1, step=3))
    assert run.events() == [event for event in whole if event["step"] <= 3]
    assert 0 < len(run.events()) < len(whole)


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
        ({"stages": [{"epochs": -1}]}, r"stages\.0\.epochs.*greater than or equal to 0"),
        ({"stages": [{"gradient_cache": True}]}, "gradient_cache = true needs micro_batch_size"),
        ({"stages": [{"item_tier": "frozen", "user_tier": "frozen"}]}, "are both frozen: there is nothing to train"),
        ({"stages": [{"max_history": 99}]}, r"stages\.0\.max_history 99 is beyond model\.max_history, which is 8"),
        (
            {"stages": [{}, {"validate_every": 0}]},
            r"stages\.1\.validate_every is 0, but the last stage's is what is kept",
        ),
        ({"stages": [{"validate_every": 0}, {"start": "best"}]}, 'start = "best", but no stage before it is validated'),
        ({"stages": [{"validate_every": 0, "early_stopping": 1}, {}]}, "early_stopping needs validations"),
        ({"stages": [{"validate_every": 0, "epochs": 0}, {}]}, "epochs = 0 needs validations"),
        (
            {"stages": [{"objective": {"loss": {"kind": "bce"}, "negatives": {"kind": "catalogue"}}}]},
            "needs sampled negatives",
        ),
        (
            {"select_by": "accuracy"},
            r"select_by.*expected one of recall, ndcg, mrr, precision, map and a cut-off, such as ndcg@10",
        ),
        ({"stages": [{"learning_rat": 1}]}, r"unknown key 'stages\.0\.learning_rat' \(did you mean 'learning_rate'"),
        ({"about": None}, "about"),
        (
            {"stages": [{"objective": {"negatives": {"num_sampled": 0}}}]},
            r"num_sampled.*greater than or equal to 1, found 0",
        ),
        ({"evaluation": {"cutoffs": []}}, r"cutoffs"),
    ],
)
def test_a_wrong_recipe_is_explained(tiny_llama, change, message):
    with pytest.raises(ConfigError, match=message):
        Recipe.from_dict(recipe_values(tiny_llama, tiny_llama) | change, where="test")


def stages_of(recipe: Recipe, *changes: dict) -> Recipe:
    first = {
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "objective": NextItemConfig(negatives=NegativesConfig(num_sampled=8)),
    }
    return recipe.model_copy(update={"stages": tuple(StageConfig(**(first | change)) for change in changes)})


def test_a_frozen_user_tier_stays_and_the_item_tier_learns(tmp_path, interactions, items, recipe):
    chosen = stages_of(recipe, {"epochs": 0}, {"user_tier": "frozen"})
    run = fit(interactions, items, chosen, tmp_path / "run", base=tmp_path)
    first, last = (load_checkpoint(path)[0].state_dict() for path in run.checkpoints())
    changed = {name for name, value in last.items() if not torch.equal(value, first[name])}
    assert changed
    assert not [name for name in changed if name.startswith("user_encoder.")]


def test_a_stage_with_short_histories_sees_only_those(tmp_path, monkeypatch, interactions, items, recipe):
    seen = []
    users = SequentialRecommender.users
    monkeypatch.setattr(
        SequentialRecommender, "users", lambda self, i, b: seen.append(b.history.shape[1]) or users(self, i, b)
    )
    fit(interactions, items, stages_of(recipe, {"max_history": 3}, {}), tmp_path / "run", base=tmp_path)
    half = len(seen) // 2
    assert max(seen[:half]) == 3
    assert max(seen[half:]) == 8


def test_a_stage_may_cut_histories_in_its_own_way(tmp_path, interactions, items, recipe):
    chosen = stages_of(recipe, {"windows": "latest", "max_history": 3, "batch_size": 4}, {"batch_size": 4})
    run = fit(interactions, items, chosen, tmp_path / "run", base=tmp_path)
    steps = [sum(event["stage"] == n for event in run.events() if event["event"] == "step") for n in (0, 1)]
    users = interactions["user_id"].n_unique()
    assert steps[0] == -(-users // 4) < steps[1]


def test_a_stage_ends_early_and_the_next_may_begin_with_the_best(tmp_path, interactions, items, id_recipe):
    """A rate so small that nothing changes: the first validation is the best, two more and the stage ends."""
    tiny = {"learning_rate": 1e-12, "epochs": 9, "early_stopping": 2}
    chosen = stages_of(id_recipe, tiny, {"start": "best", "epochs": 0})
    run = fit(interactions, items, chosen, tmp_path / "run", base=tmp_path)
    epochs = [event["epoch"] for event in run.events() if event["event"] == "validation" and event["stage"] == 0]
    assert epochs == [0, 1, 2]
    best, last = (load_checkpoint(path)[0].state_dict() for path in (run.best_path, run.checkpoints()[-1]))
    assert all(torch.equal(value, best[name]) for name, value in last.items())


def test_a_stage_that_only_prepares_is_not_validated(tmp_path, interactions, items, id_recipe):
    """The next stage begins with what it learnt."""
    tiny = {"learning_rate": 1e-12, "epochs": 1}
    runs = [
        fit(interactions, items, stages_of(id_recipe, first, tiny), tmp_path / name, base=tmp_path)
        for name, first in (("without", {"epochs": 3, "validate_every": 0}), ("with", {"epochs": 3}))
    ]
    stages = [[event["stage"] for event in run.events() if event["event"] == "validation"] for run in runs]
    assert stages == [[1], [0, 0, 0, 1]]
    without, with_ = map(weights, runs)
    assert all(torch.equal(value, with_[name]) for name, value in without.items())
    assert runs[0].best_path.exists()


def test_validation_can_be_rarer_than_epochs(tmp_path, interactions, items, id_recipe):
    chosen = stages_of(id_recipe, {"epochs": 5, "validate_every": 2}).model_copy(update={"select_by": "recall@3"})
    run = fit(interactions, items, chosen, tmp_path / "run", base=tmp_path)
    validations = [event for event in run.events() if event["event"] == "validation"]
    assert [event["epoch"] for event in validations] == [1, 3, 4]
    assert all(0 <= event["recall@3"] <= event["recall@10"] for event in validations)


def test_averaged_weights_are_validated_and_kept(tmp_path, interactions, items, id_recipe):
    """The kept checkpoint is the mean, which moved less from the start than the weights without averaging."""
    chosen = [stages_of(id_recipe, {"epochs": 0}, {"ema": ema}) for ema in (0.0, 0.95)]
    moved = []
    for number, one in enumerate(chosen):
        run = fit(interactions, items, one, tmp_path / str(number), base=tmp_path)
        first, last = (load_checkpoint(path)[0].item_encoder.embedding.weight for path in run.checkpoints())
        moved.append((last - first).norm().item())
    assert moved[1] < 0.5 * moved[0]


@pytest.mark.parametrize(
    ("loss", "negatives", "similarity"),
    [
        ({"log_q": True}, {"num_sampled": 8}, "cosine"),
        ({"log_q": True}, {"kind": "sampled", "num_sampled": 8, "popularity_power": 0.5}, "dot"),
        ({}, {"kind": "sampled", "num_sampled": 8, "per_position": True}, "dot"),
        ({"kind": "bce"}, {"kind": "sampled", "num_sampled": 4, "per_position": True}, "cosine"),
        ({"kind": "gbce"}, {"kind": "sampled", "num_sampled": 8, "per_position": True}, "cosine"),
        ({"mask": "cosine"}, {"kind": "pooled", "num_sampled": 24}, "cosine"),
    ],
)
def test_every_loss_learns(tmp_path, interactions, items, id_recipe, loss, negatives, similarity):
    """Users walk round a circle of 25 items; chance for recall@5 is about 5/17."""
    model = id_recipe.model.model_copy(update={"similarity": similarity})
    stage = {"epochs": 40, "learning_rate": 1e-2, "validate_every": 40}
    stage |= {"objective": NextItemConfig(loss=LossConfig(**loss), negatives=NegativesConfig(**negatives))}
    chosen = stages_of(id_recipe.model_copy(update={"model": model}), stage)
    recommender = Recommender.fit(interactions, items, recipe=chosen, out=tmp_path / "run")
    assert recommender.evaluate(part="validation").all_items["recall@5"].mean > 0.7


def test_settings_that_came_later_do_not_change_the_fingerprint_of_a_stored_recipe(tmp_path, recipe):
    """Runs of an earlier version once did not open after a key with a default was added to a recipe."""
    run = Run(tmp_path)
    run.write_recipe(recipe)
    assert run.recipe_fingerprint == recipe.fingerprint
    stored = json.loads(run.recipe_path.read_text())
    del stored["model"]["ranking"], stored["stages"][1]["objective"]["loss"]["matryoshka"]
    run.recipe_path.write_text(json.dumps(stored))
    before = recipe.settings
    del before["model"]["ranking"], before["stages"][1]["objective"]["loss"]["matryoshka"]
    assert run.recipe_fingerprint == artifacts.fingerprint(before) != recipe.fingerprint


@pytest.mark.filterwarnings("ignore")  # torch's own
def test_without_a_compiler_compiling_is_refused_and_the_folder_serves_the_next_try(
    tmp_path, interactions, items, recipe
):
    from torch._inductor import config

    compiling = recipe.model_copy(update={"compile": True})
    assert compiling.fingerprint == recipe.fingerprint
    without_compiler = {"force_disable_caches": True, "cpp.cxx": ("/nowhere/g++",)}
    with config.patch(without_compiler), pytest.raises(ConfigError, match=r"compile = true, but .*/nowhere/g\+\+"):
        fit(interactions, items, compiling, tmp_path / "run", base=tmp_path)
    assert not Run(tmp_path / "run").checkpoints()
    fit(interactions, items, recipe, tmp_path / "run", base=tmp_path)
