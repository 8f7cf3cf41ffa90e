"""Text tables as the world writes them: separators, encodings, headers, quotes, ends of lines, compressions."""

import bz2
import gzip
import io
import lzma
import random
import warnings
import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.reading import delimited
from hllm.data.reading.form import Form
from hllm.data.reading.tables import read_table
from hllm.data.schema import DataConfig
from hllm.errors import ConfigError, DataError, HllmWarning

ROWS = [("007", "Bond, James"), ("8", "Café")]


def written(path, content, encoding="utf-8"):
    """Write text or bytes, and return the path."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def rows_of(path, form=Form()):  # noqa: B008
    """Return the cells; what is missing and what is empty is the same."""
    return [tuple(cell or "" for cell in row) for row in read_table(path, form, name="items").rows()]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt", ".dat", ".psv", ".data"])
@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
def test_any_separator_in_any_ending(tmp_path, separator, ending):
    lines = [("item_id", "title"), *[(i, f'"{t}"') for i, t in ROWS]]
    path = written(tmp_path / f"items{ending}", "\n".join(separator.join(line) for line in lines) + "\n")
    expected = ROWS if separator != "\t" else [(i, f'"{t}"') for i, t in ROWS]  # nothing needs the quotes there
    assert rows_of(path) == expected


def test_separators_of_several_signs_and_blanks(tmp_path):
    assert rows_of(written(tmp_path / "a.dat", "user::item\n1::2\n3::4\n")) == [("1", "2"), ("3", "4")]
    assert rows_of(written(tmp_path / "a.txt", "user item\n1 2\n3   4\n")) == [("1", "2"), ("3", "4")]
    assert rows_of(written(tmp_path / "b.csv", "user||item\n1||2\n"), Form("||")) == [("1", "2")]
    assert rows_of(written(tmp_path / "c.csv", "user\x01item\n1\x012,5\n"), Form("\x01")) == [("1", "2,5")]


def test_a_text_with_blanks_is_no_table_of_blanks(tmp_path):
    path = written(tmp_path / "a.txt", "title\nred shoe\nblue hat of felt\n")
    assert rows_of(path) == [("red shoe",), ("blue hat of felt",)]


def test_the_most_even_separator_wins_over_signs_in_texts(tmp_path):
    path = written(tmp_path / "a.dat", "id|title, kind|price\n1|Hat, felt, red|2\n2|Coat|3\n")
    assert read_table(path, name="items").columns == ["id", "title, kind", "price"]
    assert rows_of(written(tmp_path / "b.csv", "id,title\n1,a;b\n2,c;d\n")) == [("1", "a;b"), ("2", "c;d")]


def test_a_separator_is_said_by_its_name_and_by_the_first_line(tmp_path):
    assert Form("tab").separator == Form("\\t").separator == "\t"
    path = written(tmp_path / "a.csv", "sep=;\nid;title\n1;a,b\n")
    assert rows_of(path) == [("1", "a,b")]
    with pytest.raises(ConfigError, match="separator is ''; expected the text between two fields"):
        Form("")


def test_a_separator_that_one_table_lacks_leaves_it_as_it_is(tmp_path):
    log = written(tmp_path / "log.csv", "user_id;item_id;timestamp\nu;a;1\nu;b;2\n")
    items = written(tmp_path / "items.csv", "item_id,title\na,Alpha\nb,Beta\n")
    assert build_dataset(log, items, DataConfig(separator=";")).num_interactions == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_unicode_of_every_width_is_recognised(tmp_path, encoding, ending):
    sign = "," if ending == ".csv" else "\t"
    text = f'item_id{sign}title\r\n007{sign}"Bond, ""James"""\r\n8{sign}Café 東京\r\n'
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    path = written(tmp_path / f"a{ending}", mark + text.encode(encoding))
    assert rows_of(path) == [("007", 'Bond, "James"'), ("8", "Café 東京")]


def test_utf_16_without_a_mark(tmp_path):
    for encoding in ("utf-16-le", "utf-16-be"):
        assert rows_of(written(tmp_path / "a.csv", "item_id,title\n1,Café\n2,Tee\n", encoding)) == [
            ("1", "Café"),
            ("2", "Tee"),
        ]


def test_one_odd_byte_leaves_all_other_lines_as_they_are(tmp_path):
    path = written(tmp_path / "a.csv", "item_id,title\n1,Crème\n2,東京 x\n3,Tee\n".encode().replace(b"x", b"caf\xe9"))
    with pytest.warns(
        HllmWarning, match=r"a\.csv: 1 line is not UTF-8 and read .*first: line 3, byte 0xe9 at position 13"
    ):
        assert rows_of(path) == [("1", "Crème"), ("2", "東京 café"), ("3", "Tee")]


def test_the_encoding_that_is_named_reads_what_is_not_utf_8(tmp_path):
    text = "item_id,title\n1,帽子\n2,靴\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for encoding in ("shift_jis", "gb18030", "euc_jp", "iso2022_jp"):
            assert rows_of(written(tmp_path / "a.csv", text, encoding), Form(None, encoding)) == [
                ("1", "帽子"),
                ("2", "靴"),
            ]
        assert rows_of(written(tmp_path / "b.csv", text), Form(None, "shift_jis")) == [("1", "帽子"), ("2", "靴")]
        assert rows_of(written(tmp_path / "c.csv", text), Form(None, "utf-16")) == [("1", "帽子"), ("2", "靴")]
    with pytest.raises(
        DataError, match=r"d\.csv, line 2, byte 0xff at position 3: not shift_jis; name another encoding"
    ):
        rows_of(written(tmp_path / "d.csv", b"item_id,title\n1,\xff\xff\n"), Form(None, "shift_jis"))
    with pytest.raises(ConfigError, match="encoding 'latin-11' is unknown; expected one such as utf-8"):
        DataConfig.from_dict({"encoding": "latin-11"}, where="x")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz"])
def test_any_end_of_a_line(tmp_path, end, ending):
    sign = "\t" if ending == ".tsv" else ","
    content = end.join([f"item_id{sign}title", f"1{sign}Red", f"2{sign}Blue", ""]).encode()
    path = written(tmp_path / f"a{ending}", gzip.compress(content) if ending.endswith("gz") else content)
    assert rows_of(path) == [("1", "Red"), ("2", "Blue")]


def test_a_return_within_a_line_is_a_blank(tmp_path):
    assert rows_of(written(tmp_path / "a.csv", "item_id,title\r\n1,Red\rShoe\r\n2,Hat\r\n"))[0] == ("1", "Red Shoe")


def test_nul_characters_are_left_out_and_said(tmp_path):
    path = written(tmp_path / "a.csv", b"item_id,title\n1,Red\0 hat\n2,Tee\0\n")
    with pytest.warns(HllmWarning, match="2 NUL characters are left out; first: line 2, position 6"):
        assert rows_of(path) == [("1", "Red hat"), ("2", "Tee")]


@pytest.mark.parametrize(
    "text",
    [
        "item_id,title\n1,Red\n\n2,Blue\n",
        "\n\nitem_id,title\n1,Red\n2,Blue\n\n\n",
        "item_id,title\n1,Red\n,\n2,Blue\n,",
        "item_id,title\n1,Red\n \t\n2,Blue\n , \n",
        'item_id,title\r\n1,Red\r\n"",""\r\n\r\n2,Blue\r\n',
    ],
)
def test_lines_without_a_cell_are_no_rows(tmp_path, text):
    assert rows_of(written(tmp_path / "a.csv", text)) == [("1", "Red"), ("2", "Blue")]
    assert rows_of(written(tmp_path / "a.tsv", text.replace(",", "\t"))) == [("1", "Red"), ("2", "Blue")]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ('7" tablet', '7" tablet'),
        ('"7"" tablet"', '7" tablet'),
        ('"a, b"', "a, b"),
        ('a "b" c', 'a "b" c'),
        ('"a\nb"', "a\nb"),
        ('"a\n\nb, ""c"""', 'a\n\nb, "c"'),
        (r'"He said \"hi\", ok"', 'He said "hi", ok'),
        (r'"C:\\"', r"C:\\"),
        (r'"C:\dir"', r"C:\dir"),
        ("'single, quotes", None),
    ],
)
def test_quotes_and_escapes_in_fields(tmp_path, cell, expected):
    path = written(tmp_path / "a.csv", f"item_id,title\n1,{cell}\n2,plain\n")
    if expected is None:
        with pytest.raises(DataError, match=r"a\.csv, line 2: found 3 fields"):
            rows_of(path)
    else:
        assert rows_of(path) == [("1", expected), ("2", "plain")]


def test_a_quote_that_would_swallow_rows_is_refused(tmp_path):
    """A reader that closes it at the next quote loses the rows between in silence."""
    path = written(tmp_path / "a.csv", 'item_id,title\n1,"Weird\n2,plain\n3,"x" y\n4,z\n')
    with pytest.raises(DataError, match=r"a\.csv, line 2: a quoted field may start there and never end"):
        rows_of(path)


def test_a_long_field_is_not_blamed(tmp_path):
    path = written(tmp_path / "a.csv", 'item_id,title\n1,"' + "x, " * 70_000 + '"\n2,two,fields\n')
    with pytest.raises(DataError, match=r"a\.csv, line 3: found 3 fields, expected 2.*field 3 is 'fields'"):
        rows_of(path)


def test_separators_at_the_ends_of_rows(tmp_path):
    path = written(tmp_path / "a.csv", "item_id,title\n1,Red,\n2,Blue,,\n3,Green\n")
    assert rows_of(path) == [("1", "Red"), ("2", "Blue"), ("3", "Green")]
    with pytest.raises(DataError, match="the header has 2 names, but every row has 3 fields, as where R writes"):
        rows_of(written(tmp_path / "r.csv", 'item_id,title\n"1",a,Red\n"2",b,Blue\n'))


def test_a_header_that_comes_again_is_no_row(tmp_path):
    path = written(tmp_path / "joined.csv", "item_id,title\n1,Red\nitem_id,title\n2,Blue\nitem_id,title\n")
    with pytest.warns(HllmWarning, match=r"joined\.csv: 2 lines repeat the header and are left out; first: line 3"):
        assert rows_of(path) == [("1", "Red"), ("2", "Blue")]


def test_lines_before_the_header_are_named(tmp_path):
    for text in ("# of the shop\nitem_id,title\n1,Red\n", "Report\n\nitem_id,title\n1,Red\n2,Blue\n"):
        with pytest.raises(
            DataError, match=r"line 1: '.*' is one field, but the lines below have 2; remove what stands"
        ):
            rows_of(written(tmp_path / "a.csv", text))


def test_a_file_without_an_ending_and_the_end_that_dos_writes(tmp_path):
    assert rows_of(written(tmp_path / "items", "item_id|title\r\n1|Red\r\n\x1a")) == [("1", "Red")]


def test_quotes_between_tabs_count_only_if_they_can_be_nothing_else(tmp_path):
    frame = pd.DataFrame({"item_id": ["1", "2", "3"], "title": ['The "Real" Thing', "two\nlines", "plain"]})
    frame.to_csv(tmp_path / "pandas.tsv", sep="\t", index=False)
    assert rows_of(tmp_path / "pandas.tsv") == list(frame.itertuples(index=False, name=None))
    frame.iloc[2:].to_csv(tmp_path / "all.tsv", sep="\t", index=False, quoting=1)
    assert rows_of(tmp_path / "all.tsv") == [("3", "plain")]
    literal = [("1", '"Heroes"'), ("2", '"Weird Al" Yankovic'), ("3", '7" vinyl')]
    text = "item_id\ttitle\n" + "".join(f"{i}\t{t}\n" for i, t in literal)
    assert rows_of(written(tmp_path / "literal.tsv", text)) == literal
    assert rows_of(written(tmp_path / "one.tsv", 'item_id\ttitle\n1\t"Heroes"\n')) == [("1", '"Heroes"')]


def test_what_pandas_writes_is_read_as_pandas_reads_it(tmp_path):
    """Random cells of awkward signs, written in several ways, against an independent reader."""
    signs = ["a", "é", '"', ",", ";", "\n", " ", "\\", "|", "'", "東", "x"]
    draw = random.Random(7)
    for separator in (",", ";", "|", "\t"):
        for quoting in (0, 1):
            cells = [["".join(draw.choices(signs, k=draw.randint(1, 6))) for _ in range(3)] for _ in range(30)]
            cells = [row for row in cells if any(cell.strip() for cell in row)]
            frame = pd.DataFrame(cells, columns=["item_id", "title", "kind"])
            path = tmp_path / "a.csv"
            frame.to_csv(path, sep=separator, index=False, quoting=quoting, lineterminator="\n")
            text = path.read_text(encoding="utf-8")
            if '\\"' in text:
                continue  # there a backslash may be a sign, or an escape
            own = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False)
            assert rows_of(path) == list(own.itertuples(index=False, name=None)), (separator, quoting)


@pytest.mark.parametrize(
    "text",
    [
        "5\t2020-01-03T10:11:12Z\t1.5\t701\n5\t2020-01-02T09:10:11Z\t1.6\t702\n",
        "701,Park\n702,Cafe\n703,Hall\n",
        "7::55::4::1111111111\n8::56::4::1111111112\n",
        "user_1,item_5,2020-01-02\nuser_1,item_6,2020-01-03\n",
        "alice,hat\nbob,coat\nalice,shoe\n",
        "1 501\n1 502\n",
        "1,1,5.0\n1,2,4.0\n",
        "12,31.12.2020\n13,30.12.2020\n",
    ],
)
def test_a_first_line_of_data_is_no_header(tmp_path, text):
    path = written(tmp_path / "log.dat", text)
    with pytest.raises(DataError, match=r"log\.dat, line 1: .* looks like data, not a header.*--no-header"):
        read_table(path, name="interactions")
    frame = read_table(path, Form(header=False), name="interactions")
    assert frame.columns == [f"column_{n + 1}" for n in range(frame.width)]
    assert len(frame) == text.count("\n")


@pytest.mark.parametrize(
    "header", ["item_id,2019,2020", "userId,movieId,rating", "0,1,2", "sku,title_en,Price", "a,b,c", "user:token,x,y"]
)
def test_a_header_is_one(tmp_path, header):
    path = written(tmp_path / "a.csv", f"{header}\n7,8,9\n10,11,12\n")
    assert read_table(path, name="items").columns == header.split(",")


def test_names_of_columns_without_a_header(tmp_path):
    log = written(tmp_path / "log.txt", "5|3|1\n5|4|2\n")
    items = written(tmp_path / "items.csv", "3,Park\n4,Cafe\n")
    config = DataConfig(columns=("user_id", "item_id", "timestamp"), items_columns=("item_id", "title"))
    dataset = build_dataset(log, items, config)
    assert (dataset.num_interactions, dataset.text_cols) == (2, ("title",))
    config = DataConfig(header=False, user_col="column_1", item_col="column_2", time_col="column_3", items_columns=("column_2", "title"))  # fmt: skip
    assert build_dataset(log, items, config).num_interactions == 2
    with pytest.raises(
        DataError, match=r"log\.txt, line 1: found 3 fields, '5', '3', '1', but 2 names of columns: a, b"
    ):
        read_table(log, Form(columns=("a", "b")), name="interactions")
    with pytest.raises(ConfigError, match="columns are a, a; give each column a name of its own"):
        Form(columns=("a", "a"))


def test_names_for_a_table_that_has_its_own_are_refused(tmp_path):
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "a.parquet")
    written(tmp_path / "a.jsonl", '{"a": 1}\n')
    for ending in ("parquet", "jsonl"):
        with pytest.raises(ConfigError, match=rf"a\.{ending} names its columns itself; leave out item_id"):
            read_table(tmp_path / f"a.{ending}", Form(columns=("item_id",)), name="items")


def test_compression_is_told_by_the_first_bytes(tmp_path):
    content = b"item_id,title\n1,Red\n2,Blue\n"
    for name, data in (("gz.csv", gzip.compress(content)), ("plain.csv.gz", content), ("plain.csv.zst", content)):
        assert rows_of(written(tmp_path / name, data)) == [("1", "Red"), ("2", "Blue")]


@pytest.mark.parametrize(("ending", "compress"), [(".bz2", bz2.compress), (".xz", lzma.compress)])
def test_bzip2_and_xz(tmp_path, ending, compress):
    content = b"item_id,title\n1,Red\n2,Blue\n"
    for name in (f"a.csv{ending}", "a.csv"):
        assert rows_of(written(tmp_path / name, compress(content))) == [("1", "Red"), ("2", "Blue")]
    record = written(tmp_path / f"a.jsonl{ending}", compress(b'{"a": 1}\n'))
    assert read_table(record, name="items").rows() == [(1,)]
    cut = written(tmp_path / f"cut.csv{ending}", compress(content * 999)[:-20])
    with pytest.raises(DataError, match=r"the compressed data is damaged: .*Copy or download the file again"):
        rows_of(cut)


def test_a_zip_of_one_table(tmp_path):
    def archive(name, files):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as out:
            for each, data in files.items():
                out.writestr(each, data)
        return tmp_path / name

    frame = pl.DataFrame({"item_id": ["1"], "title": ["Red"]})
    parquet = io.BytesIO()
    frame.write_parquet(parquet)
    for name, data in (
        ("folder/items.csv", b"item_id,title\n1,Red\n"),
        ("items.jsonl", b'{"item_id":"1","title":"Red"}\n'),
        ("items.parquet", parquet.getvalue()),
    ):
        assert rows_of(archive("items.zip", {name: data, "__MACOSX/._items": b"?", "folder/.DS_Store": b"?"})) == [
            ("1", "Red")
        ]
    with pytest.raises(DataError, match=r"two\.zip holds 2 files, a\.csv, b\.csv; expected one table"):
        rows_of(archive("two.zip", {"a.csv": b"x", "b.csv": b"y"}))
    with pytest.raises(DataError, match=r"bad\.zip, the compressed data is damaged: .*Copy or download"):
        rows_of(written(tmp_path / "bad.zip", b"PK\x03\x04" + bytes(50)))
    with pytest.raises(DataError, match=r"wide\.zip, line 3: found 3 fields, expected 2"):
        rows_of(archive("wide.zip", {"a.csv": b"a,b\n1,2\n1,2,3\n"}))


@pytest.mark.reliability("broken tables")
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<!DOCTYPE html>\n<html>log in</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        (b"PAR1xxxxPAR1", "a Parquet file"),
        (b"\n \n\n", "is empty: it holds blank lines alone"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, what):
    with pytest.raises(DataError, match=what):
        rows_of(written(tmp_path / "items.csv", content))


def test_a_plain_file_is_read_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "_copy", lambda *_: pytest.fail("it was copied"))
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 8)
    for text in (
        'item_id,title\r\n1,"a ""b"", c"\r\n2,""\r\n',
        "\ufeffitem_id;title\n1;2\n",
        'a\tb\n1\t7" x\n',
        "a,b\n1,2",
    ):
        read_table(written(tmp_path / "a.csv", text), name="items")


def test_the_same_cells_as_text_and_as_parquet_give_the_same_columns_of_text(tmp_path):
    frame = pl.DataFrame(
        {"item_id": ["1", "2"], "title": ["Red", "Blue"], "price": [1.5, 2.0], "year": [2001, 2002], "new": [True, False],
         "url": ["http://a/b", "http://a/c"], "kind": ["hat", "coat"]}
    )  # fmt: skip
    log = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["1", "2"], "timestamp": [1, 2]})
    typed = frame.with_columns(pl.col("kind").cast(pl.Categorical), pl.col("title").cast(pl.Binary))
    typed.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "a.csv")
    frame.write_csv(tmp_path / "a.txt", separator="|")
    frame.write_ndjson(tmp_path / "a.jsonl")
    for ending in ("parquet", "csv", "txt", "jsonl"):
        assert build_dataset(log, tmp_path / f"a.{ending}", DataConfig()).text_cols == ("title", "kind"), ending


def test_a_large_table_is_looked_through_quickly(tmp_path):
    """The check of the bytes is a few passes over the file, not one over its rows."""
    import time

    numbers = np.arange(400_000)
    frame = pl.DataFrame({"user_id": numbers % 999, "item_id": numbers % 77, "timestamp": numbers})
    frame.write_csv(tmp_path / "a.csv")
    start = time.monotonic()
    assert read_table(tmp_path / "a.csv", name="interactions").height == 400_000
    assert time.monotonic() - start < 5
