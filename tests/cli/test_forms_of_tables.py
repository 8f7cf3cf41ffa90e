"""A table that is written in an unusual way is read alike by check, describe, import, a recipe and Python."""

import json

import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.schema import DataConfig

KEYS = {
    "separator": "::",
    "encoding": "cp1251",
    "columns": ["user_id", "item_id", "rating", "timestamp"],
    "items_columns": ["item_id", "title"],
    "time_format": "%m/%d/%Y %H:%M",
}
OPTIONS = [
    *("--separator", "::", "--encoding", "cp1251", "--columns", "user_id,item_id,rating,timestamp"),
    *("--items-columns", "item_id,title", "--time-format", "%m/%d/%Y %H:%M"),
]
RECIPE = 'about = "x"\n[model.item]\nkind = "id"\n[model.user]\nkind = "sasrec"\ndim = 8\nnum_heads = 1\n[[stages]]\n[data]\n'


@pytest.fixture
def tables(tmp_path):
    log = [f"u{n % 3}::i{n % 5}::{n % 5}.0::{n % 12 + 1}/{n % 28 + 1}/2021 7:{n:02}" for n in range(24)]
    (tmp_path / "ratings.dat").write_text("\n".join(log) + "\n\n")
    items = "".join(f"i{n}::Книга {n}\n" for n in range(5))
    (tmp_path / "books.txt").write_bytes(items.encode("cp1251"))
    return ["--interactions", tmp_path / "ratings.dat", "--items", tmp_path / "books.txt"]


def test_every_way_in_reads_the_same(hllm, tables, tmp_path):
    dataset = build_dataset(tables[1], tables[3], DataConfig.from_dict(dict(KEYS), where="x"))
    assert dataset.items["title"].to_list() == [f"Книга {n}" for n in range(5)]
    assert (dataset.num_users, dataset.num_interactions) == (3, 24)
    code, out, _ = hllm("data", "check", *tables, *OPTIONS, "--json")
    assert (code, json.loads(out)["steps"][-1]["rows"]) == (0, 24)
    code, out, _ = hllm("data", "describe", *tables, *OPTIONS, "--json")
    assert (code, json.loads(out)["num_interactions"]) == (0, 24)
    (tmp_path / "recipe.toml").write_text(
        f"{RECIPE}interactions = 'ratings.dat'\nitems = 'books.txt'\n"
        + "\n".join(f"{key} = {json.dumps(value)}" for key, value in KEYS.items())
    )
    code, out, _ = hllm("data", "check", "--recipe", tmp_path / "recipe.toml", "--json")
    assert (code, json.loads(out)["steps"][-1]["rows"]) == (0, 24)
    code, _, err = hllm("data", "import", "table", tmp_path, *tables, *OPTIONS, "--out", tmp_path / "out")
    assert code == 0, err
    (tmp_path / "short.toml").write_text(f"{RECIPE}from = 'out'\n")
    code, out, _ = hllm("data", "check", "--recipe", tmp_path / "short.toml", "--json")
    assert (code, json.loads(out)["steps"][-1]["rows"]) == (0, 24)
    imported = build_dataset(tmp_path / "out/interactions.parquet", tmp_path / "out/items.parquet", DataConfig(**{"from": str(tmp_path / "out")}))  # fmt: skip
    assert imported.fingerprint == dataset.fingerprint


def test_without_names_columns_have_numbers(hllm, tables, tmp_path):
    names = [
        "--user-col",
        "column_1",
        "--item-col",
        "column_2",
        "--items-item-col",
        "column_1",
        "--time-col",
        "column_4",
    ]
    options = ["--no-header", "--encoding", "cp1251", "--time-format", KEYS["time_format"]]
    code, out, err = hllm("data", "import", "table", tmp_path, *tables, *names, *options, "--out", tmp_path / "out")
    assert (code, "3 users, 5 items, 24 interactions" in out) == (0, True), err
    assert pl.read_parquet(tmp_path / "out" / "items.parquet").columns == ["item_id", "column_2"]


@pytest.mark.parametrize("verb", ["check", "describe", "import"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "line 1: u0, i0, 0.0, 1/1/2021 7:00 looks like data, not a header"),
        (["--encoding", "cp12"], "encoding 'cp12' is unknown; expected one such as utf-8"),
        (["--separator", ""], "separator is ''; expected the text between two fields"),
        (["--columns", "a,b"], "found 4 fields, 'u0', 'i0', '0.0', but 2 names of columns: a, b"),
        (["--columns", "a,a"], "columns are a, a; give each column a name of its own"),
    ],
)
def test_what_cannot_be_is_one_sentence(hllm, tables, tmp_path, verb, options, message):
    more = ["table", tmp_path, "--out", tmp_path / "out"] if verb == "import" else []
    items = ["--items-columns", "item_id,title", "--encoding", "cp1251"]
    code, _, err = hllm("data", verb, *more, *tables, *items, *options)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_options_that_a_layout_fixes_are_refused(hllm, tmp_path):
    code, _, err = hllm("data", "import", "movielens", tmp_path, "--separator", ";", "--out", tmp_path / "out")
    assert (code, "the form of movielens is fixed" in err) == (2, True)
