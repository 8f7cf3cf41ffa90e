"""Directories that somebody else made, sealed as they should be, with things in them that lead elsewhere."""

import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hllm import artifacts
from hllm.api import Recommender
from hllm.config import Config
from hllm.data.dataset import Dataset
from hllm.data.importing.import_layout import import_layout
from hllm.data.schema import DataConfig
from hllm.embedding.table import ItemEmbeddingTable
from hllm.errors import CheckpointError, ConfigError
from hllm.models.backbone.backbone import load_backbone
from hllm.models.backbone.tokenizer import load_tokenizer
from hllm.models.checkpoint import load_checkpoint
from hllm.recipe.recipe import Recipe
from hllm.reports.model_card import _code, _plain
from hllm.retrieval.index.retriever import build_index, source_of
from hllm.runs.run import Run
from tests.cli.test_sockets import watched
from tests.conftest import recipe_values

pytestmark = pytest.mark.reliability("strangers")


@pytest.fixture
def run(trained_folder, tmp_path) -> Path:
    return shutil.copytree(trained_folder, tmp_path / "stranger")


@pytest.fixture
def precious(tmp_path) -> Path:
    """A directory of the caller, with a file, that nothing may change or read."""
    folder = tmp_path / "precious"
    (folder / "step-00000001").mkdir(parents=True)
    (folder / "letter").write_text("mine")
    return folder


@pytest.mark.parametrize(
    "place",
    ["checkpoints", "tensorboard", "evaluations.jsonl", "metrics.jsonl", "dataset/more", "index", "a/b", "README.md"],
)
@pytest.mark.parametrize("way", ["absolute", "relative", "dangling"])
def test_a_link_that_leads_out_of_a_run_is_refused(run, precious, recipe, place, way):
    """Evaluating a run appended to whatever evaluations.jsonl was linked to; training cleared linked folders."""
    link = run / place
    if link.is_dir():
        link.rename(run.parent / "taken")
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    target = precious if "." not in place else precious / "letter"
    if way == "relative":
        target = Path(os.path.relpath(target, link.parent))
    link.symlink_to(precious / "nothing" if way == "dangling" else target)
    before = {path: path.stat().st_mtime_ns for path in [precious, *precious.rglob("*")]}
    for use in (Recommender.load, lambda folder: Run(folder).require_room_for(recipe)):
        with pytest.raises(
            CheckpointError, match=r"is a symbolic link that leads out of the run; .* Put what it leads"
        ):
            use(run)
    assert {path: path.stat().st_mtime_ns for path in [precious, *precious.rglob("*")]} == before


def test_links_inside_of_a_run_and_to_a_run_are_followed(run, tmp_path):
    (run / "checkpoints" / "best").rename(run / "checkpoints" / "kept")
    (run / "checkpoints" / "best").symlink_to("kept")
    (tmp_path / "link").symlink_to(run)
    assert len(Recommender.load(tmp_path / "link").recommend(["u3"])) == 10


@pytest.mark.parametrize("name", ["../letter", "/etc/hostname", "a/../../letter", "dataset/../../letter"])
@pytest.mark.parametrize("part", ["dataset", "table", "tokens", "checkpoints/best"])
def test_a_manifest_that_names_files_elsewhere_is_refused(run, reseal, part, name):
    folder = run / part

    def named(manifest):
        manifest["files"][name] = "0" * 64

    reseal(folder, named)
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged: .*which is not inside of the directory"):
        artifacts.verify(folder, json.loads((folder / "manifest.json").read_text())["kind"])


def test_pickles_in_arrays_are_not_opened(run, reseal, tmp_path):
    """numpy can keep pickled objects, which run code when they are read."""

    class Canary:
        def __reduce__(self):
            return Path.touch, (tmp_path / "canary",)

    for file in (run / "table" / "vectors.npy", run / "table" / "keys.npy"):
        if file.is_file():
            np.save(file, np.array([Canary()], dtype=object), allow_pickle=True)
    reseal(run / "table")
    with pytest.raises((CheckpointError, ValueError), match=r"pickle|Object arrays|objects"):
        ItemEmbeddingTable.load(
            run / "table", checkpoint=artifacts.read_manifest(run / "checkpoints/best", "checkpoint").fingerprint
        )
    assert not (tmp_path / "canary").exists()


def test_a_recipe_writes_below_the_working_folder_only(tiny_bert, tiny_llama):
    """data.quarantine = "../../x" in a recipe wrote there."""
    for place in ("../../x", "/tmp/x", "a/../../x", "~/x"):
        values = recipe_values(tiny_bert, tiny_llama) | {"data": {"quarantine": place}}
        with pytest.raises(
            ConfigError, match=r"quarantine is '.*', which a recipe may not write to; expected a folder"
        ):
            Recipe.from_dict(values, where="test")
    values = recipe_values(tiny_bert, tiny_llama) | {"data": {"quarantine": "faults/films"}}
    assert Recipe.from_dict(values, where="test").data.quarantine == "faults/films"


def test_a_checkpoint_keeps_no_path_of_the_machine_that_made_it(trained_folder, tiny_bert, tiny_llama):
    best = trained_folder / "checkpoints" / "best"
    texts = [path.read_text() for path in best.rglob("*.json")]
    assert len(texts) >= 4
    for folder in (tiny_bert.parent, tiny_llama.parent, trained_folder.parent):
        assert not any(str(folder) in text for text in texts)
    _, config, _ = load_checkpoint(best)
    assert config.item.backbone == tiny_bert.name


def test_free_text_in_a_card_is_neither_image_nor_link_nor_markup():
    for nasty in (
        "![x](http://evil.example/pixel.png)",
        "[click](javascript:alert(1))",
        '<img src="http://evil.example/p.png">',
        "[x]: http://evil.example/p.png\n\n![y][x]",
        "`code` ![z][x]",
        "\\![x](http://evil.example/pixel.png)",
        "\\\\![x](http://evil.example/pixel.png)",
    ):
        rendered = _rendered(_plain(nasty))
        assert not re.search(r"<(img|a|script|code)\b", rendered), rendered
        assert not re.search(r"<(img|a|script)\b", _rendered(f"{_code(nasty)} and more"))


def _rendered(markdown: str) -> str:
    return pytest.importorskip("markdown").markdown(markdown)


def test_a_dataset_of_a_stranger_is_read_as_data(run, reseal, tmp_path):
    """Ids and titles that look like paths, patterns or addresses are texts."""
    nasty = ["../../../etc/passwd", "file:///etc/passwd", "http://evil.example/x", "*.parquet", "s3://b/k"]
    frame = pl.read_parquet(run / "dataset" / "items.parquet")
    titles = pl.Series("title", [nasty[n % 5] for n in range(len(frame))])
    frame.with_columns(titles).write_parquet(run / "dataset" / "items.parquet")
    reseal(run / "dataset")
    assert Dataset.load(run / "dataset").titles.to_list()[:5] == nasty


@pytest.mark.parametrize("code", ["config", "model", "tokenizer"])
def test_code_in_a_model_directory_is_not_run(tmp_path, tiny_llama, code):
    """`auto_map` names classes in Python files of the directory."""
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Evil: pass\n")
    names = {"config": "AutoConfig", "model": "AutoModel", "tokenizer": "AutoTokenizer"}
    file = folder / ("tokenizer_config.json" if code == "tokenizer" else "config.json")
    values = json.loads(file.read_text())
    values["auto_map"] = {names[code]: ["evil.Evil", None] if code == "tokenizer" else "evil.Evil"}
    for other in ({}, {"model_type": "evil"}, {"tokenizer_class": "Evil"}):
        file.write_text(json.dumps(values | other))
        with suppress(ConfigError, CheckpointError):
            load_backbone(folder, num_layers=None, pretrained=True)
            load_tokenizer(folder, 8)
    assert not (tmp_path / "canary").exists()


def test_an_adapter_in_a_model_directory_is_not_added_in_silence(tmp_path, tiny_llama):
    """transformers adds what adapter_config.json names to the model, with its own weights, and says nothing."""
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "other")}))
    with pytest.raises(ConfigError, match=r"holds a LoRA adapter beside its weights: make it part of them"):
        load_backbone(folder, num_layers=None, pretrained=True)


@pytest.mark.parametrize("part", ["dataset", "table", "checkpoints/best", "index"])
def test_a_sealed_part_that_lacks_what_it_should_hold_is_refused_in_a_sentence(run, reseal, part):
    """Whoever seals a directory can leave out what is read from it: every verb ended in a traceback then."""
    recommender = Recommender.load(run)
    build_index(recommender.scorer, recommender.dataset, source=source_of(run / "table")).save(run / "index")
    folder = run / part
    keys = {
        "dataset": ["item_col", "text_cols", "title_col", "action_names"],
        "table": ["checkpoint", "dtype"],
        "checkpoints/best": ["model", "num_items", "num_actions"],
        "index": ["source", "config", "longest", "certificate"],
    }
    original = (folder / "manifest.json").read_bytes()
    for key in keys[part]:
        for value in ("missing", None, -5, [1], {"a": 1}):

            def changed(manifest, key=key, value=value):
                manifest["details"][key] = value
                if value == "missing":
                    del manifest["details"][key]

            if (key, value) not in (("certificate", None), ("longest", -5)):  # which may be
                reseal(folder, changed)
                with pytest.raises((CheckpointError, ConfigError)):
                    _ = Recommender.load(run).bundle.index
                (folder / "manifest.json").write_bytes(original)
    for file in (*folder.rglob("*.npy"), *folder.rglob("*.parquet"), *folder.glob("*.safetensors")):
        content = file.read_bytes()
        for other in (b"", content[: len(content) // 2], b"\x80\x04" * (len(content) // 2)):
            file.write_bytes(other)
            reseal(folder)
            with pytest.raises(CheckpointError):
                _ = Recommender.load(run).bundle.index
        file.write_bytes(content)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/internal", "stranger/store", "/tmp/store"])
def test_a_run_whose_index_names_a_server_connects_to_nothing(run, reseal, server_and_key, url):
    """Recommending from a stranger's run sent a key to the host in its index, or unpickled a directory there."""
    recommender = Recommender.load(run)
    build_index(recommender.scorer, recommender.dataset, source=source_of(run / "table")).save(run / "index")
    (run / "index" / "collection.json").write_text('{"collection": "c", "build": "b"}')

    def named(manifest):
        manifest["details"]["config"] |= {"kind": "qdrant", "url": url}
        content = (run / "index" / "collection.json").read_bytes()
        manifest["files"]["collection.json"] = hashlib.sha256(content).hexdigest()

    reseal(run / "index", named)
    with (
        watched() as found,
        pytest.raises((CheckpointError, ConfigError), match=r"connects to none|address of a Qdrant"),
    ):
        Recommender.load(run).recommend(["u3"])
    assert found == []


@pytest.fixture
def server_and_key(monkeypatch):
    """The caller has a server and a key of his own."""
    monkeypatch.setenv("QDRANT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("QDRANT_API_KEY", "secret")


def test_a_copy_of_a_run_whose_manifest_was_changed_is_refused(trained, tmp_path):
    """The manifest that `save` and an export write was never looked at."""
    trained.save(tmp_path / "copy")
    assert len(Recommender.load(tmp_path / "copy").recommend(["u3"])) == 10
    file = tmp_path / "copy" / "manifest.json"
    file.write_text(file.read_text().replace('"kind": "run"', '"kind": "ran"'))
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged|holds a ran, expected a run"):
        Recommender.load(tmp_path / "copy")


@pytest.fixture
def imported(tmp_path, interactions, items) -> Path:
    interactions.write_parquet(tmp_path / "interactions.parquet")
    items.write_parquet(tmp_path / "items.parquet")
    paths = {"interactions": tmp_path / "interactions.parquet", "items": tmp_path / "items.parquet"}
    import_layout("table", tmp_path, out=tmp_path / "shop", **paths)
    return tmp_path / "shop"


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('interactions = "../interactions.parquet"', "names interactions outside its folder"),
        ('items = "/etc/passwd"', "names items outside its folder"),
        ('items = ".."', "names items outside its folder"),
        ('quarantine = "../../x"', "names a place to write to, quarantine; name it yourself"),
        ('quarantine = "faults"', "names a place to write to, quarantine; name it yourself"),
        ('from = "../other"', "unknown key 'data.from'"),
    ],
)
def test_the_table_of_an_imported_folder_names_its_own_files_alone(imported, reseal, line, match):
    file = imported / "data.toml"
    key = line.split(" = ")[0]
    kept = [each for each in file.read_text().splitlines() if not each.startswith(f"{key} = ")]
    file.write_text("\n".join([kept[0], line, *kept[1:]]))
    with pytest.raises(ConfigError, match=r"data\.toml is not as it was written"):
        Source.from_dict({"data": {"from": str(imported)}}, where="test")
    reseal(imported)
    with pytest.raises(ConfigError, match=match):
        Source.from_dict({"data": {"from": str(imported)}}, where="test")


def test_a_table_of_an_imported_folder_that_is_a_link_out_of_it_is_refused(imported, tmp_path):
    (imported / "items.parquet").rename(tmp_path / "private.parquet")
    (imported / "items.parquet").symlink_to("../private.parquet")
    with pytest.raises(ConfigError, match="names items outside its folder"):
        Source.from_dict({"data": {"from": str(imported)}}, where="test")


class Source(Config):
    """The one table of a recipe that is needed here."""

    data: DataConfig
