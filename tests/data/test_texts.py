"""Columns that are read as text if none are named; HTML in them."""

import datetime as dt

import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.reading.tables import scan_table
from hllm.data.schema import DataConfig
from hllm.data.texts import default_text_columns, html_share, left_out, require_text, without_html
from hllm.errors import DataError

SHOP = pl.DataFrame(
    {
        "": [0, 1, 2, 3],
        "item_id": ["a", "b", "c", "d"],
        "title": ["1984", "300", "2012", "7"],
        "name": ["Alpha 7", "Beta", "", None],
        "brand": ["АО «Свет»", "山田", None, "Øl"],
        "price": [9.99, 5.0, None, 1e-7],
        "label": ["$9.99", "1,299.00 EUR", "n/a", "12 %"],
        "url": ["http://x/a", "https://x.org/Some-Title?q=words", "www.x.org/abc", None],
        "picture": ["a.jpg", "some_words.PNG", "http://x/c.gif", "d.webp"],
        "year": [1979, 1986, 1995, 2001],
        "seen": [True, False, True, None],
        "day": [dt.date(2020, 1, 2)] * 4,
        "moment": [dt.datetime(2020, 1, 2, 3, 4, 5)] * 4,
        "posted": ["Jan 2, 2020 8:55 PM", "Tue Apr 03 18:00:09 +0000 2012", "2011-01-01T00:00:00Z", "1st May 2010"],
        "tags": [["red", "warm"], [], ["blue"], ["old", "new"]],
        "also": [[1, 2], [3], [], [4, 5, 6]],
        "empty": pl.Series([None] * 4, dtype=pl.String),
    }
)
WORDS = ("title", "name", "brand", "tags")


def columns(path):
    return default_text_columns(scan_table(path, name="items"), "item_id")[0]


def test_the_same_table_gives_the_same_columns_in_every_form(tmp_path):
    flat = SHOP.with_columns(pl.col("tags").list.join(", "), pl.col("also").cast(pl.List(pl.String)).list.join(", "))
    flat.write_csv(tmp_path / "items.csv")
    SHOP.write_parquet(tmp_path / "items.parquet")
    SHOP.write_ndjson(tmp_path / "items.jsonl")
    typed = SHOP.with_columns(pl.col("name").cast(pl.Categorical), pl.col("brand").cast(pl.Binary))
    typed.write_parquet(tmp_path / "typed.parquet")
    for form in ("items.csv", "items.parquet", "items.jsonl", "typed.parquet"):
        assert columns(tmp_path / form) == WORDS, form
    assert columns(typed) == columns(typed.to_pandas()) == WORDS


def test_what_is_left_out_is_said():
    _, others = default_text_columns(SHOP.lazy(), "item_id")
    kinds = {
        "price": "numbers or dates",
        "label": "numbers or dates",
        "url": "links",
        "seen": "true or false",
        "empty": "nothing",
    }
    assert {name: others[name] for name in kinds} == kinds
    assert left_out({"price": "numbers", "url": "links"}) == "'price' (numbers), 'url' (links)"
    pictures = pl.DataFrame({"item_id": ["a"], "picture": [b"\xff\xd8\xff"], "vector": [[0.5]], "record": [{"a": "b"}]})
    assert default_text_columns(scan_table(pictures, name="items"), "item_id")[1] == {
        "picture": "bytes that are no text", "vector": "records or vectors", "record": "records or vectors",
    }  # fmt: skip


def test_a_few_numbers_among_titles_change_nothing():
    titles = pl.DataFrame(
        {"item_id": range(4), "film": ["300", "Alien", "Brazil", "May"], "cost": ["1", "2", "3", "Free"]}
    )
    assert default_text_columns(titles.lazy(), "item_id")[0] == ("film",)


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["hat", "coat"]), pl.Binary])
def test_categories_and_bytes_are_read(kind):
    items = pl.DataFrame({"item_id": ["a", "b"], "kind": pl.Series(["hat", "coat"]).cast(kind)})
    log = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [1, 2]})
    assert build_dataset(log, items, DataConfig()).text_cols == ("kind",)


def test_without_columns_nothing_can_be_read():
    with pytest.raises(
        DataError, match=r"no text to read; they have 'item_id', 'price' \(numbers or dates\)\. Give a table"
    ):
        require_text((), pl.DataFrame({"item_id": ["a"], "price": [1.0]}))
    require_text(("title",), pl.DataFrame({"title": ["A"]}))


def test_html_is_noticed_and_taken_out():
    texts = pl.Series(
        "d",
        [
            "Salt &amp; pepper<br/>mill",
            "<p>One</p> <b>two</b>",
            "a < b, x > y & z",
            None,
            "&lt;b&gt;bold&lt;/b&gt; &#39;n&#39;",
        ],
    )
    assert html_share(texts.to_frame().lazy(), ("d",)) == {"d": pytest.approx(3 / 4)}
    assert without_html(texts).to_list() == ["Salt & pepper mill", "One two", "a < b, x > y & z", None, "bold 'n'"]
    items = pl.DataFrame({"item_id": ["a"], "title": ["<i>Salt</i> &amp; pepper"]})
    log = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1]})
    assert build_dataset(log, items, DataConfig()).items["title"].to_list() == ["<i>Salt</i> &amp; pepper"]
    assert build_dataset(log, items, DataConfig(html="clean")).items["title"].to_list() == ["Salt & pepper"]
