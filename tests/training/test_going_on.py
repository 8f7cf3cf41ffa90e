"""A run goes on, or begins, beside others: at other places, after kills, and against a second writer."""

import json
import shutil
import threading

import polars as pl
import pytest

from hllm.errors import BusyError, ConfigError, DataError
from hllm.locks import locked_inside
from hllm.models.checkpoint import load_checkpoint
from hllm.recipe.recipe import Recipe
from hllm.runs.bundle import open_run
from hllm.runs.run import Run
from hllm.training.fit import fit
from hllm.training.state import Checkpoints
from tests.conftest import recipe_values


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def values(tiny_bert, tiny_llama) -> dict:
    values = recipe_values(tiny_bert, tiny_llama)
    values["stages"] = [values["stages"][0] | {"epochs": 2, "name": "one"}]
    return values | {"checkpoints": {"every_steps": 2}}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, interactions, items, values) -> Run:
    """A run that died after its third step."""
    folder = tmp_path_factory.mktemp("stopped")

    def stop(event: dict) -> None:
        if event["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        fit(interactions, items, Recipe.from_dict(values, where="test"), folder / "run", base=folder, listeners=(stop,))
    return Run(folder / "run")


@pytest.fixture
def run(stopped, tmp_path) -> Run:
    shutil.copytree(stopped.folder, tmp_path / "run")
    return Run(tmp_path / "run")


def other(values: dict, **changes: object) -> Recipe:
    """The recipe with other values at dotted places."""
    values = json.loads(json.dumps(values))
    for place, value in changes.items():
        *parents, key = place.split("__")
        node = values
        for name in parents:
            node = node[int(name) if name.isdigit() else name]
        node[key] = value
    return Recipe.from_dict(values, where="test")


def test_a_run_goes_on_from_other_places_and_under_other_prose(
    run, tmp_path, monkeypatch, interactions, items, values, tiny_bert, tiny_llama
):
    """Nothing of it changes a number, so the result is that of a run that was never moved."""
    monkeypatch.chdir(tmp_path)  # where the quarantine is written
    straight = fit(interactions, items, Recipe.from_dict(values, where="test"), tmp_path / "straight", base=tmp_path)
    shutil.copytree(tiny_bert, tmp_path / "moved" / "bert")
    (tmp_path / "moved" / "bert" / "README.md").write_text("moved")
    changed = other(
        values,
        about="after the move",
        stages__0__name="another name",
        data__interactions="there.csv",
        data__items="there too.csv",
        data__quarantine="quarantine",
        model__item__backbone="moved/bert",
        checkpoints={"every_steps": 3},
    )
    fit(interactions.clone(), items, changed, run.folder, base=tmp_path)
    assert run.position().step == straight.position().step
    ours, theirs = (load_checkpoint(each.best_path)[0].state_dict() for each in (run, straight))
    assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)
    assert open_run(run).recipe.seed == 1, "and it opens"


def test_the_new_prose_and_places_are_kept(run, tmp_path, interactions, items, values):
    changed = other(values, about="after the move", data__interactions="there.csv")
    fit(interactions, items, changed, run.folder, base=tmp_path)
    assert run.read_recipe() == changed


@pytest.mark.parametrize("tier", ["item", "user"])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_another_model_at_the_same_or_another_place_is_refused(
    run, tmp_path, interactions, items, values, tiny_bert, tiny_llama, tier, file
):
    shutil.copytree({"item": tiny_bert, "user": tiny_llama}[tier], tmp_path / "other")
    target = tmp_path / "other" / file
    content = target.read_bytes()
    target.write_bytes(content + b"\n" if file == "config.json" else content[:-1] + bytes([content[-1] ^ 1]))
    changed = other(values, **{f"model__{tier}__backbone": str(tmp_path / "other")})
    with pytest.raises(ConfigError, match=f"run was begun with another {tier} language model than the one that is in"):
        fit(interactions, items, changed, run.folder, base=tmp_path)


def test_other_data_at_another_place_and_other_settings_are_refused(run, tmp_path, interactions, items, values):
    fewer = pl.DataFrame(interactions).head(-1)
    with pytest.raises(DataError, match="run was begun on other data"):
        fit(fewer, items, other(values, data__interactions="there.csv"), run.folder, base=tmp_path)
    for changes in ({"seed": 2}, {"stages__0__epochs": 3}, {"data__min_user_interactions": 1}):
        with pytest.raises(ConfigError, match="holds a run of another recipe"):
            fit(interactions, items, other(values, **changes), run.folder, base=tmp_path)


def test_a_run_that_is_trained_is_refused_to_another_process(run, tmp_path, interactions, items, values):
    failures: list[str] = []

    def second() -> None:
        try:
            fit(interactions, items, Recipe.from_dict(values | {"seed": 7}, where="test"), run.folder, base=tmp_path)
        except BusyError as error:
            failures.append(str(error))

    def at_a_step(event: dict) -> None:
        if event["step"] == 4 and not failures:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()

    recipe = Recipe.from_dict(values, where="test")
    fit(interactions, items, recipe, run.folder, base=tmp_path, listeners=(at_a_step,))
    assert len(failures) == 1
    assert "run is in use by process" in failures[0]
    steps = [event["step"] for event in run.events() if event["event"] == "step"]
    assert steps == sorted(set(steps))
    assert open_run(run).recipe == recipe


def test_a_recipe_that_is_put_there_meanwhile_is_not_taken_for_the_one_that_trains(
    run, tmp_path, monkeypatch, interactions, items, values
):
    """Each save took the fingerprint from the disk: under another writer's recipe these weights would have opened."""
    save = Checkpoints.save_best

    def tampered(self, *arguments):
        run.write_recipe(other(values, seed=7))
        save(self, *arguments)

    monkeypatch.setattr(Checkpoints, "save_best", tampered)
    recipe = Recipe.from_dict(values, where="test")
    fit(interactions, items, recipe, run.folder, base=tmp_path)
    assert load_checkpoint(run.best_path)[2].details["recipe"] == recipe.fingerprint


@pytest.mark.parametrize(
    "leftovers",
    [
        [".recipe.json.partial-12"],
        [".recipe.json.partial-12", ".recipe.json.lock", ".lock"],
        [".dataset.partial-1-abcd", "checkpoints/"],
    ],
)
def test_leftovers_of_a_killed_start_do_not_stop_the_next_and_are_gone_after_it(
    tmp_path, interactions, items, values, leftovers
):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in leftovers:
        (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
    if "checkpoints/" in leftovers:
        (folder / "recipe.json").write_text(Recipe.from_dict(values, where="test").model_dump_json())
    fit(interactions, items, Recipe.from_dict(values, where="test"), folder, base=tmp_path)
    assert hidden(folder) == []


def test_every_leftover_in_a_run_is_removed_by_the_next_training(run, tmp_path, interactions, items, values):
    recipe = Recipe.from_dict(values, where="test")
    fit(interactions, items, recipe, run.folder, base=tmp_path)
    for name in (".metrics.jsonl.partial-3", ".ranks-test.parquet.partial-4", ".report.html.partial-5", ".x.lock"):
        (run.folder / name).touch()
    for name in (".table.partial-1-ab", ".table.shards-0123", "checkpoints/.step-00000003.partial-9"):
        (run.folder / name).mkdir()
    fit(interactions, items, recipe, run.folder, base=tmp_path)
    assert hidden(run.folder) == []


def test_a_start_that_is_refused_leaves_no_directory(tmp_path, interactions, items, values):
    with pytest.raises(DataError):
        fit(interactions, items.head(1), Recipe.from_dict(values, where="test"), tmp_path / "run", base=tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_part_of_a_run_is_not_written_while_it_is_trained(run, tmp_path):
    failures: list[BusyError] = []

    def embed() -> None:
        for path in (run.table_path, tmp_path / "elsewhere"):
            try:
                with run.part_locked(path):
                    pass
            except BusyError as error:
                failures.append(error)

    with locked_inside(run.folder):
        thread = threading.Thread(target=embed)
        thread.start()
        thread.join()
    assert len(failures) == 1
    embed()
    assert len(failures) == 1


def hidden(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))
