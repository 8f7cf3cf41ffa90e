"""Lists as callers have them: of Python, numpy, pandas and polars; what is no list is refused, not read letter by letter."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest

from hllm.data.arguments import as_count, as_flag, as_ids, as_list, as_texts
from hllm.data.dataset import rows_of
from hllm.errors import ConfigError, nearest


@pytest.mark.parametrize(
    "values",
    [
        [1, 2], (1, 2), range(1, 3), {1: "a", 2: "b"}.keys(), iter([1, 2]), np.array([1, 2]), np.array([1, 2], np.uint8),
        pd.Series([1, 2], index=[7, 0]), pd.Index([1, 2]), pl.Series([1, 2]), [np.int64(1), np.int32(2)],
    ],
)  # fmt: skip
def test_every_list_of_ids_is_read_in_its_order(values):
    assert as_ids(values, name="users").to_list() == [1, 2]


@pytest.mark.parametrize(
    "values", [["a", None], ["a", float("nan")], ["a", pd.NA], ("a", pd.NaT), np.array(["a", None])]
)
def test_missing_ids_are_null(values):
    assert as_ids(values, name="users").to_list() == ["a", None]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, "b", 2], ["1", "b", "2"]),
        ([1, 2.0, "3", None], ["1", "2", "3", None]),
        ([1, True], ["1", "True"]),
        ([2**60 + 1, 0.5], ["1152921504606846977", "0.5"]),
    ],
)
def test_values_of_several_types_become_texts(values, expected):
    assert as_ids(values, name="users").to_list() == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("42", r"users is the text '42', expected a list; give \['42'\]"),
        (b"42", "users is the text b'42'"),
        (np.str_("42"), "users is the text"),
        (42, "users is 42, of type int; expected a list, an array or a series"),
        (None, "users is None; expected a list"),
        ({"a": 1}, "of type dict; expected a list"),
        (np.array([[1]]), r"users is an array of shape \(1, 1\), expected one dimension"),
        (np.array(3), r"an array of shape \(\)"),
        (pd.DataFrame({"users": [1]}), r"users is a table, expected one column of it; give table\['users'\]"),
        (pl.DataFrame({"users": [1]}), "users is a table"),
        ([[1]], r"users holds .*, expected ids"),
        ([object()], "users holds <object"),
    ],
)
def test_what_is_no_list_of_ids_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        as_ids(values, name="users")


@pytest.mark.parametrize(
    ("known", "wanted", "expected"),
    [
        ([1, 2], [1.7, 2.0, float("nan")], [None, 1, None]),
        ([1, 2], ["1", "2.5", " 1", "x", ""], [0, None, None, None, None]),
        ([1, 2], [True, False], [None, None]),
        ([1, 7], ["007", "+7", "7"], [None, None, 1]),
        ([1, 2], [Decimal("1.5"), Decimal("2.0")], [None, 1]),
        ([2**60, 3], [float(2**60), 3.0], [None, 1]),
        ([1, 2], [datetime.date(1970, 1, 2), datetime.date(1970, 1, 3)], [None, None]),
        ([1, 2], [2**40, -1, 2], [None, None, 1]),
        ([2**60, 2**60 + 1], [2**60 + 1], [1]),
        (["1", "2"], [2, 3], [1, None]),
        (["1", "2"], [2.0, 1.5], [1, None]),
        (["True", "2"], [True], [None]),
        (["a", "b"], [None, None], [None, None]),
    ],
)
def test_an_id_of_another_type_is_found_only_if_it_is_the_same(known, wanted, expected):
    assert rows_of(pl.Series(known), pl.Series(wanted)).to_list() == expected
    if pl.Series(known).dtype == pl.Int64 and max(known) < 100:
        assert rows_of(pl.Series(known, dtype=pl.UInt8), pl.Series(wanted)).to_list() == expected


def test_ids_of_categories_are_texts():
    assert rows_of(pl.Series(["a", "b"]), pl.Series(["b", "c"], dtype=pl.Categorical)).to_list() == [1, None]
    assert rows_of(pl.Series([1, 2]), pl.Series(["2", "c"], dtype=pl.Enum(["2", "c"]))).to_list() == [1, None]


@pytest.mark.parametrize(
    "texts", [["red", "blue"], np.array(["red", "blue"]), pd.Series(["red", "blue"]), pl.Series(["red", "blue"])]
)
def test_texts_of_any_kind(texts):
    assert as_texts(texts, name="texts") == ["red", "blue"]


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, pd.NA, pd.NaT])
def test_a_missing_text_is_none_or_refused(missing):
    assert as_texts(["red", missing], name="texts", absent=True) == ["red", None]
    with pytest.raises(ConfigError, match=r"texts\[1\] is missing; expected a text or a mapping"):
        as_texts(["red", missing], name="texts")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("red", r"give \['red'\]"), ([], "texts is empty"), ([5], r"texts\[0\] is 5, expected a text or a mapping"),
        (["a", ["b"]], r"texts\[1\] is \['b'\]"), (pl.Series([1.5]), r"texts\[0\] is 1.5"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_texts_is_refused(texts, message):
    with pytest.raises(ConfigError, match=message):
        as_texts(texts, name="texts")


def test_counts():
    assert [as_count(value, name="k") for value in (1, np.int8(3), np.uint64(10**12))] == [1, 3, 10**12]
    for value in (0, -1, 2.0, True, "3", None, np.float32(1), np.bool_(True)):
        with pytest.raises(ConfigError, match=r"k is .*; it must be a whole number, at least 1"):
            as_count(value, name="k")


def test_a_list_is_a_new_one():
    given = ["a"]
    as_list(given, name="x").append("b")
    assert given == ["a"]


def test_a_flag_is_true_or_false():
    assert [as_flag(value, name="exclude_seen") for value in (True, np.bool_(False))] == [True, False]
    for value in ("no", 1, None, ["yes"]):
        with pytest.raises(ConfigError, match=r"exclude_seen is .*; expected True or False"):
            as_flag(value, name="exclude_seen")


def test_a_name_that_is_no_text_is_near_nothing():
    assert nearest(None, ["test"]) == nearest(5, ["test"]) == ""
