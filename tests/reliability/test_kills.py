"""Verbs that are killed at any moment, or before any change to a file, and then run again."""

import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from hllm import artifacts
from hllm.models.checkpoint import load_checkpoint
from hllm.runs.run import Run

from .conftest import NIGHTLY
from .run_verbs import is_change

KILLED = -signal.SIGKILL


def numbers_of(run: Run) -> tuple[list[dict], dict[str, bytes]]:
    """Return the losses and metrics of a run without its times, and the weights of its last and best checkpoints, bit for bit."""
    events = [{k: v for k, v in event.items() if not k.endswith(("_s", "_per_second"))} for event in run.events()]
    weights = {}
    for path in (run.checkpoints()[-1], run.best_path):
        for file in sorted(path.rglob("*.safetensors")):
            with safe_open(file, "np") as tensors:
                weights |= {
                    f"{path.name}/{file.name}/{name}": tensors.get_tensor(name).tobytes() for name in tensors.keys()
                }
    return events, weights


def leftovers(folder: Path) -> list[str]:
    """Return what a killed writer has left: names that begin with a dot, but for locks, which stay."""
    return [str(path) for path in folder.rglob(".*") if not path.name.endswith(".lock")]


@pytest.mark.reliability("training killed")
def test_training_that_is_killed_at_random_moments_ends_as_if_it_had_not_been(shop, copied, verbs, trials):
    """Chains of four kills, each somewhere in what an undisturbed run takes; then the same command goes on to the end."""
    rng, expected, codes = random.Random(0), numbers_of(Run(shop / "run")), []
    for chain in range(50 if NIGHTLY else 5):
        train = f"train recipe.json --out chain-{chain}"
        for _ in range(4):
            killed = verbs.run(copied, train, kill_after_s=rng.uniform(0.05, 0.7))
            assert killed.code in (KILLED, 0), killed.output
            codes.append(killed.code)
        again = verbs.run(copied, train)
        assert again.code == 0, again.output
        run = Run(copied / f"chain-{chain}")
        assert numbers_of(run) == expected
        assert leftovers(run.folder) == []
    assert codes.count(KILLED) >= len(codes) // 2, "training was over before most of the kills"
    trials(codes.count(KILLED))


@pytest.mark.reliability("training killed")
def test_training_that_is_killed_before_a_change_to_a_file_goes_on(shop, copied, verbs, trials):
    """The changes are spread over the whole run: the first ones make the run's directory, the last ones its table."""
    expected = numbers_of(Run(shop / "run"))
    changes = verbs.run(copied, "train recipe.json --out counted").changes
    assert changes > 60
    numbers = range(changes) if NIGHTLY else [0, 1, 2, *range(3, changes, changes // 6)]
    for number in numbers:
        train = f"train recipe.json --out run-{number}"
        killed, again = verbs.run(copied, train, kill_before=number), verbs.run(copied, train)
        assert killed.code == KILLED, (number, killed.output)
        assert again.code == 0, (number, again.output)
        run = Run(copied / f"run-{number}")
        assert numbers_of(run) == expected, number
        assert leftovers(run.folder) == [], number
    trials(len(numbers))


@pytest.mark.reliability("save killed")
def test_a_checkpoint_is_good_wherever_its_writer_is_killed(shop, tmp_path, trials):
    """Every change that a save makes, one after another: after a weight file, before the manifest, before the renames,
    before the old version goes. What stands there is the old version or the new one, whole."""
    source = Run(shop / "run").best_path
    path = tmp_path / "checkpoint"

    def save(version: int) -> None:
        with artifacts.writing(path, "checkpoint", artifacts.read_manifest(source, "checkpoint").details) as folder:
            for file in sorted(source.rglob("*")):
                if file.is_file() and file.name != artifacts.MANIFEST:
                    (folder / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
                    (folder / file.relative_to(source)).write_bytes(file.read_bytes())
            (folder / "version.txt").write_text(str(version))

    save(0)
    for number in range(1000):
        process = os.fork()
        if process == 0:
            die_before_change(number, str(tmp_path))
            save(number + 1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        load_checkpoint(path)
        version = int((path / "version.txt").read_text())
        assert version in (number, number + 1) or version <= number
        if code == 0:
            break
        assert code == KILLED
    assert number >= 6 + len(list(source.rglob("*.safetensors"))), "all points were tried"
    save(-1)
    assert [file.name for file in tmp_path.iterdir() if not file.name.endswith(".lock")] == ["checkpoint"]
    trials(number)


def die_before_change(number: int, folder: str) -> None:
    """Let SIGKILL end this process before its change number `number` under `folder`."""
    counted = iter(range(10**6))

    def hook(event, arguments):
        if is_change(event, arguments, folder) and next(counted) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def contents(path: Path) -> dict[str, bytes]:
    """Return the files of an output but those that have times in them."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in files
        if file.name not in (artifacts.MANIFEST, "evaluations.jsonl")
    }


WRITERS = {
    "embed --run run --out out-{}": 10,
    "embed-users --run run --out out-{}": 5,
    "index --run run": 4,
    "export-vectors --table run/items --out out-{}": 3,
    "recommend --run run --input requests.csv --output out-{}.parquet -k 5": 5,
    "data import table . --out out-{}": 3,
    "export-model run --out out-{} --dtype bf16": 3,
    "report --run run --out out-{}.html": 2,
}


@pytest.mark.reliability("verb killed")
@pytest.mark.parametrize("verb", WRITERS)
def test_what_a_killed_verb_was_writing_is_whole_or_absent_and_made_by_the_next_call(copied, verbs, verb, trials):
    def output(name: str) -> Path:
        return next(iter(copied.glob(f"out-{name}*")), copied / "run" / "index")

    if verb.startswith("embed --run"):
        shutil.rmtree(copied / "run" / "table")  # whose vectors would be taken over, and nothing encoded
    whole = [verbs.run(copied, verb.format(name)) for name in ("first", "whole")]
    assert [end.code for end in whole] == [0, 0], whole
    changes, expected = whole[1].changes, contents(output("whole"))
    numbers = range(changes) if NIGHTLY else sorted({n * changes // WRITERS[verb] for n in range(WRITERS[verb])})
    for number in numbers:
        same = verb.format(f"{number:03}")
        killed, again = verbs.run(copied, same, kill_before=number), verbs.run(copied, same)
        assert killed.code == KILLED, (number, killed.output)
        assert again.code == 0, (number, again.output)
        assert contents(output(f"{number:03}")) == expected, number
    assert leftovers(copied) == []
    trials(len(numbers))
