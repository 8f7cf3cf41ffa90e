"""Fetched models and data sets, and imported tables, are checked when they are read."""

import os
import shutil
from pathlib import Path

import pytest

from hllm import artifacts, checked
from hllm.checked import check_files, check_folder
from hllm.data.reading.tables import read_table
from hllm.data.schema import DataConfig
from hllm.errors import CheckpointError
from hllm.sources.data_sets import locate
from hllm.sources.language_models import resolve_backbone


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HLLM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """The names of the files that are hashed, in order."""
    names: list[str] = []
    original = artifacts.sha256_of
    monkeypatch.setattr(checked.artifacts, "sha256_of", lambda path: names.append(path.name) or original(path))
    return names


def make(folder: Path, kind: str = "data import", **files: bytes) -> Path:
    with artifacts.writing(folder, kind, {}) as partial:
        for name, content in files.items():
            (partial / name.replace("_", ".")).write_bytes(content)
    return folder


def flip(file: Path, *, keep_times: bool = False) -> None:
    """Change one bit in place."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    with file.open("r+b") as stream:
        stream.write(content)
    if keep_times:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path, hashed, keep_times):
    folder = make(tmp_path / "a", items_csv=b"item_id,title\n1,red\n", interactions_csv=b"user_id\n7\n")
    hashed.clear()
    for _ in range(3):
        check_folder(folder)
    assert sorted(hashed) == ["interactions.csv", "items.csv"]
    flip(folder / "items.csv", keep_times=keep_times)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"items\.csv is not as it was written: .*; make .* again, or remove"):
            check_folder(folder)
    check_files([folder / "interactions.csv"])
    flip(folder / "items.csv")
    check_folder(folder)


def test_a_copy_is_hashed_for_itself(tmp_path, hashed):
    folder = make(tmp_path / "a", items_csv=b"item_id,title\n1,red\n")
    check_folder(folder)
    copy = shutil.copytree(folder, tmp_path / "b")
    hashed.clear()
    check_folder(copy)
    assert hashed == ["items.csv"]
    (copy / "items.csv").unlink()
    with pytest.raises(CheckpointError, match=r"items\.csv is missing"):
        check_folder(copy)


def test_nothing_is_remembered_where_nothing_can_be_written(tmp_path, home, hashed):
    folder = make(tmp_path / "a", items_csv=b"item_id,title\n1,red\n")
    home.write_text("a file in its place")
    hashed.clear()
    check_folder(folder)
    check_folder(folder)
    assert hashed == ["items.csv"] * 2


@pytest.mark.parametrize("memory", ["", "[]", '{"manifest": 1}', "null", '{"manifest": "x", "files": 3}'])
def test_a_damaged_memory_is_of_no_account(tmp_path, home, memory):
    folder = make(tmp_path / "a", items_csv=b"item_id,title\n1,red\n")
    check_folder(folder)
    (file,) = (home / "checked").iterdir()
    file.write_text(memory)
    check_folder(folder)
    assert "items.csv" in file.read_text()


@pytest.mark.parametrize(
    "manifest", [b"", b"{}", b"[1]", b'{"name": "a web page", "icons": []}', b"\xff", b"[" * 100_000]
)
def test_a_manifest_of_others_says_nothing(tmp_path, manifest):
    (tmp_path / "manifest.json").write_bytes(manifest)
    (tmp_path / "items.csv").write_text("item_id,title\n1,red\n")
    assert read_table(tmp_path / "items.csv", name="items").height == 1


def test_an_imported_table_that_has_changed_is_refused_when_it_is_read(tmp_path, items):
    """One bit of an imported table gave another result in silence, or a panic of polars."""
    items.write_parquet(tmp_path / "items.parquet")
    folder = make(tmp_path / "shop", items_parquet=(tmp_path / "items.parquet").read_bytes())
    assert read_table(folder / "items.parquet", name="items").equals(items)
    flip(folder / "items.parquet")
    for source in (folder / "items.parquet", folder, folder / "*.parquet"):
        with pytest.raises(CheckpointError, match=r"items\.parquet is not as it was written: its SHA-256 is not the"):
            read_table(source, name="items")


def test_a_fetched_model_and_data_set_that_have_changed_are_refused(home):
    """One bit of a cached model's weights gave other numbers in silence."""
    model = make(home / "models" / "minilm-l6", "pre-trained model", model_safetensors=b"weights", config_json=b"{}")
    assert resolve_backbone("minilm-l6", Path()) == model
    flip(model / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not as .*; hllm model fetch minilm-l6$"):
        resolve_backbone("minilm-l6", Path())
    data = make(home / "data" / "movielens-100k", "data set", interactions_parquet=b"i", items_parquet=b"items")
    config = DataConfig(source="movielens-100k")
    assert locate(config, Path())[1] == data / "items.parquet"
    flip(data / "items.parquet")
    with pytest.raises(CheckpointError, match=r"items\.parquet is not as .*; hllm data fetch movielens-100k$"):
        locate(config, Path())
