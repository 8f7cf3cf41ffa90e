"""Ids of two tables that spreadsheets have changed, in either of them."""

import polars as pl
import pytest

from hllm.data.build import build_dataset, prepare
from hllm.data.ids import alike, causes, of_one_type, whole
from hllm.data.schema import DataConfig
from hllm.errors import DataError

WHOLE = ["0123", "17", "18", "x-9", "0"]
SPOILT = ["123", "17.0", "18 ", '"x-9"', "00"]


def tables(log_ids, item_ids):
    log = pl.DataFrame(
        {"user_id": ["u"] * len(log_ids), "item_id": log_ids, "timestamp": range(len(log_ids))}, strict=False
    )
    return log, pl.DataFrame({"item_id": item_ids, "title": [f"Title {n}" for n in range(len(item_ids))]}, strict=False)


@pytest.mark.parametrize(("known", "unknown"), [(WHOLE, SPOILT), (SPOILT, WHOLE)])
def test_it_is_the_same_which_table_was_spoilt(known, unknown):
    pairs = alike(pl.Series(known), pl.Series(unknown))
    assert pairs["known"].to_list() == pairs["unknown"].to_list() == [0, 1, 2, 3, 4]
    assert pairs["cause"].to_list() == [
        "zeros in front", ".0 at the end", "blanks or quotes around", "blanks or quotes around", "zeros in front",
    ]  # fmt: skip
    log, items = tables(unknown, known)
    with pytest.raises(
        DataError, match=r"5 of 5 interactions name items .* written in another way: .*match_ids = \"loose\""
    ) as caught:
        build_dataset(log, items, DataConfig())
    assert "drop" not in str(caught.value)
    dataset = build_dataset(log, items, DataConfig(match_ids="loose"))
    assert dataset.item_index.tolist() == [0, 1, 2, 3, 4]
    assert dataset.item_ids.to_list() == known


def test_an_id_that_is_like_two_is_like_none():
    known = pl.Series(["7", "07", "8"])
    assert alike(known, pl.Series(["007", "08"]))["unknown"].to_list() == [1]
    log, items = tables(["7", "007"], known.to_list())
    preparation, _ = prepare(log, items, DataConfig(match_ids="loose", unknown_items="drop"))
    assert [len(f.rows) for f in preparation.faults if f.name == "unknown_items"] == [1], "7 is there exactly"


def test_causes_are_counted_with_an_example_each():
    known, unknown = pl.Series(["01", "02", "3"]), pl.Series(["1", "2", "3.0"])
    assert causes(alike(known, unknown), known, unknown) == (
        "'1' is '01' in the items (2 differ by zeros in front), '3.0' is '3' in the items (1 differ by .0 at the end)"
    )


@pytest.mark.parametrize(("log_ids", "item_ids"), [
    ([7, 8], [7.0, 8.0]), ([7.0, 8.0], [7, 8]), (["7", "8"], [7.0, 8.0]), ([7.0, 8.0], ["7", "8"]), (["7", "8"], [7, 8]),
])  # fmt: skip
def test_numbers_meet_whatever_their_type(log_ids, item_ids):
    log, items = tables(log_ids, item_ids)
    assert build_dataset(log, items, DataConfig()).item_index.tolist() == [0, 1]


def test_types():
    assert whole(pl.Series([7.0, None])).to_list() == [7, None]
    assert whole(pl.Series([7.5])).dtype == pl.Float64
    known, named = of_one_type(pl.Series([1, 2], dtype=pl.Int8), pl.Series([300]))
    assert known.dtype == named.dtype == pl.String
