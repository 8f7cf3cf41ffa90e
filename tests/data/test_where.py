"""Conditions on the rows of a table, against a slow Python version and by hand."""

import datetime as dt

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hllm.data.where import columns_of, filtered, parse
from hllm.errors import ConfigError, DataError

TYPED = pl.DataFrame(
    {
        "n": [0, 1, 2, 3, 4, 5],
        "rating": [5.0, 4.0, None, 3.5, float("nan"), 1.0],
        "event": ["view", "cart", "purchase", "", None, "view"],
        "buy": [True, False, None, True, False, True],
        "day": [dt.date(2024, 1, d) for d in range(1, 7)],
        "price (EUR)": [1, 2, 3, 4, 5, 2**53 + 1],
    }
)
AS_TEXT = TYPED.with_columns(
    pl.col("rating").fill_nan(None).cast(pl.String), pl.col("buy").cast(pl.String), pl.col("day").cast(pl.String),
    pl.col("price (EUR)").cast(pl.String),
)  # fmt: skip


@pytest.mark.parametrize("table", [TYPED, AS_TEXT], ids=["typed", "text"])
@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("rating >= 4", [0, 1]),
        ("rating != 4", [0, 3, 5]),
        ("not rating = 4", [0, 3, 5]),
        ("rating is missing", [2, 4]),
        ("rating is not missing and rating<4.0", [3, 5]),
        ('event = "view"', [0, 5]),
        ("event in ('cart', \"purchase\")", [1, 2]),
        ("event not in ('cart')", [0, 2, 5]),
        ("event is missing", [3, 4]),
        ("buy = true", [0, 3, 5]),
        ("buy != true", [1, 4]),
        ("day >= '2024-01-05'", [4, 5]),
        ("`price (EUR)` = 9007199254740993", [5]),
        ("`price (EUR)` > 9007199254740992", [5]),
        ("rating > 4 or rating < 2 and event = 'cart'", [0]),
        ("(rating > 4 or rating < 2) and event = 'view'", [0, 5]),
        ("NOT (rating > 4 OR rating < 2)", [1, 3]),
    ],
)
def test_rows_by_hand(table, condition, rows):
    assert filtered(table.lazy(), condition, table="rows").collect()["n"].to_list() == rows


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("", "position 1, 'the end': expected a column"),
        ("rating >=", "expected a value: a number"),
        ("event = purchase", "position 9, 'purchase': expected a value: a number, or a text in quotes such as \"purchase\""),
        ("rating > 4 rating < 5", "position 12, 'rating': expected and, or, or the end"),
        ("rating => 4", "position 9, '>': expected a value"),
        ("(rating > 4", r"expected \)"),
        ("rating > 4; import os", "position 11"),
        ("__import__('os')", "position 11, '\\('"),
        ("event in ()", "expected a value"),
        ("event like 'v%'", "expected one of"),
        ("ratting > 4", r"'ratting', which rows lack \(did you mean 'rating'\?\)"),
        ("rating > '4'", "write numbers without quotes"),
        ("event > 'b'", "by size, but texts have none"),
        ("buy = 1", "of type Boolean"),
        ("day > 3", "of type Date"),
        ("day > 'soon'", "is none such as"),
        ("(" * 60 + "rating > 4" + ")" * 60, "within one another"),
    ],
)  # fmt: skip
def test_a_condition_that_cannot_be_right_is_refused_where_it_is_wrong(condition, message):
    with pytest.raises(ConfigError, match=message):
        filtered(TYPED.lazy(), condition, table="rows")


def test_a_number_is_not_compared_with_words():
    with pytest.raises(DataError, match="'event' of the rows with a number, but a row holds 'view'"):
        filtered(TYPED.lazy(), "event > 3", table="rows")


def test_columns_are_named_once():
    assert columns_of(parse("a = 1 or not (b is missing and a in (1, 2))")) == ("a", "b")


@given(st.text(max_size=30))
def test_no_text_does_anything_but_be_refused_or_read(text):
    try:
        parse(text)
    except ConfigError:
        pass


@given(st.data())
def test_against_python(data):
    """And, or, not as in SQL: a comparison with a missing cell is unknown, and what is unknown at the end is left out."""
    cells = data.draw(st.lists(st.one_of(st.none(), st.integers(-3, 3)), min_size=1, max_size=6))

    def draw(depth: int) -> tuple[str, list[bool | None]]:
        kind = data.draw(st.sampled_from(["compare", "compare", "not", "and", "or"] if depth else ["compare"]))
        if kind == "compare":
            sign, value = data.draw(st.sampled_from(["<", "=", ">="])), data.draw(st.integers(-3, 3))
            test = {"<": int.__lt__, "=": int.__eq__, ">=": int.__ge__}[sign]
            return f"x {sign} {value}", [None if cell is None else test(cell, value) for cell in cells]
        text, values = draw(depth - 1)
        if kind == "not":
            return f"not ({text})", [None if v is None else not v for v in values]
        other, others = draw(depth - 1)
        decisive = kind == "or"
        both = [
            decisive if decisive in (a, b) else None if None in (a, b) else not decisive
            for a, b in zip(values, others, strict=True)
        ]
        return f"({text}) {kind} ({other})", both

    text, expected = draw(3)
    frame = pl.DataFrame({"x": pl.Series(cells, dtype=pl.Int64), "n": range(len(cells))}).lazy()
    assert filtered(frame, text, table="rows").collect()["n"].to_list() == [n for n, v in enumerate(expected) if v]
