"""Training reads the whole catalogue only when it must, and keeps the vectors of the right model."""

import copy
import shutil

import pytest
import torch

from hllm.embedding.table import ItemEmbeddingTable
from hllm.models.item.text import TextItemEncoder
from hllm.recipe.recipe import Recipe
from hllm.runs.run import Run
from hllm.runs.tables import embed_run_items
from hllm.training.fit import fit
from hllm.training.update import Updates
from hllm.training.validation import Validation
from tests.conftest import recipe_values

NUM_ITEMS = 30
AVERAGED, REUSED = {"ema": 0.5}, {"reuse": {"share": 0.5}}


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Note steps, validations, each better than the one before, and that the language model reads the catalogue."""
    noted: list[str] = []
    pool, step, metrics = TextItemEncoder.pool, Updates.take, Validation.metrics

    def noting_pool(self, items):
        if len(items.index) == NUM_ITEMS:
            noted.append("catalogue")
        return pool(self, items)

    def noting_step(self, *arguments):
        if noted[-1:] != ["steps"]:
            noted.append("steps")
        return step(self, *arguments)

    def noting_metrics(self, *arguments):
        noted.append("validation")
        return metrics(self, *arguments) | {self.recipe.select_by: float(len(noted))}

    monkeypatch.setattr(TextItemEncoder, "pool", noting_pool)
    monkeypatch.setattr(Updates, "take", noting_step)
    monkeypatch.setattr(Validation, "metrics", noting_metrics)
    return noted


@pytest.fixture
def values(tiny_llama, tiny_bert) -> dict:
    """Frozen, then both tiers, then frozen; of the tiny items a step never reads all."""
    values = recipe_values(tiny_bert, tiny_llama)
    common = {
        "epochs": 1,
        "batch_size": 2,
        "objective": {"negatives": {"kind": "sampled", "num_sampled": 2}},
        "learning_rate": 1e-3,
    }
    frozen = common | {"item_tier": "frozen"}
    values["stages"] = [frozen, common, frozen | {"learning_rate": 1e-2}]
    return values


def table_and_what_the_checkpoint_gives(run: Run, folder) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vectors of a run's own table, and those that its best checkpoint, read from disk, encodes anew."""
    shutil.copytree(run.folder, folder / "copy")
    shutil.rmtree(Run(folder / "copy").table_path)
    embed_run_items(Run(folder / "copy"), folder / "encoded")
    load = ItemEmbeddingTable.load
    return load(run.table_path, checkpoint=None).vectors, load(folder / "encoded", checkpoint=None).vectors


@pytest.mark.parametrize("settings", [{}, REUSED])
def test_the_catalogue_is_read_once_for_all_that_wants_it(tmp_path, interactions, items, values, read, settings):
    """At first for whitening and the first stage; then for a validation, the stage behind it and the run's table."""
    values["stages"][1] |= settings
    run = fit(interactions, items, Recipe.from_dict(values, where="test"), tmp_path / "run", base=tmp_path)
    assert read == [
        *("catalogue", "steps", "validation"),
        *("steps", "catalogue", "validation"),
        *("steps", "validation"),
    ]
    ours, encoded = table_and_what_the_checkpoint_gives(run, tmp_path)
    assert torch.allclose(ours, encoded, rtol=0, atol=1e-5)


def test_vectors_of_averaged_weights_are_not_taken_for_the_models(tmp_path, interactions, items, values, read):
    """After a validation of the averages training goes on from the weights themselves."""
    values["stages"] = values["stages"][1:]
    values["stages"][0] |= AVERAGED | {"epochs": 2, "learning_rate": 1e-2}
    run = fit(interactions, items, Recipe.from_dict(values, where="test"), tmp_path / "run", base=tmp_path)
    epoch, last = ("steps", "catalogue", "validation"), ("catalogue", "steps", "validation")
    assert read == ["catalogue", *epoch, *epoch, *last]
    ours, encoded = table_and_what_the_checkpoint_gives(run, tmp_path)
    assert torch.allclose(ours, encoded, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, AVERAGED])
@pytest.mark.parametrize("best", [0, 1])
def test_the_table_is_the_best_checkpoints(tmp_path, monkeypatch, interactions, items, values, best, settings):
    """Whether the last validation was the best one or not."""
    values["stages"] = [values["stages"][1] | settings | {"epochs": 2, "learning_rate": 1e-2}]
    chosen = iter([float(best == 0), 0.5])
    monkeypatch.setattr(Validation, "metrics", lambda self, *_: {self.recipe.select_by: next(chosen)})
    run = fit(interactions, items, Recipe.from_dict(values, where="test"), tmp_path / "run", base=tmp_path)
    ours, encoded = table_and_what_the_checkpoint_gives(run, tmp_path)
    assert torch.allclose(ours, encoded, rtol=0, atol=1e-5)


def test_a_new_start_from_the_best_weights_reads_anew(tmp_path, monkeypatch, interactions, items, values, read):
    """The stage before ended worse than it had been, so the vectors of its end are not those that the next begins with."""
    both = values["stages"][1] | {"epochs": 2, "learning_rate": 1e-2}
    values["stages"] = [both, copy.deepcopy(values["stages"][2]) | {"start": "best"}]
    values["model"]["item"]["whiten"] = False
    chosen = iter([1.0, 0.5, 2.0])

    def metrics(self, *_):
        read.append("validation")
        return {self.recipe.select_by: next(chosen)}

    monkeypatch.setattr(Validation, "metrics", metrics)
    run = fit(interactions, items, Recipe.from_dict(values, where="test"), tmp_path / "run", base=tmp_path)
    epoch = ("steps", "catalogue", "validation")
    assert read == [*epoch, *epoch, "catalogue", "steps", "validation"]
    ours, encoded = table_and_what_the_checkpoint_gives(run, tmp_path)
    assert torch.allclose(ours, encoded, rtol=0, atol=1e-5)
