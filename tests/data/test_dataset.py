import datetime

import numpy as np
import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.dataset import Dataset
from hllm.data.schema import DataConfig
from hllm.errors import CheckpointError, DataError

ITEMS = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["A", "B", "C"]})


def events(*rows: tuple) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def titles_of(dataset: Dataset, user: str) -> list[str]:
    return dataset.items["title"][dataset.history(dataset.user_rows([user])[0])].to_list()


def test_histories_are_in_time_order_and_ties_keep_the_files_order():
    dataset = build_dataset(
        events(("v", "a", 9), ("u", "c", 5), ("u", "b", 1), ("u", "a", 5), ("u", "b", 5)), ITEMS, DataConfig()
    )
    assert dataset.users.to_list() == ["u", "v"], "by their first interactions"
    assert titles_of(dataset, "u") == ["B", "C", "A", "B"]
    assert titles_of(dataset, "v") == ["A"]


def test_integer_ids_stay_integers_and_dates_are_times():
    items = pl.DataFrame({"item_id": [7, 8], "title": ["x", "y"]})
    days = [datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)]
    dataset = build_dataset(
        pl.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "timestamp": days}), items, DataConfig()
    )
    assert dataset.item_ids.to_list() == [7, 8]
    assert dataset.history(0).tolist() == [1, 0]


def test_tables_that_disagree_on_the_ids_type_meet_as_text():
    dataset = build_dataset(events(("u", "7", 1)), pl.DataFrame({"item_id": [7], "title": ["x"]}), DataConfig())
    assert dataset.item_ids.to_list() == ["7"]


@pytest.mark.parametrize(("item_kind", "log_kind"), [(pl.Int32, pl.Int64), (pl.Int64, pl.Float64)])
def test_integer_ids_of_other_widths_stay_the_catalogues(item_kind, log_kind):
    items = pl.DataFrame({"item_id": pl.Series([7, 8], dtype=item_kind), "title": ["x", "y"]})
    log = pl.DataFrame({"user_id": ["u"], "item_id": pl.Series([8], dtype=log_kind), "timestamp": [1]})
    dataset = build_dataset(log, items, DataConfig())
    assert dataset.item_ids.dtype == item_kind
    assert dataset.history(0).tolist() == [1]


def test_other_columns_of_the_callers_do_not_matter():
    """A column named item_index or user_index once took the place of our own numbering."""
    log = events(("u", "b", 2), ("u", "a", 1)).with_columns(item_index=pl.lit(5), user_index=pl.lit(3))
    dataset = build_dataset(log, ITEMS.with_columns(item_index=pl.lit(9)), DataConfig())
    assert dataset.history(0).tolist() == [0, 1]
    assert dataset.offsets.tolist() == [0, 2]


def test_fractions_and_nanoseconds_keep_their_order():
    """Fractions once were cut to whole numbers, which made ties of them."""
    for later, earlier in ((0.9, 0.1), ("10.9", "10.1"), ("1732000000000000100", "1732000000000000050")):
        log = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [later, earlier]})
        assert titles_of(build_dataset(log, ITEMS, DataConfig()), "u") == ["B", "A"]


def test_numbers_and_dates_in_csv_are_times(tmp_path):
    ITEMS.write_csv(tmp_path / "items.csv")
    for first, second in (("10", "9"), ("10", "9.5"), ("2024-01-02 10:00:00", "2024-01-01 10:00:00")):
        (tmp_path / "events.csv").write_text(f"user_id,item_id,timestamp\nu,a,{first}\nu,b,{second}\n")
        dataset = build_dataset(tmp_path / "events.csv", tmp_path / "items.csv", DataConfig())
        assert titles_of(dataset, "u") == ["B", "A"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"interactions": events(("u", "a", 1)).rename({"user_id": "userid"})},
         r"interactions have no column 'user_id' \(did you mean 'userid'\?\); they have 'userid', 'item_id', 'timestamp'"),
        ({"items": ITEMS.rename({"item_id": "asin"})}, r"items have no column 'item_id'.*Name the right one with data\.item_col"),
        ({"config": DataConfig(text_cols=("titel",))}, r"items have no column 'titel' \(did you mean 'title'\?\)"),
        ({"items": pl.concat([ITEMS, ITEMS[:1]])}, r"1 of 4 items repeat the item_id of an earlier row; first in data rows 4 \('a'\)"),
        ({"items": ITEMS.with_columns(title=pl.Series(["A", " ", None]))},
         r"2 of 3 items have no text in 'title'; first in data rows 2 \('b'\), 3 \('c'\)\. Describe them, or set data\.items_without_text"),
        ({"interactions": events(("u", "a", 1), ("u", "z", 2), ("v", "y", 3))},
         r"2 of 3 interactions name items that the items table lacks; first in data rows 2 \('z'\), 3 \('y'\)\. Add these items, or set "
         r"data\.unknown_items = \"drop\""),
        ({"interactions": events(("u", "a", 1), (None, "a", 2))}, r"1 of 2 interactions have no user_id; first in data rows 2"),
        ({"items": ITEMS.with_columns(item_id=pl.Series([None, "b", "c"]))}, r"1 of 3 items have no item_id"),
        ({"interactions": events(("u", "a", "soon"))}, r"1 of 1 interactions have no readable time in 'timestamp'; first in data rows 1 \('soon'\)"),
        ({"interactions": events(("u", "a", 1)).with_columns(timestamp=pl.lit(True))}, r"'timestamp' is of type Boolean; expected"),
        ({"config": DataConfig(text_cols=("title", "title"))}, r"data\.text_cols names each column once; found"),
        ({"config": DataConfig(where="user_id = 'nobody'")}, r"data\.where = .* leaves none of the 1 interactions"),
    ],
)  # fmt: skip
def test_wrong_tables_are_explained(changed, message):
    given = {"interactions": events(("u", "a", 1)), "items": ITEMS, "config": DataConfig()} | changed
    with pytest.raises(DataError, match=message):
        build_dataset(given["interactions"], given["items"], given["config"])


def test_faults_can_be_dropped_when_the_config_says_so():
    items = ITEMS.with_columns(title=pl.Series(["A", None, "C"]))
    config = DataConfig(unknown_items="drop", items_without_text="drop")
    dataset = build_dataset(events(("u", "a", 1), ("u", "b", 2), ("u", "z", 3), ("u", "c", 4)), items, config)
    assert titles_of(dataset, "u") == ["A", "C"]
    only_empty = DataConfig(items_without_text="drop")
    assert titles_of(build_dataset(events(("u", "a", 1), ("u", "b", 2)), items, only_empty), "u") == ["A"]
    with pytest.raises(DataError, match="none of the 1 interactions is left"):
        build_dataset(events(("u", "z", 1)), ITEMS, config)


def test_a_saved_dataset_is_the_same_and_a_damaged_one_is_refused(dataset, tmp_path):
    dataset.save(tmp_path / "d")
    again = Dataset.load(tmp_path / "d")
    assert again.fingerprint == dataset.fingerprint
    assert again.items.equals(dataset.items)
    assert all(np.array_equal(again.history(u), dataset.history(u)) for u in range(dataset.num_users))
    file = tmp_path / "d" / "interactions.parquet"
    data = bytearray(file.read_bytes())
    data[50] ^= 4
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"interactions\.parquet is damaged"):
        Dataset.load(tmp_path / "d")


def test_the_fingerprint_is_of_the_data_not_of_the_files(interactions, items, dataset):
    shuffled = interactions.sample(fraction=1.0, shuffle=True, seed=3)
    assert build_dataset(shuffled, items, DataConfig()).fingerprint == dataset.fingerprint, "another order of rows"
    assert build_dataset(interactions.to_pandas(), items.to_pandas(), DataConfig()).fingerprint == dataset.fingerprint
    changed = items.with_columns(title=pl.lit("x"))
    assert build_dataset(interactions, changed, DataConfig()).fingerprint != dataset.fingerprint


def test_unknown_ids_are_counted_and_shown(dataset):
    with pytest.raises(
        DataError,
        match=r"2 of 3 users asked for are not in the interactions; first: 'x', 'y'\. Known ids look like 'u0'",
    ):
        dataset.user_rows(["u1", "x", "y"])
    with pytest.raises(DataError, match=r"1 of 1 items asked for are not in the catalogue; first: 'nope'"):
        dataset.item_rows(["nope"])


def test_items_can_be_added_at_the_end(dataset):
    new = pl.DataFrame({"item_id": ["n1"], "title": ["new hat"], "kind": ["hat"]})
    extended = dataset.extended(new)
    assert extended.num_items == dataset.num_items + 1
    assert extended.items[-1].rows() == new.rows()
    with pytest.raises(DataError, match=r"1 of 1 items are in the catalogue already; first in data rows 1 \('i3'\)"):
        dataset.extended(new.with_columns(item_id=pl.lit("i3")))
    with pytest.raises(DataError, match="1 of 1 items have no text"):
        dataset.extended(new.with_columns(title=pl.lit(""), kind=pl.lit(None)))
    with pytest.raises(DataError, match="items have no column 'kind'"):
        dataset.extended(new.drop("kind"))


def test_new_items_with_ids_of_another_type_are_refused():
    numbered = build_dataset(
        pl.DataFrame({"user_id": ["u"], "item_id": [7], "timestamp": [1]}),
        pl.DataFrame({"item_id": [7], "title": ["x"]}), DataConfig(),
    )  # fmt: skip
    with pytest.raises(
        DataError, match="do not have the catalogue's types: 'item_id' holds 'x1', which is not of type Int64"
    ):
        numbered.extended(pl.DataFrame({"item_id": ["x1"], "title": ["y"]}))


def test_titles_fall_back_to_the_id():
    dataset = build_dataset(
        events(("u", "a", 1)),
        pl.DataFrame({"item_id": ["a", "b"], "title": [None, "B"], "plot": ["p", "q"]}), DataConfig(),
    )  # fmt: skip
    assert dataset.titles.to_list() == ["a", "B"]


@pytest.mark.parametrize("cell", [b"caf\xe9", [b"caf\xe9"]])
def test_titles_of_bytes_that_are_no_text_are_noticed_before_training(cell):
    """They passed the check and the training, and then no recommendation could be shown."""
    items = pl.DataFrame({"item_id": ["a", "b"], "title": [type(cell)(), cell], "plot": ["a red hat", "a blue coat"]})
    dataset = build_dataset(events(("u", "a", 1)), items, DataConfig())
    assert (dataset.text_cols, dataset.titles.to_list()) == (("plot",), ["a red hat", "a blue coat"])
    bare = build_dataset(events(("u", "a", 1)), items.drop("plot"), DataConfig())
    assert bare.titles.to_list() == ["a", "b"]
    for config in (DataConfig(text_cols=("title",)), DataConfig(title_col="title")):
        with pytest.raises(DataError, match=r"items: column 'title' holds bytes that are no text.*first in data row 2"):
            build_dataset(events(("u", "a", 1)), items, config)


def test_without_a_time_column_the_files_order_is_the_order():
    log = events(("u", "c", 9), ("u", "a", 1)).drop("timestamp")
    assert titles_of(build_dataset(log, ITEMS, DataConfig(time_col="")), "u") == ["C", "A"]


def test_items_without_interactions_stay_unless_they_are_dropped():
    log = events(("u", "c", 1), ("u", "a", 2), ("v", "c", 3))
    assert build_dataset(log, ITEMS, DataConfig()).item_ids.to_list() == ["a", "b", "c"]
    dataset = build_dataset(log, ITEMS, DataConfig(items_without_interactions="drop"))
    assert dataset.item_ids.to_list() == ["a", "c"]
    assert titles_of(dataset, "u") == ["C", "A"]
    strict = DataConfig(items_without_interactions="drop")
    with pytest.raises(
        DataError, match=r"1 of 1 interactions name items that the items table lacks; first in data rows 1 \('zz'\)"
    ):
        build_dataset(events(("u", "zz", 1)), ITEMS, strict)
