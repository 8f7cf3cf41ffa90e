"""Old: users a and b, items i0 to i2. Expected values are worked by hand."""

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.dataset import Dataset
from hllm.data.growth import grow
from hllm.data.schema import DataConfig
from hllm.errors import DataError, HllmWarning

ITEMS = pl.DataFrame({"item_id": ["i0", "i1", "i2"], "title": ["red", "green", "blue"], "price": [1, 2, 3]})
LOG = pl.DataFrame(
    {"user_id": ["a", "a", "b", "a"], "item_id": ["i0", "i1", "i2", "i2"], "timestamp": [10, 20, 25, 30]}
)


def log(*rows: tuple[str, str, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.fixture
def old() -> Dataset:
    return build_dataset(LOG, ITEMS, DataConfig())


def added(old, interactions, items=None, known_items="error", **config):
    return grow(old, interactions, items, DataConfig(**config), known_items=known_items)


def histories(dataset: Dataset) -> dict[str, list[str]]:
    return {user: dataset.item_ids[dataset.history(n)].to_list() for n, user in enumerate(dataset.users)}


def test_known_items_and_users_keep_their_rows_and_new_ones_come_behind(old):
    items = pl.DataFrame({"item_id": ["new", "i1"], "title": ["old shoe", "green"]})
    found = added(old, log(("c", "i0", 5), ("a", "new", 40), ("b", "i1", 50)), items)
    dataset = found.dataset
    assert dataset.item_ids.to_list() == ["i0", "i1", "i2", "new"]
    assert dataset.users.to_list() == ["a", "b", "c"]
    assert histories(dataset) == {"a": ["i0", "i1", "i2", "new"], "b": ["i2", "i1"], "c": ["i0"]}
    assert dataset.items["price"].to_list() == [1, 2, 3, None]
    assert (dataset.item_index[found.positions] == old.item_index).all()
    assert (dataset.timestamps[found.positions] == old.timestamps).all()
    assert found.counts == {
        "interactions": 3, "known_interactions": 0, "late_interactions": 0, "users": 1, "items": 1,
        "updated_items": 0, "conflicting_items": 0,
    }  # fmt: skip
    assert dataset.preparation["added"][0]["counts"] == found.counts


def test_what_is_given_again_is_left_out_and_what_is_late_is_put_in_its_place(old):
    found = added(old, pl.concat([LOG, log(("a", "i2", 15), ("b", "i0", 25), ("b", "i2", 26))]))
    assert histories(found.dataset) == {"a": ["i0", "i2", "i1", "i2"], "b": ["i2", "i0", "i2"]}
    assert (found.counts["interactions"], found.counts["known_interactions"]) == (3, 4)
    assert found.counts["late_interactions"] == 1, "a at 15; b at 25 is not older than 25"
    assert found.positions.tolist() == [0, 2, 3, 4]


def test_a_grown_dataset_is_the_one_of_both_tables_at_once(old, interactions, items):
    """Users are known in the order of the whole log: cut in time, the first part has met them in the same order."""
    cut = interactions.filter(pl.col("timestamp") < 500), interactions.filter(pl.col("timestamp") >= 500)
    first = build_dataset(cut[0], items[:25], DataConfig())
    assert first.num_users == 12
    found = added(first, cut[1], items[25:])
    assert found.dataset.fingerprint == build_dataset(interactions, items, DataConfig()).fingerprint


def test_an_item_with_another_text_is_refused_kept_or_updated(old):
    items = pl.DataFrame({"item_id": ["i1", "i2"], "title": ["old green", " blue "]})
    more = log(("a", "i0", 40))
    message = r"1 of 2 items are in the run's catalogue with another text; first: 'i1' \('green' is 'old green' now\)"
    with pytest.raises(DataError, match=message + '.*parent.known_items = "update"'):
        added(old, more, items)
    kept, updated = (added(old, more, items, known_items=policy) for policy in ("keep", "update"))
    assert kept.dataset.items.equals(old.items)
    assert (kept.counts["conflicting_items"], updated.counts["updated_items"]) == (1, 1)
    assert updated.dataset.items["title"].to_list() == ["red", "old green", "blue"]
    assert updated.updated.tolist() == [1]


def test_an_item_without_text_gets_the_one_it_comes_with():
    old = build_dataset(pl.concat([LOG, log(("b", "bare", 60))]), ITEMS, DataConfig(unknown_items="keep"))
    described = pl.DataFrame({"item_id": ["bare"], "title": ["hat"]})
    found = added(old, log(("a", "i0", 70), ("a", "bare2", 80)), described, unknown_items="keep")
    assert found.dataset.items["title"].to_list()[3:] == ["hat", None]
    assert found.dataset.item_ids.to_list()[3:] == ["bare", "bare2"]
    assert (found.updated.tolist(), found.counts["items"]) == ([3], 1)


def test_times_of_two_units_are_put_in_one_order(old):
    moments = [datetime(1970, 1, 1, 0, 0, 22), datetime(1970, 1, 1, 0, 0, 40)]
    found = added(old, pl.DataFrame({"user_id": ["a", "b"], "item_id": ["i0", "i0"], "timestamp": moments}))
    assert found.dataset.seconds_per_unit == 1e-6
    assert found.dataset.seconds.tolist() == [10, 20, 22, 30, 25, 40]
    assert histories(found.dataset)["a"] == ["i0", "i1", "i0", "i2"]
    with pytest.raises(DataError, match="are those of a clock, those of the new ones only order"):
        added(old, log(("a", "i0", 40)), time_unit="none")


def test_without_times_new_interactions_come_behind_and_none_is_known_already():
    old = build_dataset(LOG, ITEMS, DataConfig(time_col=""))
    found = added(old, log(("a", "i0", 0), ("a", "i0", 0)), time_col="")
    assert histories(found.dataset)["a"] == ["i0", "i1", "i2", "i0", "i0"]
    assert found.counts["late_interactions"] == 0


def test_actions_and_parts_keep_their_numbers():
    columns = {"action_col": "what", "split_col": "part"}
    first = LOG.with_columns(what=pl.lit("click"), part=pl.lit("train"))
    old = build_dataset(first, ITEMS, DataConfig(**columns))
    more = log(("a", "i0", 40), ("b", "i0", 50)).with_columns(
        what=pl.Series(["buy", "click"]), part=pl.Series(["test", "train"])
    )
    dataset = added(old, more, **columns).dataset
    assert dataset.action_names == ("click", "buy")
    assert [dataset.action_names[n] for n in dataset.actions] == ["click", "click", "click", "buy", "click", "click"]
    assert [dataset.part_names[n] for n in dataset.parts] == ["train", "train", "train", "test", "train", "train"]


def test_ids_of_a_text_file_are_read_as_the_run_has_them(tmp_path):
    items = ITEMS.with_columns(item_id=pl.Series([7, 8, 9]))
    old = build_dataset(
        LOG.with_columns(item_id=pl.Series([7, 8, 9, 9]), user_id=pl.Series([1, 1, 2, 1])), items, DataConfig()
    )
    (tmp_path / "new.csv").write_text("user_id,item_id,timestamp\n2,7,40\n3,9,50\n")
    dataset = added(old, tmp_path / "new.csv").dataset
    assert (dataset.users.to_list(), dataset.item_index.tolist()) == ([1, 2, 3], [0, 1, 2, 2, 0, 2])
    with pytest.raises(
        DataError, match=r"the new user ids are of type String, such as 'x', .* of type Int64, such as 1"
    ):
        added(old, pl.DataFrame({"user_id": ["x"], "item_id": ["7"], "timestamp": [1]}))


@pytest.mark.parametrize(
    ("interactions", "items", "message"),
    [
        (LOG, None, "all of the 4 interactions are in the run's data already; there is nothing to learn from"),
        (log(("a", "i9", 40)), None, "1 of 1 interactions name items that the items table lacks"),
        (log(("a", "i0", 40)).rename({"user_id": "usr"}), None, "interactions have no column 'user_id'"),
        (log(("a", "i0", 40)), ITEMS.rename({"title": "name"}), "items have no column 'title'"),
        (log(("a", "i0", 40)), pl.DataFrame({"item_id": ["n"], "title": [" "]}), "1 of 1 items have no text"),
        (log(("a", "i0", 40)), ITEMS.with_columns(price=pl.lit("dear")), "do not have the catalogue's types"),
        (log(("a", "i0", 40)), pl.concat([ITEMS, ITEMS]), "3 of 6 items repeat the item_id of an earlier row"),
    ],
)
def test_wrong_tables_are_explained(old, interactions, items, message):
    with pytest.raises(DataError, match=message):
        added(old, interactions, items)


def test_policies_drop_what_they_say_and_more_columns_are_warned_of(old):
    items = pl.DataFrame({"item_id": ["n", "n", "m", None], "title": ["hat", "coat", "", "shoe"], "colour": "red"})
    policies = dict.fromkeys(("missing_item_ids", "duplicate_items", "items_without_text", "unknown_items"), "drop")
    with pytest.warns(HllmWarning, match="the new items' columns 'colour' are left out"):
        dataset = added(old, log(("a", "n", 40), ("a", "m", 50)), items, **policies).dataset
    assert dataset.items["title"].to_list() == ["red", "green", "blue", "hat"]
    assert histories(dataset)["a"] == ["i0", "i1", "i2", "n"]


def test_least_numbers_are_not_asked_of_new_rows():
    config = DataConfig(min_user_interactions=2, min_item_interactions=1)
    old = build_dataset(LOG, ITEMS, config)
    assert old.users.to_list() == ["a"]
    found = grow(old, log(("c", "i0", 40)), None, config, known_items="error")
    assert found.dataset.users.to_list() == ["a", "c"]
    assert np.diff(found.dataset.offsets).tolist() == [3, 1]
