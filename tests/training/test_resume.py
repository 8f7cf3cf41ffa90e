import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch

from hllm import artifacts
from hllm.api import Recommender
from hllm.errors import CheckpointError, ConfigError, HllmWarning, Stopped
from hllm.models.checkpoint import load_checkpoint
from hllm.recipe.recipe import Recipe
from hllm.runs.run import Run
from hllm.training.fit import fit
from hllm.training.state import Checkpoints
from tests.conftest import recipe_values


class Killed(Exception):
    pass


@pytest.fixture(scope="session")
def hard_recipe(tiny_llama: Path, tiny_bert: Path) -> Recipe:
    """A recipe has all that could break resuming: frozen and remembered items, micro-batches, averages, dropout, Muon."""
    values = recipe_values(tiny_bert, tiny_llama)
    values["model"] |= {"user": {"kind": "sasrec", "dim": 16, "num_heads": 2, "dropout": 0.3}}
    values["checkpoints"] = {"every_steps": 2, "keep": 3}
    common = {"epochs": 2, "batch_size": 4, "micro_batch_size": 2, "objective": {"negatives": {"num_sampled": 8}}}
    values["stages"] = [
        common | {"name": "user", "item_tier": "frozen", "learning_rate": 1e-2, "ema": 0.9},
        common
        | {
            "name": "both",
            "learning_rate": 3e-3,
            "gradient_cache": True,
            "start": "best",
            "item_optimizer": "muon",
            "reuse": {"every": 2, "negatives": True, "share": 0.8},
        },
    ]
    return Recipe.from_dict(values, where="test")


@pytest.fixture(scope="session")
def straight(tmp_path_factory, interactions, items, hard_recipe) -> Run:
    """The run that nothing stopped."""
    folder = tmp_path_factory.mktemp("straight")
    return fit(interactions, items, hard_recipe, folder / "run", base=folder)


def losses(run: Run) -> list[tuple[int, float]]:
    return [(event["step"], event["loss"]) for event in run.events() if event["event"] == "step"]


def validations(run: Run) -> list[tuple[int, float]]:
    return [(event["step"], event["ndcg@10"]) for event in run.events() if event["event"] == "validation"]


def assert_equal_runs(run: Run, straight: Run) -> None:
    assert losses(run) == losses(straight)
    assert validations(run) == validations(straight)
    for path, theirs in ((run.checkpoints()[-1], straight.checkpoints()[-1]), (run.best_path, straight.best_path)):
        ours, expected = (load_checkpoint(p)[0].state_dict() for p in (path, theirs))
        assert all(torch.equal(value, expected[name]) for name, value in ours.items())


def stop_when(monkeypatch, condition) -> None:
    """Make the first event that meets `condition` end the process's training, as a crash would: after logging."""
    save = Run.log

    def log_then_stop(self, event):
        save(self, event)
        if condition(event):
            raise Killed

    monkeypatch.setattr(Run, "log", log_then_stop)


@pytest.mark.reliability("training stopped")
@pytest.mark.parametrize(
    "event", [pytest.param(n, marks=[] if n in (3, 12, 21) else pytest.mark.slow) for n in range(24)]
)
def test_a_run_that_dies_anywhere_goes_on_as_if_it_had_not(
    tmp_path, monkeypatch, interactions, items, hard_recipe, straight, event
):
    """Steps and validations are events; whichever is the last one before the crash, nothing shows later."""
    assert len(straight.events()) == 24
    seen = []
    stop_when(monkeypatch, lambda found: seen.append(found) or len(seen) == event + 1)
    with pytest.raises(Killed):
        fit(interactions, items, hard_recipe, tmp_path / "run", base=tmp_path)
    monkeypatch.undo()
    assert_equal_runs(fit(interactions, items, hard_recipe, tmp_path / "run", base=tmp_path), straight)


@pytest.mark.reliability("signals")
def test_a_signal_saves_the_last_step_and_says_how_to_go_on(
    tmp_path, monkeypatch, interactions, items, hard_recipe, straight
):
    save = Run.log

    def log_then_signal(self, event):
        save(self, event)
        if event["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "log", log_then_signal)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match=r"stopped by SIGTERM; step 3 is saved in .*: the same command goes on"):
        fit(interactions, items, hard_recipe, tmp_path / "run", base=tmp_path)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) is before
    run = Run(tmp_path / "run")
    assert run.resume_point()[0].step == 3, "although checkpoints are due every second step"
    assert_equal_runs(fit(interactions, items, hard_recipe, run.folder, base=tmp_path), straight)


@pytest.mark.reliability("training stopped")
def test_a_signal_interrupts_a_validation_which_is_then_made_again(
    tmp_path, monkeypatch, interactions, items, hard_recipe, straight
):
    def signalled(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal did not interrupt")

    monkeypatch.setattr("hllm.training.validation.mean_metrics", signalled)
    with pytest.raises(Stopped, match="stopped by SIGINT"):
        fit(interactions, items, hard_recipe, tmp_path / "run", base=tmp_path)
    monkeypatch.undo()
    assert_equal_runs(fit(interactions, items, hard_recipe, tmp_path / "run", base=tmp_path), straight)


@pytest.mark.reliability("training stopped")
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    tmp_path, monkeypatch, interactions, items, hard_recipe, straight
):
    stop_when(monkeypatch, lambda event: event["step"] == 5)
    with pytest.raises(Killed):
        fit(interactions, items, hard_recipe, tmp_path / "run", base=tmp_path)
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    assert [path.name for path in run.checkpoints()] == ["step-00000002", "step-00000004"]
    flip(run.checkpoints()[-1] / "user_encoder.safetensors", random.Random(0))
    with pytest.warns(HllmWarning, match=r"step-00000004/user_encoder.safetensors is damaged: .* It is passed over"):
        assert run.resume_point()[0].step == 2
    with pytest.warns(HllmWarning):
        run = fit(interactions, items, hard_recipe, run.folder, base=tmp_path)
    assert_equal_runs(run, straight)


def test_a_damaged_checkpoint_never_takes_the_place_of_a_good_one(
    tmp_path, monkeypatch, interactions, items, hard_recipe, straight
):
    """With one checkpoint kept: the damaged, newer one was counted as the last, and the good one removed."""
    stop_when(monkeypatch, lambda event: event["step"] == 5)
    with pytest.raises(Killed):
        fit(interactions, items, hard_recipe, tmp_path / "run", base=tmp_path)
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    flip(run.checkpoints()[-1] / "user_encoder.safetensors", random.Random(0))
    one = hard_recipe.checkpoints.model_copy(update={"keep": 1, "every_steps": 3})
    stop_when(monkeypatch, lambda event: event["step"] == 4)
    with pytest.warns(HllmWarning), pytest.raises(Killed):
        fit(interactions, items, hard_recipe.model_copy(update={"checkpoints": one}), run.folder, base=tmp_path)
    monkeypatch.undo()
    assert [path.name for path in run.checkpoints()] == ["step-00000003"]
    assert_equal_runs(fit(interactions, items, hard_recipe, run.folder, base=tmp_path), straight)


@pytest.mark.reliability("training stopped")
def test_a_signal_in_the_last_save_is_not_lost(tmp_path, monkeypatch, interactions, items, hard_recipe, straight):
    save = Checkpoints.save

    def signalled(self, position, state):
        save(self, position, state)
        if position.stage == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "save", signalled)
    with pytest.raises(Stopped, match="stopped by SIGTERM; step 20 is saved"):
        fit(interactions, items, hard_recipe, tmp_path / "run", base=tmp_path)
    monkeypatch.undo()
    assert not (tmp_path / "run" / "table").exists()
    assert_equal_runs(fit(interactions, items, hard_recipe, tmp_path / "run", base=tmp_path), straight)


def test_no_good_checkpoint_is_an_error_and_removes_nothing(tmp_path, straight):
    shutil.copytree(straight.folder, tmp_path / "run")
    run = Run(tmp_path / "run")
    for path in run.checkpoints():
        (path / "item_encoder.safetensors").unlink()
    with pytest.warns(HllmWarning), pytest.raises(CheckpointError, match=r"none of the 3 checkpoints in .* is good"):
        run.resume_point()
    assert len(run.checkpoints()) == 3


@pytest.mark.parametrize("file", ["scale.safetensors", "manifest.json"])
def test_a_damaged_best_checkpoint_is_replaced_by_the_best_to_come(
    tmp_path, monkeypatch, interactions, items, hard_recipe, file
):
    stop_when(monkeypatch, lambda event: event["step"] == 7)
    with pytest.raises(Killed):
        fit(interactions, items, hard_recipe, tmp_path / "run", base=tmp_path)
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    flip(run.best_path / file, random.Random(0))
    with pytest.warns(HllmWarning, match="The best of what is still to come takes its place"):
        fit(interactions, items, hard_recipe, run.folder, base=tmp_path)
    assert Recommender.load(run.folder).recommend(k=1)["rank"].to_list()


def flip(file: Path, rng: random.Random) -> None:
    """Change one byte of a file to another value."""
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= rng.randrange(1, 256)
    file.write_bytes(content)


@pytest.mark.reliability("bytes changed")
def test_a_hundred_flipped_bytes_are_all_found_before_anything_is_parsed(tmp_path, monkeypatch, straight):
    """Any byte of any file of a checkpoint, the manifest's own included."""
    rng = random.Random(1)
    monkeypatch.setattr("hllm.models.checkpoint.load_file", lambda *_: pytest.fail("a damaged file was parsed"))
    source = straight.checkpoints()[-2]
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    assert {"manifest.json", "optimizer.safetensors"} <= {str(file) for file in files}
    for number in range(100):
        damaged = tmp_path / f"c{number}"
        shutil.copytree(source, damaged)
        flip(damaged / files[number % len(files)], rng)
        with pytest.raises(CheckpointError, match=r"damaged|format version|is not a checkpoint|holds a"):
            load_checkpoint(damaged)
        shutil.rmtree(damaged)
    assert artifacts.verify(source, "checkpoint")


def test_only_the_last_checkpoints_are_kept(straight):
    assert len(straight.checkpoints()) == 3
    assert straight.resume_point()[0].stage == 2


def test_training_never_resumes_unasked(tmp_path, interactions, items, hard_recipe, straight):
    with pytest.raises(ConfigError, match=r"holds a run already, and resume is \"never\""):
        fit(interactions, items, hard_recipe, straight.folder, base=tmp_path, resume="never")


def test_a_damaged_line_of_the_log_does_not_keep_training_from_going_on(
    tmp_path, monkeypatch, interactions, items, hard_recipe, straight
):
    """One changed byte of metrics.jsonl ended every later start in a JSONDecodeError."""
    stop_when(monkeypatch, lambda event: event["step"] == 8)
    with pytest.raises(Killed):
        fit(interactions, items, hard_recipe, tmp_path / "run", base=tmp_path)
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    lines = run.metrics_path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"loss"', b'"lo\xffs"')
    run.metrics_path.write_bytes(b"".join(lines) + b'{"event": "st')
    with pytest.warns(HllmWarning, match=r"metrics\.jsonl: line 3 is damaged .*, and moved to metrics\.jsonl\.damaged"):
        fit(interactions, items, hard_recipe, tmp_path / "run", base=tmp_path)
    assert run.metrics_path.with_name("metrics.jsonl.damaged").read_bytes() == lines[2]
    assert losses(run) == [each for each in losses(straight) if each[0] != json.loads(lines[1])["step"] + 1]
    assert torch.equal(*(next(load_checkpoint(each.best_path)[0].parameters()) for each in (run, straight)))
