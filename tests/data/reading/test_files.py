"""A path means the file of that name, whatever its letters; only what no file is called may be a pattern."""

import ast
from pathlib import Path

import polars as pl
import pytest
import torch

import hllm
from hllm.data.dataset import Dataset
from hllm.data.importing.import_layout import import_layout
from hllm.data.reading.files import find_files
from hllm.data.reading.tables import read_table
from hllm.embedding.table import ItemEmbeddingTable, save_items

SRC = Path(hllm.__file__).parent
READERS = {f"{how}_{kind}" for how in ("scan", "read") for kind in ("csv", "parquet", "ipc", "csv_batched")}


def test_no_path_is_given_to_polars_as_a_pattern():
    """Polars took `log[1].csv` for a pattern and read `log1.csv`, after the hash of the other had been checked."""
    calls = [
        (f"{file.relative_to(SRC)}:{node.lineno}", node)
        for file in SRC.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "pl" and node.func.attr in READERS
    ]
    assert len(calls) > 10
    assert [place for place, node in calls if "glob" not in {option.arg for option in node.keywords}] == []


@pytest.mark.parametrize("name", ["log[1]", "log*", "log?", "l[!x]g1", "{log1,log2}", "a=1"])
@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz"])
def test_a_name_with_letters_of_patterns_is_a_name(tmp_path, name, kind):
    for stem, value in (("log1", "other"), ("log2", "other"), (name, "own")):
        write(pl.DataFrame({"a": [value]}), tmp_path / f"{stem}{kind}")
    assert read_table(tmp_path / f"{name}{kind}", name="items")["a"].to_list() == ["own"]


def test_a_folder_with_letters_of_patterns_is_that_folder(tmp_path):
    for folder, value in (("v[2]", "own"), ("v2", "other")):
        (tmp_path / folder).mkdir()
        for n in (1, 2):
            pl.DataFrame({"a": [f"{value} {n}"]}).write_parquet(tmp_path / folder / f"part-{n}.parquet")
    assert read_table(tmp_path / "v[2]", name="items")["a"].to_list() == ["own 1", "own 2"]
    assert read_table(tmp_path / "v[2]" / "part-*.parquet", name="items")["a"].to_list() == ["own 1", "own 2"]
    assert [file.parent.name for file in find_files(tmp_path / "v[1-3]" / "part-1.parquet", name="items")] == ["v2"]


def test_an_import_into_a_folder_with_letters_of_patterns(tmp_path):
    source = tmp_path / "ml[1m]"
    source.mkdir()
    (source / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.0,1111111111\n")
    (source / "movies.csv").write_text("movieId,title,genres\n10,A (1995),Drama\n")
    done = import_layout("movielens", source, out=tmp_path / "out [2]*")
    assert (done.num_users, done.num_items) == (1, 1)


def test_tables_and_datasets_in_folders_with_letters_of_patterns_keep_their_own_ids(tmp_path, dataset):
    """An item table `t[1]` beside `t1` gave out the vectors of one with the ids of the other."""
    ids, vectors = dataset.item_ids, torch.zeros(len(dataset.item_ids), 4)
    for folder, its_ids in (("t[1]", ids), ("t1", ids.reverse())):
        save_items(tmp_path / folder, its_ids, vectors, checkpoint="c")
    assert ItemEmbeddingTable.load(tmp_path / "t[1]", checkpoint="c").ids.equals(ids)
    dataset.save(tmp_path / "d[1]")
    assert Dataset.load(tmp_path / "d[1]").fingerprint == dataset.fingerprint


def write(frame: pl.DataFrame, path: Path) -> None:
    """Write the frame as the name says."""
    match path.suffix:
        case ".parquet":
            frame.write_parquet(path)
        case ".jsonl":
            frame.write_ndjson(path)
        case ".gz":
            frame.write_csv(path, compression="gzip")
        case suffix:
            frame.write_csv(path, separator="\t" if suffix == ".tsv" else ",")
