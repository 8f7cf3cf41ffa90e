import pandas as pd
import polars as pl
import pytest

from hllm.data.tables import read_table
from hllm.errors import DataError


def test_csv_ids_keep_their_zeros(tmp_path):
    (tmp_path / "a.csv").write_text("item_id,title\n007,Bond\n")
    assert read_table(tmp_path / "a.csv", name="items").row(0) == ("007", "Bond")


def test_the_same_table_from_every_source(tmp_path):
    frame = pl.DataFrame({"a": ["x", "y"], "b": ["1", "2"]})
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    sources = [frame, pd.DataFrame({"a": ["x", "y"], "b": ["1", "2"]})]
    sources += [tmp_path / "t.parquet", str(tmp_path / "t.csv"), tmp_path / "t.tsv"]
    for source in sources:
        assert read_table(source, name="items").rows() == frame.rows()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", r"a\.csv is empty: it has no bytes; items need a header and at least one row"),
        ("a.csv", b"item_id,title\n", r"a\.csv is empty: it has 2 columns and no rows"),
        ("a.csv", b"item_id,title\na,b,c\n", r"a\.csv cannot be read as CSV"),
        ("a.parquet", b"not parquet at all", r"a\.parquet cannot be read as PARQUET"),
        ("a.xlsx", b"?", r"unknown kind of file '\.xlsx'; expected \.csv, \.tsv or \.parquet"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / name, name="items")


def test_no_file_and_no_table(tmp_path):
    with pytest.raises(DataError, match=r"items: there is no file .*none\.csv"):
        read_table(tmp_path / "none.csv", name="items")
    with pytest.raises(DataError, match="expected a path, or a polars or pandas frame, found int"):
        read_table(3, name="items")
    with pytest.raises(DataError, match="the items frame is empty"):
        read_table(pl.DataFrame({"item_id": []}), name="items")
