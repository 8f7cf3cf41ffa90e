import json

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from hllm.embedding.table import ItemEmbeddingTable


def test_embed_then_export_in_every_format(hllm, trained_folder, tmp_path):
    code, out, _ = hllm("embed", "--run", trained_folder, "--out", tmp_path / "items", "--dtype", "int8")
    assert code == 0
    assert "30 items of 16 numbers in int8, 0 encoded; cosine error at most" in out
    table = ItemEmbeddingTable.load(tmp_path / "items", checkpoint=None)
    for form in ("parquet", "npy", "safetensors"):
        folder = tmp_path / form
        code, out, _ = hllm("export-vectors", "--table", tmp_path / "items", "--out", folder, "--format", form)
        assert (code, out) == (0, f"{folder}: 30 vectors of 16 numbers\n")
    frame = pl.read_parquet(tmp_path / "parquet" / "embeddings.parquet")
    assert frame.schema["embedding"] == pl.Array(pl.Float32, 16)
    assert frame["item_id"].to_list() == [f"i{n}" for n in range(30)]
    vectors = table.vectors.numpy()
    assert (frame["embedding"].to_numpy() == vectors).all()
    assert (np.load(tmp_path / "npy" / "embeddings.npy") == vectors).all()
    assert (load_file(tmp_path / "safetensors" / "embeddings.safetensors")["embeddings"] == vectors).all()
    for form in ("npy", "safetensors"):
        assert pl.read_parquet(tmp_path / form / "item_ids.parquet")["item_id"].to_list() == frame["item_id"].to_list()
    code, out, _ = hllm("export-vectors", "--table", tmp_path / "items", "--out", tmp_path / "npy", "--format", "npy")
    assert (code, "they were there already" in out) == (0, True)
    code, _, err = hllm("export-vectors", "--table", tmp_path / "items", "--out", tmp_path / "npy")
    message = "exists already, and is no parquet export of this table; give a new directory"
    assert (code, message in err) == (2, True)


def test_embed_users_since_a_date_and_in_shards(hllm, trained_folder, tmp_path):
    """User u10 stops 1,510 seconds after 1970 began, at 00:25:10, and u11 after that."""
    arguments = ["embed-users", "--run", trained_folder, "--out", tmp_path / "users"]
    arguments += ["--active-since", "1970-01-01 00:25:10"]
    code, out, _ = hllm(*arguments, "--shard", "2/2")
    assert (code, "1 are missing; when all are, repeat the call without --shard" in out) == (0, True)
    code, out, _ = hllm(*arguments, "--json")
    found = json.loads(out)
    assert (code, found["num_rows"], found["shape"], found["dtype"]) == (0, 2, [2, 16], "fp32")
    code, _, _ = hllm("export-vectors", "--table", tmp_path / "users", "--out", tmp_path / "features")
    frame = pl.read_parquet(tmp_path / "features" / "embeddings.parquet")
    assert (code, frame["user_id"].to_list()) == (0, ["u10", "u11"])


def test_recommend_for_a_table(hllm, trained_folder, tmp_path):
    (tmp_path / "users.csv").write_text("user_id\nu3\nnobody\n")
    arguments = ["recommend", "--run", trained_folder, "--input", tmp_path / "users.csv"]
    arguments += ["--output", tmp_path / "recs.parquet", "-k", "3"]
    code, _, err = hllm(*arguments)
    assert (code, "1 of 2 rows name no known user" in err) == (2, True)
    code, out, _ = hllm(*arguments, "--unknown", "popularity")
    assert code == 0
    assert "6 rows for 2 users" in out
    assert "1 without a history got popular items (source \"popularity\"); first: 'nobody'" in out
    assert pl.read_parquet(tmp_path / "recs.parquet")["source"].to_list() == ["model"] * 3 + ["popularity"] * 3
    arguments[6] = tmp_path / "again.parquet"
    code, out, _ = hllm(*arguments, "--unknown", "skip", "--no-exclude-seen", "--json")
    assert (code, json.loads(out)["rows"], json.loads(out)["counts"]["without_history"]) == (0, 3, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "--out", "x", "--dtype", "fp8"], "ConfigError: --dtype is 'fp8' (did you mean 'fp32'?)"),
        (["embed", "--out", "x", "--shard", "3/2"], "ConfigError: the shard is '3/2'"),
        (["embed-users", "--out", "x", "--active-since", "soon"], "ConfigError: --active-since: 'soon' is no date"),
        (["embed-users", "--out", "x", "--active-since", "2000-01-01"], "DataError: none of the 12 users is active"),
        (["recommend", "--input", "users.csv"], "ConfigError: --input and --output belong together"),
        (["recommend", "--input", "a", "--output", "b.parquet", "--user", "u1"], "without --user, --history"),
        (["recommend", "--input", "a.csv", "--output", "b.parquet"], "DataError: users to recommend to: there is no"),
        (["recommend", "--input", "a", "--output", "b.parquet", "--unknown", "drop"], "--unknown is 'drop'"),
    ],
)
def test_wrong_input_exits_with_2(hllm, trained_folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = hllm(arguments[0], "--run", trained_folder, *arguments[1:])
    assert (code, message in err, "Traceback" in err) == (2, True, False), err
    assert not list(tmp_path.iterdir())


def test_a_table_that_is_none_is_refused(hllm, tmp_path):
    code, _, err = hllm("export-vectors", "--table", tmp_path, "--out", tmp_path / "x")
    assert (code, "is not a item embedding table written by hllm" in err) == (2, True)
