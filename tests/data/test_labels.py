"""Labels from columns: positive, negative or unknown; carried through sorting, filters and the disk."""

from datetime import date

import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.dataset import Dataset
from hllm.data.schema import DataConfig
from hllm.errors import ConfigError, DataError, HllmWarning

TARGETS = [{"name": "like", "column": "rating", "at_least": 4}, {"name": "buy", "column": "what", "values": ["buy"]}]
ITEMS = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["red", "green", "blue"]})
# Out of order; the user's order by time is c, a, b.
LOG = pl.DataFrame(
    {"user_id": ["u", "u", "u"], "item_id": ["a", "b", "c"], "timestamp": [2, 3, 1], "rating": [4.0, None, 3.5],
     "what": ["buy", "view", None]}
)  # fmt: skip


def config(targets=TARGETS, **values) -> DataConfig:
    return DataConfig.from_dict({"targets": targets, **values}, where="test")


def test_labels_follow_their_interactions_and_an_empty_cell_is_unknown():
    data = build_dataset(LOG, ITEMS, config())
    assert data.item_ids[data.item_index].to_list() == ["c", "a", "b"]
    assert data.label_names == ("like", "buy")
    assert data.labels.tolist() == [[0, -1], [1, 1], [-1, 0]]


def test_a_csv_file_gives_the_same_labels(tmp_path):
    LOG.write_csv(tmp_path / "log.csv")
    assert build_dataset(tmp_path / "log.csv", ITEMS, config()).labels.tolist() == [[0, -1], [1, 1], [-1, 0]]


def test_labels_are_kept_on_disk_and_are_part_of_the_fingerprint(tmp_path):
    data = build_dataset(LOG, ITEMS, config())
    data.save(tmp_path / "data")
    again = Dataset.load(tmp_path / "data")
    assert (again.labels == data.labels).all()
    assert (again.label_names, again.fingerprint) == (data.label_names, data.fingerprint)
    other = build_dataset(LOG, ITEMS, config([TARGETS[0], TARGETS[1] | {"values": ["view"]}]))
    assert other.fingerprint != data.fingerprint
    assert build_dataset(LOG, ITEMS, config([])).labels is None


def test_filters_take_the_labels_along():
    more = pl.concat([LOG, LOG.with_columns(user_id=pl.lit("v")).head(2)])
    data = build_dataset(more, ITEMS, config(min_user_interactions=3))
    assert data.labels.tolist() == [[0, -1], [1, 1], [-1, 0]]


def test_a_boolean_column_is_a_number():
    log = LOG.with_columns(rating=pl.Series([True, False, None]))
    assert build_dataset(log, ITEMS, config([TARGETS[0] | {"at_least": 1}])).labels[:, 0].tolist() == [-1, 1, 0]


def test_what_is_no_number_is_refused_with_the_target():
    log = LOG.with_columns(rating=pl.Series(["5", "good", ""]))
    with pytest.raises(DataError, match=r"1 of 3 interactions have no number in 'rating', which target 'like'.*'good'"):
        build_dataset(log, ITEMS, config())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([{"name": "like", "column": "rating"}], "needs one of at_least, for a number, and values, for texts"),
        ([TARGETS[0], TARGETS[1] | {"name": "like"}], "two targets are named 'like'"),
    ],
)
def test_targets_that_say_nothing_are_refused(targets, message):
    with pytest.raises(ConfigError, match=message):
        config(targets)


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"no column 'stars'.*data.targets.0.column"):
        build_dataset(LOG, ITEMS, config([{"name": "like", "column": "stars", "at_least": 4}]))


NUMBERS = pl.Series([1.0, 0.0, float("nan"), None])
CELLS = [
    (NUMBERS, ["1"]), (NUMBERS, ["1.0"]), (NUMBERS.cast(pl.Float32), ["+1"]), (NUMBERS, ["1", "7"]),
    (pl.Series([1, 0, None, None]), ["1"]), (pl.Series([1, 0, None, None], dtype=pl.UInt8), ["1.0"]),
    (pl.Series([2**60 + 1, 2**60, None, None]), [str(2**60 + 1)]), (pl.Series([1, 0, None, None]), ["1", "0.5"]),
    (pl.Series(["1", "0", "", None]), ["1"]), (pl.Series(["buy", "see", None, ""]), ["buy"]),
    (pl.Series(["buy", "see", None, None], dtype=pl.Categorical), ["buy"]),
    *[(pl.Series([True, False, None, None]), [value]) for value in ("True", "true", "1", "yes", " TRUE")],
    (pl.Series([False, True, None, None]), ["False"]),
]  # fmt: skip
FOUR = pl.DataFrame({"user_id": ["u"] * 4, "item_id": ["a", "b", "c", "a"], "timestamp": [1, 2, 3, 4]})


@pytest.mark.parametrize(("cells", "values"), CELLS)
def test_values_are_found_in_columns_of_any_type(cells, values):
    log = FOUR.with_columns(what=cells)
    data = build_dataset(log, ITEMS, config([{"name": "yes", "column": "what", "values": values}]))
    assert data.labels[:, 0].tolist() == [1, 0, -1, -1]


@pytest.mark.parametrize(("values", "cells"), [(["yes!"], pl.Series([True, False])), (["buy"], pl.Series([1.0, 0.0]))])
def test_values_that_a_column_cannot_hold_are_refused(values, cells):
    log = FOUR.head(2).with_columns(what=cells)
    with pytest.raises(DataError, match=rf"'what' holds '{values[0]}', but that column holds (true and false|numbers)"):
        build_dataset(log, ITEMS, config([{"name": "yes", "column": "what", "values": values}]))


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan", ""])
def test_a_text_that_is_no_number_is_an_unknown_label(text, tmp_path):
    FOUR.with_columns(rating=pl.Series(["5", "1", text, "4"])).write_csv(tmp_path / "log.csv")
    for log in (tmp_path / "log.csv", FOUR.with_columns(rating=pl.Series(["5", "1", text, "4"]))):
        assert build_dataset(log, ITEMS, config(TARGETS[:1])).labels[:, 0].tolist() == [1, 0, -1, 1]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"values": ["Buy"]}, "every label of target 'x' is 0, .* it is 1 for 'Buy', and 'what' holds 'buy', 'see'"),
        ({"values": ["see", "buy", "look"]}, "every label of target 'x' is 1"),
        ({"column": "rating", "at_least": 6}, "is 0, .* it is 1 from at_least = 6 on, and 'rating' holds 5, 1, 2, …"),
    ],
)
def test_labels_that_are_all_alike_are_said(target, message):
    log = FOUR.with_columns(what=pl.Series(["buy", "see", "see", "buy"]), rating=pl.Series([5, 1, 2, 3]))
    with pytest.warns(HllmWarning, match=message):
        build_dataset(log, ITEMS, config([{"name": "x", "column": "what"} | target]))


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["5", "1", "4"])])
def test_numbers_in_a_column_of_categories_are_compared(dtype):
    log = FOUR.with_columns(rating=pl.Series(["5", "1", None, "4"], dtype=dtype))
    assert build_dataset(log, ITEMS, config(TARGETS[:1])).labels[:, 0].tolist() == [1, 0, -1, 1]


def test_dates_are_no_numbers_to_compare():
    log = FOUR.with_columns(rating=pl.Series([date(2020, 1, day) for day in (1, 2, 3, 4)]))
    with pytest.raises(DataError, match="4 of 4 interactions have no number in 'rating'"):
        build_dataset(log, ITEMS, config(TARGETS[:1]))
