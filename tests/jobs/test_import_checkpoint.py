"""Imported and merged weights become runs that every verb takes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from hllm.api import Recommender
from hllm.batches.batch import text_batch
from hllm.cli.main import main
from hllm.jobs.card import write_card
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.models.checkpoint import load_checkpoint
from hllm.models.published.weights import import_published
from hllm.runs.run import Run

REFERENCE = Path(__file__).parents[1] / "parity" / "fixtures" / "A"
SIZES = ("--max-history", "8", "--max-tokens", "32")
STAGE = """
[[stages]]
name = "{name}"
epochs = 1
batch_size = 8
learning_rate = 1e-2
"""


def called(*arguments: object) -> int:
    return main([*map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_llama, interactions, items) -> Path:
    """The base model with a tokenizer, the tables, and a recipe that names them and no more."""
    folder = tmp_path_factory.mktemp("imported")
    shutil.copytree(tiny_llama, folder / "base")
    shutil.copy(REFERENCE / "item_llm" / "config.json", folder / "base" / "config.json")
    interactions.write_csv(folder / "clicks.csv")
    items.write_csv(folder / "items.csv")
    (folder / "shop.toml").write_text(
        'precision = "fp32"\n[data]\ninteractions = "clicks.csv"\nitems = "items.csv"\n\n[evaluation]\nbootstrap_samples = 50\n'
    )
    return folder


@pytest.fixture(scope="module")
def imported(folder) -> Path:
    """The run of one command."""
    arguments = ("import-checkpoint", REFERENCE / "pytorch_model.bin", "--backbone", folder / "base", *SIZES)
    assert called(*arguments, "--recipe", folder / "shop.toml", "--out", folder / "run") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def merged(folder, imported) -> Path:
    """A run whose LoRA additions, trained upon the imported one, were made part of its weights."""
    on_top = f'[start]\nweights = "{imported}"\n[model.item.lora]\nrank = 2\n'
    text = (folder / "shop.toml").read_text() + on_top + STAGE.format(name="lora")
    (folder / "lora.toml").write_text(text)
    assert called("train", folder / "lora.toml", "--out", folder / "lora") == 0
    start = (f"start.weights={folder / 'lora'}", "start.merge_lora=true")
    sets = [part for each in start for part in ("--set", each)]
    assert called("train", folder / "shop.toml", *sets, "--out", folder / "merged") == 0
    return folder / "merged"


@pytest.fixture(params=["imported", "merged"])
def run(request, tmp_path) -> Path:
    return shutil.copytree(request.getfixturevalue(request.param), tmp_path / "run")


def test_the_run_holds_the_files_own_weights(imported):
    published = torch.load(REFERENCE / "pytorch_model.bin", weights_only=True)
    model, config, manifest = load_checkpoint(Run(imported).best_path)
    found = model.state_dict()
    assert torch.equal(found["item_encoder.item_token"], published["item_emb_tokens"][0])
    for tier, llm in (("item_encoder", "item_llm"), ("user_encoder", "user_llm")):
        name = "layers.1.mlp.up_proj.weight"
        assert torch.equal(found[f"{tier}.backbone.network.{name}"], published[f"{llm}.model.{name}"])
    assert found["log_scale"] == published["logit_scale"]
    assert (config.max_history, config.item.prompt.max_tokens) == (8, 32)
    assert manifest.details["imported"]["file"] == "pytorch_model.bin"
    assert not [path for path in imported.parent.iterdir() if path.name.startswith(".import")]


def test_its_item_vectors_are_those_of_the_papers_prompt(imported, folder, tmp_path):
    sizes = {"max_history": 8, "max_tokens": 32}
    base = {"item_config": folder / "base", "user_config": folder / "base"}
    import_published(REFERENCE / "pytorch_model.bin", out=tmp_path / "c", **base, **sizes)
    model, _, _ = load_checkpoint(tmp_path / "c")
    row = pl.read_csv(folder / "items.csv").row(7, named=True)
    text = f"Compress the following sentence into embedding: title: {row['title']}kind: {row['kind']}"
    tokenize, _ = load_tokenizer(folder / "base", 32)
    with torch.no_grad():
        expected = model.item_encoder(text_batch(tokenize([text])))[0]
    recommender = Recommender.load(imported)
    (place,) = recommender.dataset.item_rows(pl.Series(["i7"]))
    torch.testing.assert_close(recommender.scorer.table[place].cpu(), expected, rtol=0, atol=1e-5)


def test_its_options_are_the_references_unless_the_recipe_says_otherwise(imported, folder, tmp_path):
    recipe = Run(imported).read_recipe()
    assert (recipe.compat, recipe.seed, recipe.select_by) == ("reference", 2020, "ndcg@200")
    assert recipe.data.unknown_items == "keep"
    assert [stage.epochs for stage in recipe.stages] == [0]
    arguments = ("import-checkpoint", REFERENCE / "pytorch_model.bin", "--backbone", folder / "base", *SIZES)
    code = called(
        *arguments, "--recipe", folder / "shop.toml", "--set", "compat=none", "--set", "seed=7", "--out", tmp_path / "x"
    )
    assert code == 0
    other = Run(tmp_path / "x").read_recipe()
    assert (other.compat, other.seed, other.select_by) == ("none", 7, "ndcg@10")


def test_every_verb_takes_the_run(run, tmp_path, interactions, capsys):
    assert called("evaluate", "--run", run, "--baselines", "popularity") == 0
    assert "starts with weights imported from pytorch_model.bin (sha256 " in capsys.readouterr().out
    assert called("recommend", "--run", run, "--user", "u3") == 0
    assert called("similar", "--run", run, "--text", "title: red shoe") == 0
    assert called("embed", "--run", run, "--out", tmp_path / "items") == 0
    assert called("embed-users", "--run", run, "--out", tmp_path / "users") == 0
    assert called("report", "--run", run) == 0
    assert called("export-model", run, "--dtype", "int8", "--out", tmp_path / "int8") == 0
    assert called("recommend", "--run", tmp_path / "int8", "--user", "u3") == 0
    card = write_card(Run(run)).read_text()
    assert "**Start**: starts with weights imported from pytorch_model.bin (sha256 " in card
    assert "nothing (0 epochs: the weights stay as they are)" in card
    new = interactions.filter(pl.col("user_id") == "u1").head(3).with_columns(timestamp=pl.lit(99_000))
    new.write_csv(tmp_path / "new.csv")
    assert called("fine-tune", run, "--interactions", tmp_path / "new.csv", "--out", tmp_path / "tuned") == 0
    tuned = Recommender.load(tmp_path / "tuned")
    assert tuned.run.position().step > 0
    assert tuned.recipe.start.imported.file == "pytorch_model.bin"


def test_stages_train_on_top_of_the_run(run, folder, tmp_path):
    text = (folder / "shop.toml").read_text() + f'[start]\nweights = "{run}"\n' + STAGE.format(name="on top")
    (tmp_path / "top.toml").write_text(
        text.replace('"clicks', f'"{folder}/clicks').replace('"items', f'"{folder}/items')
    )
    assert called("train", tmp_path / "top.toml", "--set", "compat=none", "--out", tmp_path / "top") == 0
    before, after = Recommender.load(run), Recommender.load(tmp_path / "top")
    assert after.run.position().step > 0
    weights = [each.model.state_dict()["user_encoder.backbone.network.norm.weight"].cpu() for each in (before, after)]
    assert 0 < (weights[0] - weights[1]).abs().max() < 0.5
    assert after.recipe.model.max_history == 8


def test_the_import_trains_a_recipes_stages_in_the_same_command(folder, tmp_path):
    (folder / "staged.toml").write_text((folder / "shop.toml").read_text() + STAGE.format(name="one"))
    arguments = ("import-checkpoint", REFERENCE / "pytorch_model.bin", "--backbone", folder / "base", *SIZES)
    again = [*arguments, "--recipe", folder / "staged.toml", "--out", tmp_path / "run"]
    assert called(*again) == 0
    steps = Run(tmp_path / "run").position().step
    assert steps > 0
    assert called(*again) == 0  # finished: nothing is done again
    assert Run(tmp_path / "run").position().step == steps


def test_merging_changes_no_score(folder, merged):
    lora, plain = Recommender.load(folder / "lora"), Recommender.load(merged)
    assert lora.recipe.model.item.lora is not None
    assert plain.recipe.model.item.lora is None
    assert not [name for name in plain.model.state_dict() if "lora" in name]
    found, expected = (each.scorer.table.cpu().numpy() for each in (plain, lora))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def refused(capsys, *arguments: object) -> str:
    capsys.readouterr()
    assert called(*arguments) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err


def test_what_cannot_be_imported_into_a_run_is_refused(folder, tmp_path, capsys):
    weights = REFERENCE / "pytorch_model.bin"
    given = ("--recipe", folder / "shop.toml", "--out", tmp_path / "run", *SIZES)
    base = ("--backbone", folder / "base")
    assert "give --backbone, the base model of both tiers" in refused(capsys, "import-checkpoint", weights, *given)
    assert "is neither a known model" in refused(capsys, "import-checkpoint", weights, "--backbone", "x", *given)
    err = refused(capsys, "import-checkpoint", weights, "--backbone", REFERENCE / "item_llm", *given)
    assert "the items' texts cannot be read without a tokenizer" in err
    wide = shutil.copytree(folder / "base", tmp_path / "wide")
    config = json.loads((wide / "config.json").read_text()) | {"hidden_size": 64}
    (wide / "config.json").write_text(json.dumps(config))
    assert "does not fit the configs" in refused(capsys, "import-checkpoint", weights, "--backbone", wide, *given)
    (tmp_path / "none.toml").write_text('about = "no tables"\n')
    err = refused(capsys, "import-checkpoint", weights, *base, "--recipe", tmp_path / "none.toml", *given[2:])
    assert "data: name a source such as" in err
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert "is not empty and holds no run" in refused(capsys, "import-checkpoint", weights, *base, *given)
    err = refused(capsys, "import-checkpoint", weights, *base, "--set", "seed=2", "--out", tmp_path / "c")
    assert "--set changes a recipe, and there is none" in err


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ('[start]\nweights = "nowhere"\n', "holds neither a run nor a checkpoint"),
        ('[start]\nweights = "RUN"\n[model]\ntemperature = 0.1\n', "model.temperature is that of start.weights"),
        ('[start]\nweights = "RUN"\n[model.item]\nbackbone = "x"\n', "model.item.backbone is that of start.weights"),
        ('[start]\nweights = "RUN"\n[model.item]\npooling = "mean"\n', "do not fit the model"),
        ('[start]\nweights = "RUN"\n[model.item]\nwhiten = true\n', "do not fit the model"),
        ('[start]\nweigths = "RUN"\n', "did you mean"),
    ],
)
def test_a_start_that_cannot_be_is_refused(imported, folder, tmp_path, capsys, lines, sentence):
    recipe = folder / "wrong.toml"
    recipe.write_text((folder / "shop.toml").read_text() + lines.replace("RUN", str(imported)))
    assert sentence in refused(capsys, "train", recipe, "--out", tmp_path / "run")


def test_an_export_is_no_start(imported, folder, tmp_path, capsys):
    assert called("export-model", imported, "--dtype", "bf16", "--out", tmp_path / "bf16") == 0
    start = ("--set", f"start.weights={tmp_path / 'bf16'}")
    err = refused(capsys, "train", folder / "shop.toml", *start, "--out", tmp_path / "run")
    assert "holds weights in bf16, made by hllm export-model for use, not for training" in err


def test_a_start_that_was_replaced_is_noticed(imported, folder, tmp_path, capsys):
    """A run that stopped goes on from the same weights only."""
    other = shutil.copytree(imported, tmp_path / "other")
    start = ("--set", f"start.weights={other}")
    assert called("train", folder / "shop.toml", *start, "--out", tmp_path / "run") == 0
    shutil.rmtree(other)
    state = torch.load(REFERENCE / "pytorch_model.bin", weights_only=True)
    torch.save(state | {"logit_scale": torch.tensor(1.0)}, tmp_path / "w.bin")
    arguments = ("import-checkpoint", tmp_path / "w.bin", "--backbone", folder / "base", *SIZES)
    assert called(*arguments, "--out", other) == 0
    err = refused(capsys, "train", folder / "shop.toml", *start, "--out", tmp_path / "run")
    assert re.search(r"holds a run of another recipe \(they differ in: .*start\)", err)
