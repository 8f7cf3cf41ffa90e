"""JSON as the world writes it: lines, lists, pretty-printed; NaN, halves of emoji, fields of two types, deep nesting."""

import gzip
import json
import time
import tracemalloc

import pandas as pd
import polars as pl
import pytest

from hllm.data.reading import records
from hllm.data.reading.tables import read_table
from hllm.errors import DataError, HllmWarning

VALUES = [
    {"item_id": "a", "title": "Red {x}, [y]"},
    {"item_id": "b", "title": 'A "b"\nc'},
    {"item_id": "c", "title": None},
]


def table(path, content):
    """Write text or bytes, and read it."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, name="items")


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(map(json.dumps, VALUES)),
        "\n\n".join(map(json.dumps, VALUES)) + "\n\n",
        json.dumps(VALUES),
        json.dumps(VALUES, indent=2),
        "\n".join(json.dumps(value, indent=4) for value in VALUES),
        "[\n" + ",\n".join(map(json.dumps, VALUES)) + "\n]\n",
        "[" + json.dumps(VALUES[0]) + ",\n " + json.dumps(VALUES[1]) + "\n,\n" + json.dumps(VALUES[2]) + "]",
        "".join(map(json.dumps, VALUES)),
        "\ufeff" + "\n".join(map(json.dumps, VALUES)),
        "\ufeff" + json.dumps(VALUES, indent=1).replace("\n", "\r\n"),
        "\r\n".join(map(json.dumps, VALUES)),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson"])
def test_any_layout_of_records(tmp_path, text, name):
    assert table(tmp_path / name, text).rows(named=True) == VALUES


def test_long_lists_are_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_CHUNK", 16)
    many = [{"item_id": n, "text": "x" * (n % 50), "tags": ["a, b", "]"]} for n in range(300)]
    for text in (json.dumps(many), json.dumps(many, indent=1), "\n".join(json.dumps(each, indent=2) for each in many)):
        assert table(tmp_path / "a.json", text)["item_id"].to_list() == list(range(300))


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_utf_16_and_odd_bytes(tmp_path, compress):
    text = '{"a": "Café"}\n{"a": "東京"}\n'
    path = tmp_path / ("a.json.gz" if compress is gzip.compress else "a.json")
    assert table(path, compress(text.encode("utf-16")))["a"].to_list() == ["Café", "東京"]
    with pytest.warns(HllmWarning, match="1 line is not UTF-8 .*first: line 1, byte 0xe9 at position 11"):
        assert table(path, compress(b'{"a": "Caf\xe9"}\n' + text.encode()))["a"].to_list() == ["Café", "Café", "東京"]


def test_what_python_writes_and_json_does_not_know_is_missing(tmp_path):
    text = (
        '{"a": NaN, "b": Infinity, "t": "NaN"}\n{"a": 1.5, "b": -Infinity, "t": "x"}\n{"a": 1e400, "b": 2, "t": "y"}\n'
    )
    assert table(tmp_path / "a.jsonl", text).rows() == [(None, None, "NaN"), (1.5, None, "x"), (None, 2.0, "y")]
    assert table(tmp_path / "b.json", "[" + text.replace("}\n{", "},{") + "]").rows()[1] == (1.5, None, "x")


def test_halves_of_emoji_and_nul_never_reach_a_table(tmp_path):
    cells = [r"cut \ud83d", r"\ude00 cut", r"\ud83d\ude00", r"\uD83D\uD83D\uDE00", r"\\ud83d", r"a\u0000b"]
    expected = ["cut \ufffd", "\ufffd cut", "😀", "\ufffd😀", r"\ud83d", "ab"]
    frame = table(tmp_path / "a.jsonl", "".join(f'{{"title": "{cell}"}}\n' for cell in cells))
    assert frame["title"].to_list() == expected
    for cell, text in zip(cells, expected, strict=True):
        assert table(tmp_path / "b.jsonl", f'{{"title": "{cell}"}}\n')["title"].to_list() == [text]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", '"x"'),
        ("[1]", '{"c": 1}'),
        ("true", "3"),
        ('{"b": 1}', '"x"'),
        ('[1, "x", null, [2]]', "[]"),
        ("[1]", "2"),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_field_of_two_types_leaves_the_others_alone(tmp_path, first, second, mark):
    lines = f'{{"item_id": 7, "extra": {first}}}\n{{"item_id": 8, "extra": {second}}}\n'
    frame = table(tmp_path / "a.jsonl", mark + lines)
    assert frame["item_id"].to_list() == [7, 8]
    assert frame["extra"].dtype == pl.String


def test_a_record_without_an_id_is_a_missing_id(tmp_path):
    assert table(tmp_path / "a.jsonl", '{"item_id": "a"}\n{"title": "x"}\n{"item_id": null}\n')[
        "item_id"
    ].to_list() == [
        "a",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": }\n', r"line 2: not JSON: Expecting value at position 7\. Correct or remove the line"),
        ('{"a": 1}\n[1]\n', r"line 2: expected one JSON object a line, found '\[1\]'"),
        ("[1, 2]", "line 1: expected one JSON object a line, found '1'"),
        ('[{"a": 1},\n {"a": }]', "line 2: not JSON: Expecting value at position 8"),
        ('{\n "a": 1,\n "b" 2\n}\n' + '{"a": 1}\n' * 50, "line 3: not JSON: Expecting ':' delimiter at position 6"),
        ('[{"a": 1},\n{"a": 2}\n', r"line \d: the list is not closed: the file was cut"),
        ('[{"a": 1},\n{"a": "cut', r"line 2: not JSON: Unterminated string"),
        ('{"a": 1}\n{"a": ' + "[" * 100_000 + "\n", "line 2: nested too deeply"),
        ('{"a": 1}\n' + '{"a":' * 100_000 + "1" + "}" * 100_000, "line 2: nested too deeply"),
        ("[" + '{"a":' * 100_000 + "1" + "}" * 100_000 + "]", "line 1: nested too deeply"),
        ("not json\n", "line 1: not JSON: Expecting value at position 1"),
    ],
)
def test_the_place_of_the_first_fault(tmp_path, text, message):
    with pytest.raises(DataError, match=r"a\.jsonl, " + message):
        table(tmp_path / "a.jsonl", text)


def test_a_long_list_in_one_line_takes_a_time_that_grows_with_it_and_little_memory(tmp_path):
    many = [{"item_id": n, "text": "Café 東京 " * 300} for n in range(4_000)]
    (tmp_path / "a.json").write_text(json.dumps(many, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps(many), encoding="utf-8")
    start = time.monotonic()
    for name in ("a.json", "b.json"):
        assert read_table(tmp_path / name, name="items").rows()[-1] == (3_999, "Café 東京 " * 300)
    assert time.monotonic() - start < 10
    tracemalloc.start()
    with open(tmp_path / "a.json", "rb") as file:
        assert sum(1 for _ in records.read_values(tmp_path / "a.json", file)) == 4_000
    assert tracemalloc.get_traced_memory()[1] < 12e6  # the file has 18 MB
    tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"data": VALUES}),
        pd.DataFrame(VALUES).to_json(),
        pd.DataFrame(VALUES).to_json(orient="index"),
        json.dumps({"data": VALUES}, indent=2),
    ],
)
def test_one_value_that_is_the_whole_table_is_no_row(tmp_path, text):
    with pytest.raises(DataError, match=r"line 1: its fields, .*hold objects alone.*expected one object a row"):
        table(tmp_path / "a.json", text)


def test_rows_of_lists_alone_are_rows(tmp_path):
    assert table(tmp_path / "a.jsonl", '{"history": ["a", "b"]}\n{"history": []}\n').rows() == [("a, b",), ("",)]


def test_a_file_without_a_record(tmp_path):
    with pytest.raises(DataError, match=r"a\.jsonl is empty: it holds no record"):
        table(tmp_path / "a.jsonl", "\n \n")
