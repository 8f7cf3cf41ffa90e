"""Dates in text: each form by hand, and the order of day and month by the whole column."""

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.reading.dates import date_order, read_dates, read_format
from hllm.data.schema import DataConfig
from hllm.errors import DataError


def micros(*parts: int, zone=UTC) -> int:
    return round(datetime(*parts, tzinfo=zone).timestamp() * 1e6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-03-17 05:06:07 UTC", micros(2021, 3, 17, 5, 6, 7)),
        ("2021-03-17T05:06:07.125Z", micros(2021, 3, 17, 5, 6, 7, 125000)),
        ("2021-03-17T05:06:07+0200", micros(2021, 3, 17, 3, 6, 7)),
        ("2021-03-17 05:06:07-07:30", micros(2021, 3, 17, 12, 36, 7)),
        ("2021/3/7 5:06", micros(2021, 3, 7, 5, 6)),
        (" 2021-03-17 ", micros(2021, 3, 17)),
        ("Mon Mar 02 14:05:30 +0000 2015", micros(2015, 3, 2, 14, 5, 30)),
        ("Wed Aug 02 20:24:10 -0700 2017", micros(2017, 8, 2, 20, 24, 10, zone=timezone(timedelta(hours=-7)))),
        ("Tue, 02 Jan 2018 10:11:12 GMT", micros(2018, 1, 2, 10, 11, 12)),
        ("03/17/2021 7:41:08 PM", micros(2021, 3, 17, 19, 41, 8)),
        ("17/03/2021 12:00 am", micros(2021, 3, 17)),
        ("03/17/21", micros(2021, 3, 17)),
        ("17.3.99", micros(1999, 3, 17)),
        ("1.2.2021 10:11", micros(2021, 2, 1, 10, 11)),
        ("07-Mar-2001", micros(2001, 3, 7)),
        ("March 17, 2012", micros(2012, 3, 17)),
        ("Sept. 3rd, 2012 8:55 p.m.", micros(2012, 9, 3, 20, 55)),
        ("03 7, 2012", micros(2012, 3, 7)),
        ("30.02.2020", None),
        ("31/31/2020", None),
        ("2020-01-01 25:00", None),
        ("13/14/2020 14:00 PM", None),
        ("yesterday", None),
        ("10:00", None),
    ],
)
def test_each_form_by_hand(text, expected):
    assert read_dates(pl.Series("t", [text, None]))[0].to_list() == [expected, None]


def test_every_row_has_its_own_form():
    texts = ["2020-01-02", "02.01.2020", "Jan 2, 2020", "2020-01-02T00:00:00+00:00", "nothing"]
    assert read_dates(pl.Series("t", texts))[0].to_list() == [micros(2020, 1, 2)] * 4 + [None]


@pytest.mark.parametrize(
    ("texts", "order", "months"),
    [
        (["11/10/2020", "12/31/2020", "1/5/2021"], "month/day/year", [11, 12, 1]),
        (["11/10/2020", "31/12/2020", "1/5/2021"], "day/month/year", [10, 12, 5]),
        (["5/5/2020", "6/6/2020"], "day/month/year", [5, 6]),
    ],
)
def test_the_whole_column_decides_what_comes_first(texts, order, months):
    times, found = read_dates(pl.Series("t", texts))
    assert found == order == date_order(pl.Series(texts))
    assert times.cast(pl.Datetime("us")).dt.month().to_list() == months


def test_where_both_orders_fit_somebody_has_to_say():
    log = pl.DataFrame(
        {
            "user_id": ["u"] * 3,
            "item_id": list("abc"),
            "timestamp": ["11/10/2020 7:15", "12/2/2020 6:40", "1/5/2021 10:00"],
        }
    )
    with pytest.raises(
        DataError,
        match=r"month first and day first alike; set data\.time_format .*'%m/%d/%Y %H:%M' or '%d/%m/%Y %H:%M'",
    ):
        build_dataset(log, None, DataConfig())
    first = build_dataset(log, None, DataConfig(time_format="%m/%d/%Y %H:%M"))
    assert first.item_ids.gather(first.item_index).to_list() == ["a", "b", "c"]
    assert first.seconds[0] == micros(2020, 11, 10, 7, 15) // 10**6
    second = build_dataset(log, None, DataConfig(time_format="%d/%m/%Y %H:%M"))
    assert second.item_ids.gather(second.item_index).to_list() == ["b", "a", "c"]


@pytest.mark.parametrize("values", [["20200105", "20201230"], [20200105, 20201230], [20200105.0, 20201230.0]])
def test_a_format_reads_numbers_too(values):
    log = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": values})
    dataset = build_dataset(log, None, DataConfig(time_format="%Y%m%d"))
    assert dataset.seconds.tolist() == [micros(2020, 1, 5) // 10**6, micros(2020, 12, 30) // 10**6]


def test_what_does_not_fit_the_format_is_unreadable():
    assert read_format(pl.Series(["01/02/2020", "2020-01-02"]), "%m/%d/%Y").to_list() == [micros(2020, 1, 2), None]
