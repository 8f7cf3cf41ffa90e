"""Numbers as times: their unit is asked for where they are not of our days, and numbers stand among dates."""

import numpy as np
import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.reading.times import as_integers, better_clock
from hllm.data.schema import DataConfig
from hllm.errors import HllmWarning


@pytest.mark.parametrize(
    ("stamps", "seconds_per_unit", "expected"),
    [
        ([1_600_000_000, 1_700_000_000], 1.0, None),
        ([1_600_000_000_000, 1_500_000_000_000], 1.0, 'data.time_unit = "ms"'),
        ([1_600_000_000_000, 5], 1.0, None),
        ([1_600_000_000_000_000_000], 1.0, None),
        ([1_600_000_000_000_000], 1.0, 'data.time_unit = "us"'),
        ([1_600_000_000_000_000], 1e-3, 'data.time_unit = "us"'),
        ([1_600_000_000_000], 1e-3, None),
        ([20200105, 20201231], 1.0, 'data.time_format = "%Y%m%d"'),
        ([20200105, 20201331], 1.0, None),
        ([20200105], 1e-3, None),
        ([0, 1, 2], 1.0, None),
        ([1_600_000_000_000], None, None),
        ([1_600_000_000_000_000], 1e-6, None),
        ([], 1.0, None),
    ],
)
def test_a_clock_of_our_days_is_suggested(stamps, seconds_per_unit, expected):
    assert better_clock(np.array(stamps, dtype=np.int64), seconds_per_unit) == expected


def test_a_dataset_in_the_wrong_unit_warns_and_the_suggestion_ends_it():
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"]})
    log = pl.DataFrame(
        {"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [1_600_000_000_123, 1_600_000_101_123]}
    )
    with pytest.warns(
        HllmWarning, match=r'by data.time_unit = \'s\', are not those of our days; is it data.time_unit = "ms"\?'
    ):
        build_dataset(log, items, DataConfig())
    assert build_dataset(log, items, DataConfig(time_unit="ms")).seconds.tolist() == [1_600_000_000, 1_600_000_101]


def test_a_large_number_among_dates_is_a_time_and_blanks_do_not_count():
    texts = ["2020-01-01", " 2020-01-02 ", " 1577836800", "1577836800000", "1577836800000000", "7", "x"]
    moment = 1_577_836_800_000_000
    expected = [moment, moment + 86_400_000_000, moment, moment, moment, None, None]
    assert as_integers(pl.Series("timestamp", [*texts, *["2020-01-01"] * 5])).to_list()[:7] == expected


def test_blanks_around_numbers_do_not_count():
    assert as_integers(pl.Series("timestamp", [" 1111111111", "1111111112 ", "1111111113.0"])).to_list() == [
        1111111111,
        1111111112,
        1111111113,
    ]
