"""The three stages on the tiny world: killed in each and gone on with, stage II without the Item LLM, stored vectors
equal to those made live."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from hllm.batches.batch import item_batch, sequence_batch
from hllm.batches.negatives import Negatives
from hllm.embedding.table import ItemEmbeddingTable, UserEmbeddingTable
from hllm.jobs.embed_users import embed_run_users
from hllm.models.checkpoint import ITEM_BACKBONE
from hllm.models.item.text import TextItemEncoder
from hllm.models.recommender import SequentialRecommender
from hllm.recipe.recipe import Recipe
from hllm.training.fit import catalogue_tokens, fit
from tests.conftest import recipe_values

from . import kill_verbs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def values(tiny_llama, tiny_bert) -> dict:
    """Stage I on histories of 4, stage II on stored items and histories of 12."""
    values = recipe_values(tiny_bert, tiny_llama)
    values["model"]["max_history"] = 12
    values["checkpoints"] = {"every_steps": 2}
    common = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3}
    values["stages"] = [
        common | {"name": "I", "max_history": 4, "objective": {"negatives": {"num_sampled": 8}}},
        common
        | {"name": "II", "start": "best", "item_tier": "frozen", "objective": {"negatives": {"kind": "catalogue"}}},
    ]
    return values


def contents(folder: Path) -> dict[str, bytes]:
    """Return the vectors and ids; manifests and keys name the checkpoint, which knows how long training took."""
    files = [path for part in ("items", "users", "features") for path in (folder / part).rglob("*")]
    named = {str(path.relative_to(folder)): path for path in sorted(files) if path.is_file()}
    return {name: path.read_bytes() for name, path in named.items() if path.name not in ("manifest.json", "keys.npy")}


def test_the_three_stages_killed_in_each_end_with_the_same_vectors(tmp_path, interactions, items, values):
    """The script's own verbs. Run once more at the end, they change no file."""
    interactions.write_parquet(tmp_path / "interactions.parquet")
    items.write_parquet(tmp_path / "items.parquet")
    values["data"] = {"interactions": "interactions.parquet", "items": "items.parquet"}
    recipe, straight, killed = tmp_path / "recipe.json", tmp_path / "straight", tmp_path / "killed"
    recipe.write_text(json.dumps(values))
    kills = [*(kill for kill in kill_verbs.KILLS if kill != "nowhere"), "nowhere", "nowhere"]
    command = [
        sys.executable,
        kill_verbs.__file__,
        recipe,
        f"{straight}=nowhere",
        *(f"{killed}={kill}" for kill in kills),
    ]
    done = subprocess.run(map(str, command), capture_output=True, text=True, check=True, timeout=300, cwd=ROOT)
    ended = [line.split() for line in done.stdout.splitlines() if line.partition(" ")[0] in kill_verbs.KILLS]
    assert [(kill, int(code)) for kill, code, _ in ended] == [
        ("nowhere", 0),
        *((kill, -9) for kill in kills[:-2]),
        ("nowhere", 0),
        ("nowhere", 0),
    ], done.stderr
    expected = contents(straight)
    assert {"items/vectors.npy", "users/vectors.npy", "features/users-parquet/embeddings.parquet"} <= set(expected)
    assert contents(killed) == expected
    assert not [path for path in killed.rglob(".*") if path.is_dir()], "what the kills left half-written is cleared"
    assert ended[-1][2] == ended[-2][2], "a second run does nothing again"


def test_the_second_stage_reads_long_histories_and_runs_no_item_llm(tmp_path, monkeypatch, interactions, items, values):
    """The catalogue is encoded once, before the stage; its steps and validations read stored vectors."""
    seen: list[tuple[str, int]] = []
    widths: dict[str, set[int]] = {}
    pool, users = TextItemEncoder.pool, SequentialRecommender.users

    def watched(self, vectors, batch):
        widths.setdefault(type(self.item_encoder).__name__, set()).add(batch.mask.shape[1])
        return users(self, vectors, batch)

    monkeypatch.setattr(SequentialRecommender, "users", watched)
    monkeypatch.setattr(
        TextItemEncoder, "pool", lambda self, batch: seen.append(("items", len(batch))) or pool(self, batch)
    )
    recipe = Recipe.from_dict(values, where="test")
    listen = (lambda event: seen.append(("stage", event["stage"])),)
    fit(interactions, items, recipe, tmp_path / "run", base=tmp_path, listeners=listen)
    end = {stage: len(seen) - 1 - seen[::-1].index(("stage", stage)) for stage in (0, 1)}
    start = seen.index(("stage", 1))
    assert seen[end[0] + 1 : start] == [("items", 30)]
    assert set(seen[start : end[1] + 1]) == {("stage", 1)}
    assert seen[end[1] + 1 :] == [("items", 30)], "the run's table, after training"
    assert {name: max(found) for name, found in widths.items()} == {"TextItemEncoder": 4, "CachedItemEncoder": 12}


@torch.no_grad()
def test_stored_vectors_recommend_as_items_encoded_live_do(trained, tmp_path):
    """Each user alone: texts through the Item LLM, in batches of their own, then the User LLM as in training."""
    run, dataset, model = trained.run, trained.dataset, trained.model
    tokens = catalogue_tokens(run, dataset, trained.recipe.model.item.text_prompt, run.best_path / ITEM_BACKBONE)
    everything = torch.cat([model.item_encoder(item_batch(np.array([n]), tokens)) for n in range(dataset.num_items)])
    stored_items = ItemEmbeddingTable.load(run.table_path, checkpoint=None).vectors
    assert (everything - stored_items).abs().max() <= 1e-5
    embed_run_users(run, tmp_path / "users")
    stored = UserEmbeddingTable.load(tmp_path / "users", checkpoint=None).vectors
    lists = trained.recommend(k=dataset.num_items, exclude_seen=False)
    nothing = Negatives(np.zeros(0, dtype=np.int64), None, np.ones(dataset.num_items))
    for user in range(dataset.num_users):
        history = dataset.history(user)[-trained.recipe.model.max_history :]
        window = np.append(history, 0)  # a training window ends with a target, which is not read
        zeros = [np.zeros(len(window), dtype=np.int64)]
        batch = sequence_batch([window], nothing, tokens, users=np.zeros(1, dtype=np.int64), times=zeros, actions=zeros)
        live = model.users(model.item_encoder(batch.items), batch)[0, len(history) - 1]
        assert (live - stored[user]).abs().max() <= 1e-5
        scores = torch.cosine_similarity(live[None], everything)
        own = lists.filter(pl.col("user_id") == dataset.users[user])
        places = [int(item[1:]) for item in own["item_id"]]
        assert own["score"].to_numpy() == pytest.approx(scores[places].numpy(), abs=1e-5)
