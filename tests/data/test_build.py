"""Faults in a million rows, what each policy does, and what the order of the rows means."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm.data.build import Preparation, build_dataset, prepare
from hllm.data.dataset import Dataset
from hllm.data.schema import DataConfig
from hllm.errors import DataError

ITEMS = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["A", "B", "C"]})
FAULTY_ITEMS = pl.DataFrame({"item_id": ["a", "b", "b", "c", "", "d"], "title": ["A", "B", "B2", " ", "E", "A"]})
FAULTY_EVENTS = pl.DataFrame(
    [
        ("u", "a", "1"),
        ("u", "a", "1"),  # again
        ("", "b", "2"),  # no user
        ("v", "zz", "soon"),  # an unknown item and no time
        ("v", None, "4"),  # no item
        ("v", "b", "5"),
        ("v", "c", "6"),  # an item without text
    ],
    schema=["user_id", "item_id", "timestamp"],
    orient="row",
)
DROP_ALL = {
    key: "drop"
    for key in (
        "missing_user_ids", "missing_item_ids", "unknown_items", "items_without_text", "unreadable_times",
        "duplicate_items", "duplicate_interactions",
    )
}  # fmt: skip


def events(*rows: tuple) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def rows_of(preparation: Preparation) -> dict[tuple[str, str], list[int]]:
    return {(f.table, f.name): (f.rows + 1).tolist() for f in preparation.faults if len(f.rows)}


def histories(dataset: Dataset) -> dict[str, list[tuple[str, int]]]:
    ids = dataset.item_ids.to_list()
    bounds = zip(dataset.users, dataset.offsets[:-1], dataset.offsets[1:], strict=True)
    return {
        user: [(ids[i], int(t)) for i, t in zip(dataset.item_index[a:b], dataset.timestamps[a:b], strict=True)]
        for user, a, b in bounds
    }


@pytest.mark.reliability("broken tables")
def test_every_row_at_fault_is_found_and_none_else():
    preparation, dataset = prepare(FAULTY_EVENTS, FAULTY_ITEMS, DataConfig(**DROP_ALL))
    assert rows_of(preparation) == {
        ("items", "missing_item_ids"): [5],
        ("items", "duplicate_items"): [3],
        ("items", "items_without_text"): [4],
        ("items", "repeated_texts"): [6],
        ("interactions", "missing_user_ids"): [3],
        ("interactions", "missing_item_ids"): [5],
        ("interactions", "unknown_items"): [4],
        ("interactions", "items_without_text"): [7],
        ("interactions", "unreadable_times"): [4],
        ("interactions", "duplicate_interactions"): [2],
    }
    assert histories(dataset) == {"u": [("a", 1)], "v": [("b", 5)]}
    assert dataset.items.rows() == [("a", "A"), ("b", "B"), ("d", "A")]


def test_one_error_names_every_fault():
    with pytest.raises(DataError, match="the tables are wrong in 7 ways") as caught:
        build_dataset(FAULTY_EVENTS, FAULTY_ITEMS, DataConfig())
    for line in (
        "- 1 of 6 items have no item_id; first in data rows 5.",
        "- 1 of 6 items repeat the item_id of an earlier row; first in data rows 3 ('b').",
        "- 1 of 6 items have no text in 'title'; first in data rows 4 ('c').",
        "- 1 of 7 interactions have no user_id; first in data rows 3.",
        "- 1 of 7 interactions have no item_id; first in data rows 5.",
        "- 1 of 7 interactions name items that the items table lacks; first in data rows 4 ('zz').",
        "- 1 of 7 interactions have no readable time in 'timestamp'; first in data rows 4 ('soon').",
    ):
        assert line in str(caught.value)
    assert str(caught.value).count("\n- ") == 7


@pytest.mark.parametrize("key", sorted(DROP_ALL))
def test_each_fault_can_be_an_error_alone(key):
    with pytest.raises(DataError, match=r"first in data rows"):
        build_dataset(FAULTY_EVENTS, FAULTY_ITEMS, DataConfig(**DROP_ALL | {key: "error"}))


def test_faults_can_be_kept_where_that_means_something():
    kept = DROP_ALL | dict.fromkeys(("unknown_items", "items_without_text", "duplicate_interactions"), "keep")
    log = FAULTY_EVENTS.with_columns(timestamp=pl.col("timestamp").replace("soon", "3"))
    dataset = build_dataset(log, FAULTY_ITEMS, DataConfig(**kept))
    assert histories(dataset) == {"u": [("a", 1), ("a", 1)], "v": [("zz", 3), ("b", 5), ("c", 6)]}
    assert dataset.item_ids.to_list() == ["a", "b", "c", "d", "zz"]


def test_an_interaction_is_repeated_if_user_item_time_and_action_are():
    log = events(("u", "a", 1), ("u", "b", 1), ("u", "a", 1), ("v", "a", 1), ("u", "a", 2), ("u", "b", 1))
    config = DataConfig(duplicate_interactions="drop")
    preparation, dataset = prepare(log, ITEMS, config)
    assert rows_of(preparation) == {("interactions", "duplicate_interactions"): [3, 6]}
    assert histories(dataset) == {"u": [("a", 1), ("b", 1), ("a", 2)], "v": [("a", 1)]}
    acted = log.with_columns(action=pl.Series(["view", "view", "buy", "view", "view", "view"]))
    preparation, _ = prepare(acted, ITEMS, config.model_copy(update={"action_col": "action"}))
    assert rows_of(preparation) == {("interactions", "duplicate_interactions"): [6]}
    preparation, _ = prepare(log, ITEMS, config.model_copy(update={"time_col": ""}))
    assert rows_of(preparation) == {}, "without times an item met again is no fault"


def test_a_few_damaged_times_make_no_dates_of_the_rest():
    log = events(("u", "a", "10"), ("u", "b", "9.5"), ("u", "c", "?"), ("u", "a", None), ("v", "c", "7"))
    preparation, dataset = prepare(log, ITEMS, DataConfig(unreadable_times="drop"))
    assert rows_of(preparation) == {("interactions", "unreadable_times"): [3, 4]}
    assert dataset.seconds_per_unit == 1e-6
    assert histories(dataset) == {"v": [("c", 7_000_000)], "u": [("b", 9_500_000), ("a", 10_000_000)]}
    dated = events(("u", "a", "2024-01-02"), ("u", "b", "2024-01-01"), ("u", "c", "never"))
    preparation, dataset = prepare(dated, ITEMS, DataConfig(unreadable_times="drop"))
    assert rows_of(preparation) == {("interactions", "unreadable_times"): [3]}
    assert [item for item, _ in histories(dataset)["u"]] == ["b", "a"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_quarantine_holds_the_rows_at_fault_with_all_their_columns(tmp_path, suffix):
    log = FAULTY_EVENTS.with_columns(note=pl.Series(list("tuvwxyz")), row=pl.lit("mine"))
    for name, table in (("log", log), ("items", FAULTY_ITEMS)):
        write = table.write_csv if suffix == "csv" else table.write_parquet
        write(tmp_path / f"{name}.{suffix}")
    config = DataConfig(quarantine=str(tmp_path / "q"))
    with pytest.raises(DataError, match="7 ways"):  # written before the error
        build_dataset(tmp_path / f"log.{suffix}", tmp_path / f"items.{suffix}", config)
    read = (lambda p: pl.read_csv(p, infer_schema=False)) if suffix == "csv" else pl.read_parquet
    found = read(tmp_path / "q" / f"quarantine-interactions.{suffix}")
    assert found.columns == ["fault", "policy", "table", "row", "user_id", "item_id", "timestamp", "note", "row_"]
    assert [(r[0], r[1], int(r[3]), r[7]) for r in found.rows()] == [
        ("duplicate_interactions", "keep", 2, "u"),
        ("missing_user_ids", "error", 3, "v"),
        ("unknown_items", "error", 4, "w"),
        ("unreadable_times", "error", 4, "w"),
        ("missing_item_ids", "error", 5, "x"),
        ("items_without_text", "drop", 7, "z"),
    ]
    found = read(tmp_path / "q" / f"quarantine-items.{suffix}")
    assert [(r[0], int(r[3]), r[5]) for r in found.rows()] == [
        ("duplicate_items", 3, "B2"),
        ("items_without_text", 4, " "),
        ("missing_item_ids", 5, "E"),
        ("repeated_texts", 6, "A"),
    ]


@pytest.mark.parametrize("name", ["row", "id", "fault", "user", "number", "row of the table", "item"])
def test_columns_may_have_any_name(tmp_path, name):
    """The time's column, and one of nothing, are called as columns that are made on the way."""
    log = FAULTY_EVENTS.rename({"timestamp": name}).with_columns(pl.lit("x").alias("row_"), pl.lit("y").alias("fault_"))
    config = DataConfig(time_col=name, quarantine=str(tmp_path / "q"), **DROP_ALL)
    dataset = build_dataset(log, FAULTY_ITEMS.with_columns(pl.lit("z").alias(name)), config)
    assert dataset.num_interactions == 3, "the item c has a text now"
    found = pl.read_parquet(tmp_path / "q" / "quarantine-interactions.parquet")
    assert {"fault", "policy", "table", "row", "row_", "fault_"} <= set(found.columns)
    assert "soon" in found[found.columns[6]].to_list()


def test_preparation_is_kept_in_the_manifest_and_is_not_part_of_the_fingerprint(tmp_path):
    dirty = build_dataset(FAULTY_EVENTS, FAULTY_ITEMS, DataConfig(**DROP_ALL, min_user_interactions=1))
    dirty.save(tmp_path / "d")
    again = Dataset.load(tmp_path / "d")
    assert again.preparation == dirty.preparation
    assert again.preparation["steps"] == [
        {"step": "read", "rows": 7, "users": 2, "items": 4},
        {"step": "faults", "rows": 2, "users": 2, "items": 2},
        {"step": "k-core", "rows": 2, "users": 2, "items": 2, "min_user": 1, "min_item": 0, "rounds": 1},
    ]
    clean = build_dataset(events(("u", "a", 1), ("v", "b", 5)), dirty.items, DataConfig())
    assert clean.fingerprint == dirty.fingerprint


def planted(rng: np.random.Generator, rows: int, share: float) -> tuple[pl.DataFrame, pl.DataFrame, dict]:
    """Two tables, each kind of fault in `share` of the rows of its table, no row with two; and which rows they are."""
    num_items = rows // 20
    count, of_items = int(rows * share), int(num_items * share)
    item_id = np.array([f"item-{n:08d}" for n in range(num_items)], dtype=object)
    title = np.array([f"the title of item {n}" for n in range(num_items)], dtype=object)
    no_id, again, no_text, same = np.split(
        np.sort(rng.permutation(np.arange(1, num_items))[: 4 * of_items]).reshape(of_items, 4), 4, axis=1
    )
    no_id, again, no_text, same = (part.ravel() for part in (no_id, again, no_text, same))
    title[no_text] = [None, "", "  "] * (of_items // 3) + [""] * (of_items % 3)
    title[same] = title[0]
    good = np.setdiff1d(np.arange(num_items), np.concatenate([no_id, again, no_text]))
    user = np.array([f"user-{n:010d}" for n in rng.integers(rows // 10, size=rows)], dtype=object)
    item = item_id[rng.choice(good, rows)]
    time = np.array([str(n) for n in rng.permutation(rows) + 1_500_000_000], dtype=object)
    item_id[again] = item_id[0]
    item_id[no_id] = None
    # Rows 2n and 2n + 1 for a repeated interaction, so that no fault falls on what it repeats.
    places = 2 * rng.permutation(rows // 2)[: 5 * count].reshape(5, count) + 1
    no_user, no_item, unknown, no_time, repeats = np.sort(places, axis=1)
    user[no_user], item[no_item] = None, None
    item[unknown] = "item-of-nowhere"
    time[no_time] = ["", "yesterday"] * (count // 2)
    for column in (user, item, time):
        column[repeats] = column[repeats - 1]
    expected = {
        ("items", "missing_item_ids"): no_id,
        ("items", "duplicate_items"): again,
        ("items", "items_without_text"): no_text,
        ("items", "repeated_texts"): same,
        ("interactions", "missing_user_ids"): no_user,
        ("interactions", "missing_item_ids"): no_item,
        ("interactions", "unknown_items"): unknown,
        ("interactions", "unreadable_times"): no_time,
        ("interactions", "duplicate_interactions"): repeats,
    }
    log = pl.DataFrame(
        {"user_id": list(user), "item_id": list(item), "timestamp": list(time)},
        schema_overrides={"timestamp": pl.String},
    )
    return log, pl.DataFrame({"item_id": list(item_id), "title": list(title)}), expected


@pytest.mark.reliability("broken tables")
def test_a_million_rows_with_planted_faults_report_exactly_those(rng, tmp_path):
    rows = 1_000_000
    log, items, expected = planted(rng, rows, share=0.01)
    log.write_csv(tmp_path / "log.csv")
    items.write_parquet(tmp_path / "items.parquet")
    preparation, dataset = prepare(tmp_path / "log.csv", tmp_path / "items.parquet", DataConfig(**DROP_ALL))
    found = {(f.table, f.name): f.rows for f in preparation.faults if len(f.rows)}
    assert found.keys() == expected.keys()
    for fault, planted_rows in expected.items():
        assert np.array_equal(found[fault], planted_rows), fault
    assert dataset.num_interactions == rows - 5 * (rows // 100)


LOGS = st.lists(
    st.tuples(st.sampled_from("uvwxyz"), st.sampled_from(["a", "b", "c", "zz"])), min_size=1, max_size=25
).flatmap(
    lambda pairs: st.tuples(
        st.just(pairs),
        st.lists(st.integers(-(10**6), 10**6), min_size=len(pairs), max_size=len(pairs), unique=True),
        st.permutations(range(len(pairs))),
        st.sampled_from(["k-core", "one-pass"]),
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from(["drop", "keep"]),
    )
)


@settings(deadline=None, max_examples=60)
@given(LOGS)
def test_the_order_of_the_rows_changes_nothing_if_times_differ(log):
    pairs, times, order, kind, min_user, min_item, unknown = log
    table = events(*((user, item, time) for (user, item), time in zip(pairs, times, strict=True)))
    filter_kind = kind if min_user or min_item else "k-core"  # another one is refused where it has no effect
    config = DataConfig(
        unknown_items=unknown, filter=filter_kind, min_user_interactions=min_user, min_item_interactions=min_item
    )

    def outcome(table: pl.DataFrame) -> tuple | str:
        try:
            dataset = build_dataset(table, ITEMS, config)
        except DataError as error:
            return str(error)
        return dataset.fingerprint, histories(dataset), dataset.items.rows(), dataset.preparation["steps"]

    first = outcome(table)
    assert outcome(table[list(order)]) == first
    if not isinstance(first, str) and not min_user and not min_item:
        by_hand = sorted(zip(times, pairs, strict=True))
        known = [(u, i, t) for t, (u, i) in by_hand if i != "zz" or unknown == "keep"]
        assert list(first[1]) == list(dict.fromkeys(u for u, _, _ in known))
        assert first[1] == {u: [(i, t) for v, i, t in known if v == u] for u in first[1]}


def test_times_too_far_apart_for_one_sorting_key_sort_too():
    log = events(("u", "a", 2**62), ("v", "b", 5), ("u", "b", -(2**61)), ("v", "c", 2**62), ("v", "a", 5))
    assert histories(build_dataset(log, ITEMS, DataConfig())) == {
        "u": [("b", -(2**61)), ("a", 2**62)],
        "v": [("b", 5), ("a", 5), ("c", 2**62)],
    }


def test_a_condition_leaves_rows_out_and_the_numbers_of_the_others_stay(tmp_path):
    """Faults and the quarantine name rows of the table, not of what is left of it."""
    rows = pl.concat([FAULTY_EVENTS.with_columns(stars=pl.lit("1")), FAULTY_EVENTS.with_columns(stars=pl.lit("4.5"))])
    config = DataConfig(**DROP_ALL, where="stars >= 4", quarantine=str(tmp_path))
    preparation, dataset = prepare(rows, FAULTY_ITEMS, config)
    found = {name: numbers for (table, name), numbers in rows_of(preparation).items() if table == "interactions"}
    assert found == {
        "missing_user_ids": [10], "missing_item_ids": [12], "unknown_items": [11], "items_without_text": [14],
        "unreadable_times": [11], "duplicate_interactions": [9],
    }  # fmt: skip
    assert preparation.steps[0] == {"step": "where", "of": 14, "rows": 7, "users": 2, "items": 4}
    assert histories(dataset) == {"u": [("a", 1)], "v": [("b", 5)]}
    kept = pl.read_parquet(tmp_path / "quarantine-interactions.parquet")
    assert sorted(kept["row"].unique()) == [9, 10, 11, 12, 14]


def test_without_a_table_of_items_the_catalogue_is_their_ids():
    log = events(("u", "b", 1), ("u", "a", 2), ("v", None, 3))
    preparation, dataset = prepare(log, None, DataConfig(missing_item_ids="drop"))
    assert dataset.items.rows() == [("a",), ("b",)]
    assert rows_of(preparation) == {("interactions", "missing_item_ids"): [3]}
    assert build_dataset(events(("u", 2, 1), ("u", 10, 2)), None, DataConfig()).item_ids.to_list() == [2, 10]


def test_items_without_text_columns_have_no_faults_of_texts():
    preparation, dataset = prepare(events(("u", "a", 1)), ITEMS.select("item_id"), DataConfig())
    assert rows_of(preparation) == {}
    assert (dataset.text_cols, dataset.titles.to_list()) == ((), ["a", "b", "c"])
