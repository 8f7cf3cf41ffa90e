"""Labels from columns: positive, negative or unknown; carried through sorting, filters and the disk."""

import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.dataset import Dataset
from hllm.data.schema import DataConfig
from hllm.errors import ConfigError, DataError

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
    other = build_dataset(LOG, ITEMS, config([TARGETS[0] | {"at_least": 3}, TARGETS[1]]))
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
