import gzip
import json

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from hllm.data.reading.tables import explained, read_table, scan_table
from hllm.errors import DataError

ROWS = [("007", "Bond"), ("8", 'a "b", c')]
CSV = 'item_id,title\n007,Bond\n8,"a ""b"", c"\n'
TSV = 'item_id\ttitle\n007\tBond\n8\ta "b", c\n'
JSONL = "".join(json.dumps({"item_id": i, "title": t}) + "\n" for i, t in ROWS)


def write(path, content):
    """Write bytes or text, compressed as the name says."""
    content = content.encode() if isinstance(content, str) else content
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = pa.compress(content, codec="zstd", asbytes=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize(("kind", "text"), [("csv", CSV), ("tsv", TSV), ("jsonl", JSONL), ("ndjson", JSONL)])
def test_text_of_every_kind_compressed_or_not(tmp_path, kind, text, compression):
    path = write(tmp_path / f"t.{kind}{compression}", text)
    assert read_table(path, name="items").rows() == ROWS


def test_the_same_table_from_every_source(tmp_path):
    frame = pl.DataFrame({"a": ["x", "y"], "b": ["1", "2"]})
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    sources = [frame, pd.DataFrame({"a": ["x", "y"], "b": ["1", "2"]})]
    sources += [tmp_path / "t.parquet", str(tmp_path / "t.csv"), tmp_path / "t.tsv"]
    for source in sources:
        assert read_table(source, name="items").rows() == frame.rows()
        assert scan_table(source, name="items").collect().rows() == frame.rows()


def test_json_ids_keep_their_type(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"item_id": 7, "user_id": "007"}\n\n{"item_id": 12345678901, "user_id": "8"}\n')
    assert read_table(path, name="interactions").rows() == [(7, "007"), (12345678901, "8")]


def test_json_fields_that_appear_late_are_read(tmp_path, monkeypatch):
    """A reader that guesses the columns from the first lines would drop the field, or fail on the later type."""
    monkeypatch.setattr("hllm.data.reading.records._BLOCK_BYTES", 64)
    lines = [json.dumps({"n": n}) for n in range(300)] + ['{"n": 0.5, "new": "x", "list": ["a"]}']
    frame = read_table(write(tmp_path / "a.jsonl", "\n".join(lines)), name="items")
    assert frame.row(-1) == (0.5, "x", "a")
    assert frame.row(0) == (0.0, None, None)


def test_lists_become_text_and_vectors_stay(tmp_path):
    """Joined by ", ", missing parts left out, nested lists flattened."""
    path = write(
        tmp_path / "a.jsonl",
        '{"tags": ["a", null, "b"], "nested": [["p", "q"], ["r"]], "years": [1, 2], "vector": [0.5, 1.5]}\n'
        '{"tags": null, "nested": [], "years": [], "vector": []}\n',
    )
    expected = [("a, b", "p, q, r", "1, 2", [0.5, 1.5]), (None, "", "", [])]
    assert read_table(path, name="items").rows() == expected
    frame = pl.DataFrame({"tags": [["a", "b"], None]})
    frame.write_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", name="items").rows() == [("a, b",), (None,)]
    assert read_table(frame, name="items").rows() == [("a, b",), (None,)]


def test_a_glob_is_read_in_the_order_of_the_names(tmp_path):
    for n in (2, 0, 1):
        pl.DataFrame({"a": [n]}).write_parquet(tmp_path / f"clicks-{n}.parquet")
    assert read_table(tmp_path / "clicks-*.parquet", name="interactions")["a"].to_list() == [0, 1, 2]


def test_a_directory_of_parquet_parts(tmp_path):
    for n in (1, 0):
        pl.DataFrame({"a": [n]}).write_parquet(tmp_path / f"part-{n}.parquet")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "_metadata.parquet").write_text("not a part")
    assert read_table(tmp_path, name="interactions")["a"].to_list() == [0, 1]


def test_parts_may_order_their_columns_differently_and_json_parts_may_lack_some(tmp_path):
    write(tmp_path / "a-1.csv", "x,y\n1,2\n")
    write(tmp_path / "a-2.csv", "y,x\n4,3\n")
    assert read_table(tmp_path / "a-*.csv", name="items").rows() == [("1", "2"), ("3", "4")]
    write(tmp_path / "a-1.jsonl", '{"x": 1, "y": null}\n')
    write(tmp_path / "a-2.jsonl", '{"x": 2, "y": "b", "z": true}\n')
    assert read_table(tmp_path / "a-*.jsonl", name="items").rows() == [(1, None, None), (2, "b", True)]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"user_id": ["a"]}, {"user_idd": ["a"]}, r"a-2\.parquet differs from .*a-1\.parquet: it has no column 'user_id' \(did you mean 'user_idd'"),
        ({"a": ["a"]}, {"a": ["a"], "b": [1]}, r"a-2\.parquet differs from .*: it has a column 'b' more"),
        ({"a": ["a"]}, {"a": [1]}, r"a-2\.parquet differs from .*: column 'a' is Int64, not String"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_named(tmp_path, first, second, message):
    pl.DataFrame(first).write_parquet(tmp_path / "a-1.parquet")
    pl.DataFrame(second).write_parquet(tmp_path / "a-2.parquet")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "a-*.parquet", name="items")


def test_json_parts_with_ids_of_different_types_are_named(tmp_path):
    write(tmp_path / "a-1.jsonl", '{"id": 1}\n')
    write(tmp_path / "a-2.jsonl", '{"id": "1"}\n')
    with pytest.raises(DataError, match=r"a-2\.jsonl differs from .*: column 'id' is String, not Int64"):
        read_table(tmp_path / "a-*.jsonl", name="items")


@pytest.mark.reliability("broken tables")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", r"a\.csv is empty: it has no bytes; items need a header and at least one row"),
        ("a.csv", b"item_id,title\n", r"a\.csv is empty: it has 2 columns and no rows"),
        ("a.csv", b"item_id,title\nx,y\na,b,c\n", r"a\.csv, line 3: found 3 fields, expected 2, as in the header\. Quote"),
        ("a.csv", b'item_id,title\nx,"y\n\nz"\na,b,c\n', r"a\.csv, line 5: found 3 fields"),
        ("a.tsv", b"item_id\ttitle\na\tb\tc\n", r"a\.tsv, line 2: found 3 fields, expected 2.*Take tabs out"),
        ("a.csv", b'item_id,title\nx,y\na,"b\nc,d\n', r"a\.csv, line 3: .*quoted field may start there and never end"),
        ("a.csv", b"item_id,title,title\na,b,c\n", r"a\.csv, line 1: the header names 'title' more than once"),
        ("a.jsonl", b'{"a": 1}\n{"a": }\n', r"a\.jsonl, line 2: not JSON: Expecting value at position 7\. Correct or remove"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"a\.jsonl, line 2: expected one JSON object a line, found '\[1\]'"),
        ("a.parquet", b"not parquet at all", r"a\.parquet cannot be read as PARQUET"),
        ("a.feather", b"?", r"unknown kind of file '\.feather'; expected \.csv, .*\.jsonl .*, \.parquet or \.xlsx"),
        ("a.zip.gz", b"?", r"unknown kind of file '\.zip\.gz'; expected"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_explained(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / name, name="items")


@pytest.mark.reliability("broken tables")
@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.csv.zst"])
def test_a_download_that_was_cut_short_is_told(tmp_path, name):
    rows = "item_id\n" + "\n".join(map(str, range(5000))) if "csv" in name else '{"a": 1}\n' * 5000
    path = write(tmp_path / name, rows)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=rf"{name}, the compressed data is damaged: .*Copy or download the file again"):
        read_table(path, name="items")


def test_a_lazy_scan_explains_its_errors_when_it_is_collected(tmp_path):
    path = write(tmp_path / "a.csv", "a,b\n" + "1,2\n" * 2000 + "1,2,3\n")
    frame = scan_table(path, name="items")
    with pytest.raises(DataError, match=r"a\.csv, line 2002: found 3 fields"), explained(path, name="items"):
        frame.collect()


def test_no_file_and_no_table(tmp_path):
    with pytest.raises(DataError, match=r"items: there is no file .*none\.csv"):
        read_table(tmp_path / "none.csv", name="items")
    with pytest.raises(DataError, match=r"items: no file is called .*none-\*\.csv; check the pattern"):
        read_table(tmp_path / "none-*.csv", name="items")
    with pytest.raises(DataError, match=r"is a directory without \.parquet files; name a file"):
        read_table(tmp_path, name="items")
    write(tmp_path / "a.csv", CSV)
    write(tmp_path / "a.tsv", TSV)
    with pytest.raises(DataError, match=r"names files of more than one kind: \.csv, \.tsv; name one kind"):
        read_table(tmp_path / "a.*", name="items")
    with pytest.raises(DataError, match="expected a path, or a polars or pandas frame, found int"):
        read_table(3, name="items")
    with pytest.raises(DataError, match="the items frame is empty"):
        read_table(pl.DataFrame({"item_id": []}), name="items")


def test_pandas_columns_of_several_types_are_text(tmp_path):
    frame = pd.DataFrame({"user_id": pd.Series(["u", 7, None], dtype=object), "note": pd.Series([1, "a", 2.5], dtype=object),
                          "timestamp": pd.arrays.SparseArray([0, 5, 0]), "kind": pd.Categorical(["x", "y", "x"])})  # fmt: skip
    read = read_table(frame, name="interactions")
    assert read["user_id"].to_list() == ["u", "7", None]
    assert read["note"].to_list() == ["1", "a", "2.5"]
    assert read["timestamp"].to_list() == [0, 5, 0]
    with pytest.raises(DataError, match="interactions: several columns are called 'a'; give each"):
        read_table(pd.DataFrame([[1, 2]], columns=["a", "a"]), name="interactions")
