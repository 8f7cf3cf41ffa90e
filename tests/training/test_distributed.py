"""Two processes, started by torchrun, against one: the same losses, gradients, metrics and vectors."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hllm.batches.item_plan import plan_items
from hllm.embedding.table import ItemEmbeddingTable
from hllm.recipe.recipe import Recipe
from hllm.runs.run import Run
from hllm.training.fit import fit
from tests.conftest import recipe_values

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SETTINGS = ["plain", "gradient-cache", "reuse", "reuse-cached", "ids", "ranking"]


def launch(*arguments: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*LAUNCH, *arguments], capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def recipes(model: Path) -> dict[str, dict]:
    """Return the recipes that are trained, by name. 12 users in batches of 5: the last step has two windows, one for each process."""
    plain = recipe_values(model, model)
    for stage in plain["stages"]:
        stage["batch_size"] = 5
    cache = copy.deepcopy(plain)
    cache["stages"][1] |= {"gradient_cache": True, "micro_batch_size": 2}
    reuse = copy.deepcopy(plain)
    reuse["stages"][1] |= {"item_optimizer": "muon", "reuse": {"share": 0.3}, "micro_batch_size": 3}
    reuse_cached = copy.deepcopy(cache)
    reuse_cached["stages"][1] |= {"reuse": {"every": 2, "share": 0.1}}
    ids = copy.deepcopy(plain)
    ids["model"] |= {"item": {"kind": "id"}, "user": {"kind": "sasrec", "dim": 16, "num_heads": 2, "dropout": 0.0}}
    ids["stages"] = [ids["stages"][1] | {"batch_size": 11}]  # one window is left for two processes
    ranking = copy.deepcopy(plain) | {"select_by": "gauc"}
    ranking["model"]["ranking"] = {"width": 8}
    ranking["stages"][1] |= {
        "objective": {"kind": "ranking", "points": {"per_window": 2, "num_negatives": 2}},
        "terms": [ranking["stages"][1]["objective"]],
    }
    ranking["evaluation"]["ranking_negatives"] = 3
    reusing = {"reuse": reuse, "reuse-cached": reuse_cached}
    return {"plain": plain, "gradient-cache": cache, "ids": ids, "ranking": ranking} | reusing


@pytest.fixture(scope="module")
def world(tmp_path_factory, interactions, items, tiny_llama):
    """All runs in two processes, one after another: each launch has to import everything."""
    folder = tmp_path_factory.mktemp("processes")
    interactions.write_parquet(folder / "interactions.parquet")
    items.write_parquet(folder / "items.parquet")
    wanted = recipes(tiny_llama)
    counted = copy.deepcopy(wanted["plain"])
    counted["stages"] = [counted["stages"][1] | {"epochs": 1, "batch_size": 6}]
    counted["model"]["item"]["whiten"] = False
    jobs = [(name, name, values, 0) for name, values in wanted.items()]
    jobs += [("counted", "counted", counted, 0)]
    jobs += [("killed", "killed", wanted["plain"], 4), ("gone on", "killed", wanted["plain"], 0)]
    tables = {"interactions": str(folder / "interactions.parquet"), "items": str(folder / "items.parquet")}
    (folder / "jobs.json").write_text(
        json.dumps(
            [
                tables | {"name": name, "folder": str(folder / run), "recipe": values, "kill_after": step}
                for name, run, values, step in jobs
            ]
        )
    )
    printed = launch(str(Path(__file__).parent / "in_processes.py"), str(folder / "jobs.json"))
    return folder, wanted, json.loads(printed.splitlines()[-1])


def events(folder: Path, kind: str, *names: str) -> np.ndarray:
    return np.array([[event[name] for name in names] for event in Run(folder).events() if event["event"] == kind])


@pytest.mark.reliability("processes")
@pytest.mark.parametrize("settings", SETTINGS)
def test_two_processes_train_as_one_does(world, tmp_path, interactions, items, settings):
    folder, wanted, _ = world
    together = folder / settings
    recipe = Recipe.from_dict(wanted[settings], where="test")
    alone = fit(interactions, items, recipe, tmp_path / "alone", base=tmp_path).folder
    ours, theirs = (events(path, "step", "loss", "gradient_norm", "top1") for path in (together, alone))
    assert len(theirs) >= 4
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)  # rounding grows from step to step
    names = ("auc", "gauc") if settings == "ranking" else ("recall@10", "ndcg@10")
    metrics = [events(path, "validation", *names) for path in (together, alone)]
    np.testing.assert_allclose(*metrics, rtol=1e-6)
    vectors = [ItemEmbeddingTable.load(Run(path).table_path, checkpoint=None).vectors for path in (together, alone)]
    np.testing.assert_allclose(*vectors, rtol=1e-2, atol=1e-4)


def test_no_item_is_encoded_twice_in_training_validation_and_for_the_table(world):
    _, _, processes = world
    encoded = sum(process["of_job"]["items_encoded"] for process in processes)
    needed = sum(process["of_job"]["items_needed"] for process in processes) + 30  # validated, and kept for the table
    assert encoded == needed
    shares = [process["of_job"]["items_encoded"] / needed for process in processes]
    assert min(shares) > 0.3, "both work"


def test_a_step_sends_the_embeddings_their_gradient_and_the_weights_gradient(world):
    _, _, processes = world
    counted = processes[0]["of_job"]
    dim, numbers = 16, 5  # loss, queries, their weight, top1, masked negatives
    for sent, lengths in zip(counted["bytes"], counted["tokens"], strict=True):
        largest_shard = max(plan_items(np.array(lengths), num_shards=2).shard_sizes)
        assert sent == 4 * (dim * (largest_shard + len(lengths)) + counted["weights"]) + 8 * numbers


@pytest.mark.reliability("processes")
def test_a_signal_to_one_process_stops_all_after_the_same_step_and_the_run_goes_on_exactly(world):
    folder, _, processes = world
    assert [process["stopped"] for process in processes] == [1, 1]
    ours, theirs = (events(folder / name, "step", "step", "loss") for name in ("killed", "plain"))
    assert ours.tolist() == theirs.tolist()


def test_of_the_command_line_only_the_first_process_speaks(world, tmp_path, tiny_llama):
    folder, _, _ = world
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"""about = "ids"
[data]
interactions = "{folder}/interactions.parquet"
items = "{folder}/items.parquet"
[model.item]
kind = "id"
[model.user]
kind = "sasrec"
dim = 16
[[stages]]
epochs = 1
"""
    )
    printed = launch("-m", "hllm", "train", str(recipe), "--out", str(tmp_path / "run"))
    assert printed.count("best validation") == 1
    assert Run(tmp_path / "run").table_path.exists()
