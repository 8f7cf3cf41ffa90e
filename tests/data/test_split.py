import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm.config import Config
from hllm.data.build import build_dataset
from hllm.data.cuts.column import ColumnSplit
from hllm.data.cuts.held_out_items import ItemSplit
from hllm.data.cuts.held_out_users import UserSplit
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.cuts.ratio import RatioSplit
from hllm.data.cuts.temporal import TemporalSplit
from hllm.data.dataset import Dataset
from hllm.data.schema import DataConfig
from hllm.data.split import Split, SplitConfig, options_of, require_two_items, split_dataset
from hllm.errors import ConfigError, DataError
from hllm.evaluation.evaluate import queries

NUM_ITEMS = 8
PARTS = ("train", "valid", "test", "")
Row = tuple[str, str, int, str]  # user, item, time, part

rows = st.tuples(st.integers(0, 5), st.integers(0, NUM_ITEMS - 1), st.integers(0, 20), st.sampled_from(PARTS))
logs = st.lists(rows, min_size=12, max_size=60)
logs_without_ties = st.lists(rows, min_size=12, max_size=60, unique_by=lambda row: (row[0], row[2]))

ONE_EACH = ("last", "first", "random")
CONFIGS = [
    LeaveOneOutSplit(),
    LeaveOneOutSplit(min_length=2),
    *(TemporalSplit(validation_share=0.2, test_share=0.2, targets=t) for t in (*ONE_EACH, "all")),
    *(TemporalSplit(test_share=0.3, validation="last-training-item", targets=t) for t in ("last", "all")),
    TemporalSplit(test_share=0.3, validation="users", validation_share=0.4),
    *(RatioSplit(validation_share=0.2, test_share=0.3, targets=t) for t in (*ONE_EACH, "all")),
    UserSplit(validation_share=0.2, test_share=0.3, min_length=2),
    *(ItemSplit(validation_share=0.2, test_share=0.3, targets=t) for t in (*ONE_EACH, "all")),
    *(ColumnSplit(targets=t) for t in (*ONE_EACH, "all")),
]


class Whole(Config):
    """A file with the table [split], as a recipe has it."""

    split: SplitConfig


def name_of(config: SplitConfig) -> str:
    return " ".join([config.kind, *map(str, config.model_dump(exclude_defaults=True).values())])


each_config = pytest.mark.parametrize("config", CONFIGS, ids=name_of)


def dataset_of(log: list[tuple], **config) -> Dataset:
    """Rows of user, item, time and perhaps part, as the caller's table has them."""
    columns = ["user_id", "item_id", "timestamp", "part"][: len(log[0])]
    items = sorted({row[1] for row in log})
    return build_dataset(
        pl.DataFrame(log, schema=columns, orient="row"),
        pl.DataFrame({"item_id": items, "title": [f"item {i}" for i in items]}),
        DataConfig(split_col="part" if len(columns) == 4 else None, **config),
    )


def try_split(dataset: Dataset, config: SplitConfig) -> Split | None:
    """A random log may leave nothing to learn from, or no target; it says so."""
    try:
        return split_dataset(dataset, config)
    except DataError as error:
        if not any(words in str(error) for words in ("leaves no", "needs real times")):
            raise
        return None


def events(dataset: Dataset) -> list[tuple]:
    users = np.repeat(dataset.users.to_numpy(), np.diff(dataset.offsets))
    items = dataset.item_ids.to_numpy()[dataset.item_index]
    return list(zip(users.tolist(), items.tolist(), dataset.timestamps.tolist(), strict=True))


def parts_of(dataset: Dataset, split: Split) -> dict[str, list[tuple]]:
    """The events of each part, sorted."""
    all_events = events(dataset)
    training = [event for event, inside in zip(all_events, split.training, strict=True) if inside]
    parts = {"training": training} | {p: [all_events[i] for i in split.targets(p)] for p in ("validation", "test")}
    held = set(np.flatnonzero(split.training)) | {*split.validation, *split.test}
    parts["unused"] = [event for i, event in enumerate(all_events) if i not in held]
    return {name: sorted(part) for name, part in parts.items()}


def letters(dataset: Dataset, split: Split) -> dict[str, str]:
    return {part: "".join(sorted(item for _, item, _ in found)) for part, found in parts_of(dataset, split).items()}


@pytest.fixture(scope="module")
def world() -> Dataset:
    """Every letter is one interaction; the number is its time."""
    log = {"u": "a0 b1 c2 d3 e4 f5 g6 h7", "v": "i2 j5 k7 l8", "w": "m9"}
    return dataset_of([(user, word[0], int(word[1])) for user, words in log.items() for word in words.split()])


# By hand. In every case u has 8 interactions, v has 4, and w's only one has no history.


def test_leave_one_out_by_hand(world):
    split = split_dataset(world, LeaveOneOutSplit())
    assert letters(world, split) == {"training": "abcdefijm", "validation": "gk", "test": "hl", "unused": ""}
    longer = split_dataset(world, LeaveOneOutSplit(min_length=5))
    assert letters(world, longer) == {"training": "abcdefijklm", "validation": "g", "test": "h", "unused": ""}
    pairs = dataset_of([(user, f"{user}{t}", t) for user in "xy" for t in range(2 if user == "x" else 4)])
    with_two = parts_of(pairs, split_dataset(pairs, LeaveOneOutSplit(min_length=2)))
    assert with_two["validation"] == [("x", "x0", 0), ("y", "y2", 2)], "x is asked for its first, with no history"


@pytest.mark.parametrize(
    ("targets", "validation", "test", "unused"),
    [("last", "gj", "hl", "efkm"), ("first", "ej", "hk", "fglm"), ("all", "efgj", "hkl", "m")],
)
def test_the_temporal_split_by_hand(world, targets, validation, test, unused):
    """From 4 for validation, from 7 for the test; what falls on a cut comes after it."""
    split = split_dataset(world, TemporalSplit(validation_from=4, test_from=7, targets=targets))
    assert letters(world, split) == {"training": "abcdi", "validation": validation, "test": test, "unused": unused}


@pytest.mark.parametrize(
    ("options", "later"),
    [
        ({"validation_from": 4, "test_from": 7}, "efgjhklm"),
        ({"validation_from": 4, "test_from": 7, "targets": "all"}, "efgjhklm"),
        ({"validation_from": 4, "test_from": 7, "later_items": "kept"}, ""),
        ({"test_from": 7, "validation": "last-training-item"}, "hklm"),
        ({"test_from": 7, "validation": "users", "validation_share": 0.5}, "hklm"),
    ],
    ids=str,
)
def test_training_does_not_see_items_that_are_first_met_after_it(world, options, later):
    """Every letter is an item of its own; what falls on the cut is met after it. Nobody knew such items before."""
    split = split_dataset(world, TemporalSplit(**options))
    assert sorted(world.item_ids.gather(split.withheld_items)) == sorted(later)
    assert split.withheld(world).sum() == len(later)


def test_items_that_are_met_again_after_the_cut_and_items_never_met_are_seen():
    """x is met before and after the cut, y after it only, and z never: only y is withheld."""
    log = [("u", "a", 0), ("u", "x", 1), ("v", "a", 2), ("v", "b", 3), ("u", "x", 5), ("v", "y", 6), ("u", "y", 8),
           ("v", "x", 9)]  # fmt: skip
    dataset = build_dataset(
        pl.DataFrame(log, schema=["user_id", "item_id", "timestamp"], orient="row"),
        pl.DataFrame({"item_id": list("abxyz"), "title": list("ABXYZ")}),
        DataConfig(),
    )
    split = split_dataset(dataset, TemporalSplit(validation_from=4, test_from=7))
    assert dataset.item_ids.gather(split.withheld_items).to_list() == ["y"]


def test_the_shares_of_a_temporal_split_by_hand():
    """Ten events at times 0 … 9, shares .2 and .2: training is 0 … 5, validation 6 and 7, test 8 and 9."""
    log = dataset_of([(u, str(t), t) for t, u in enumerate("0101010010")])
    split = split_dataset(log, TemporalSplit(validation_share=0.2, test_share=0.2))
    assert letters(log, split) == {"training": "012345", "validation": "7", "test": "89", "unused": "6"}


def test_validation_by_the_last_training_item_by_hand(world):
    config = {"test_from": 7, "validation": "last-training-item"}
    split = split_dataset(world, TemporalSplit(**config))
    assert letters(world, split) == {"training": "abcdefi", "validation": "gj", "test": "hl", "unused": "km"}
    every = split_dataset(world, TemporalSplit(**config, targets="all"))
    assert letters(world, every) == {"training": "abcdefi", "validation": "gj", "test": "hkl", "unused": "m"}


def test_validation_by_users_by_hand(world):
    """Of u and v, who have a history before the cut, the seed picks one; its last item there is the target."""
    found = set()
    for seed in range(12):
        config = TemporalSplit(test_from=7, validation="users", validation_share=0.5, seed=seed)
        found.add(tuple(letters(world, split_dataset(world, config)).values()))
    assert found == {("abcdefg", "j", "hl", "ikm"), ("ij", "g", "hl", "abcdefkm")}


@pytest.mark.parametrize(
    ("targets", "validation", "test", "unused"),
    [("last", "fk", "hl", "eg"), ("first", "ek", "gl", "fh"), ("all", "efk", "ghl", "")],
)
def test_the_ratio_split_by_hand(world, targets, validation, test, unused):
    """A quarter each: two of eight, one of four; w is too short and is for training."""
    config = RatioSplit(validation_share=0.25, test_share=0.25, targets=targets)
    found = letters(world, split_dataset(world, config))
    assert found == {"training": "abcdijm", "validation": validation, "test": test, "unused": unused}


def test_a_small_ratio_holds_out_one_interaction_each(world):
    found = letters(world, split_dataset(world, RatioSplit(validation_share=0.01, test_share=0.3)))
    # .3 of 8 is 2.4, .3 of 4 is 1.2
    assert found == {"training": "abcdeijm", "validation": "fk", "test": "ghl", "unused": ""}


def test_a_random_target_is_one_of_those_it_is_drawn_from(world):
    drawn = {"validation": set(), "test": set()}
    for seed in range(40):
        config = TemporalSplit(validation_from=4, test_from=7, targets="random", seed=seed)
        found = letters(world, split_dataset(world, config))
        for part, those in drawn.items():
            those.add(found[part])
    assert drawn == {"validation": {"ej", "fj", "gj"}, "test": {"hk", "hl"}}


def test_users_are_held_out_with_all_they_did():
    log = dataset_of([(user, f"{user}{t}", t) for user in range(10) for t in range(4)] + [(99, "x", 0)])
    parts = parts_of(log, split_dataset(log, UserSplit(validation_share=0.2, test_share=0.3)))
    users = {part: {user for user, _, _ in found} for part, found in parts.items()}
    assert (len(users["validation"]), len(users["test"])) == (2, 3)
    assert not users["validation"] & users["test"]
    assert users["training"] == {*range(10), 99} - users["validation"] - users["test"], "99 is too short to be asked"
    assert {time for part in ("validation", "test") for _, _, time in parts[part]} == {3}
    assert users["unused"] == users["validation"] | users["test"]
    other = UserSplit(validation_share=0.4, test_share=0.3)
    again = parts_of(log, split_dataset(log, other))
    assert again["test"] == parts["test"], "the test does not depend on the share for validation"


@pytest.mark.parametrize("targets", ["last", "first", "all"])
def test_items_are_held_out_with_all_that_was_done_with_them(targets):
    """Ten users walk through ten items, each from another one on, so that all but the first may be a target."""
    log = dataset_of([(user, f"i{(user + t) % 10}", t) for user in range(10) for t in range(10)])
    split = split_dataset(log, ItemSplit(validation_share=0.2, test_share=0.2, targets=targets))
    parts = parts_of(log, split)
    items = {part: {item for _, item, _ in found} for part, found in parts.items()}
    assert len(items["training"]) == 6
    assert not items["validation"] & items["test"]
    assert not items["training"] & (items["validation"] | items["test"])
    if targets == "all":
        assert (len(parts["validation"]), len(parts["test"]), len(parts["unused"])) == (18, 18, 4)
        assert {time for _, _, time in parts["unused"]} == {0}
        assert (len(items["validation"]), len(items["test"])) == (2, 2)
    else:
        pick = min if targets == "first" else max
        for part in ("validation", "test"):
            of_user = {user: time for user, _, time in parts[part]}
            assert len(of_user) == len(parts[part]) == 10, "one target for each user"
            for user, time in of_user.items():
                mine = [t for u, i, t in events(log) if u == user and t and i in held_items(log, split, part)]
                assert time == pick(mine)


def held_items(dataset: Dataset, split: Split, part: str) -> set[str]:
    """Held-out items of a part, found by asking for all targets; the draw of items is the same."""
    shares = {"validation_share": 0.2, "test_share": 0.2}
    every = split_dataset(dataset, ItemSplit(**shares, targets="all"))
    assert (every.training == split.training).all(), "targets do not change what is held out"
    return {item for _, item, _ in parts_of(dataset, every)[part]}


def test_the_column_says_which_part_an_interaction_is_in():
    given_parts = {"a": "train", "b": "train", "c": "valid", "d": "valid", "e": "test", "f": "test", "g": "", "h": None}
    log = [("u", item, time, part) for time, (item, part) in enumerate(given_parts.items())]
    dataset = dataset_of([*log, ("v", "i", 0, "test"), ("v", "j", 1, "test")])
    every = split_dataset(dataset, ColumnSplit())
    assert letters(dataset, every) == {"training": "ab", "validation": "cd", "test": "efj", "unused": "ghi"}
    first = split_dataset(dataset, ColumnSplit(targets="first"))
    assert letters(dataset, first) == {"training": "ab", "validation": "c", "test": "ej", "unused": "dfghi"}
    named = ColumnSplit(training_values=("test",), validation_values=("train",), test_values=("valid",))
    assert letters(dataset, split_dataset(dataset, named)) == {
        "training": "efij", "validation": "b", "test": "cd", "unused": "agh",
    }  # fmt: skip


def test_the_column_is_kept_with_the_dataset(tmp_path):
    log = [("u", item, time, part) for time, (item, part) in enumerate(zip("abcd", PARTS, strict=True))]
    dataset = dataset_of(log)
    dataset.save(tmp_path / "dataset")
    loaded = Dataset.load(tmp_path / "dataset")
    assert [loaded.part_names[part] for part in loaded.parts] == list(PARTS)
    assert loaded.fingerprint == dataset.fingerprint
    assert loaded.fingerprint != dataset_of([row[:3] for row in log]).fingerprint
    assert dataset_of([row[:3] for row in log]).parts is None


def test_dates_divide_as_the_seconds_that_they_stand_for(world):
    """The dataset's times are seconds since 1970; a date without a zone is in UTC."""
    in_seconds = TemporalSplit(validation_from=4, test_from=7)
    expected = split_dataset(world, in_seconds).fingerprint
    for validation_from, test_from in (
        ("1970-01-01 00:00:04", "1970-01-01T00:00:07+00:00"),
        (3.2, "1970-01-01 01:00:06.5+01:00"),
        (datetime.datetime(1970, 1, 1, 0, 0, 4), datetime.datetime(1970, 1, 1, 0, 0, 7)),
    ):
        config = TemporalSplit(validation_from=validation_from, test_from=test_from)
        assert split_dataset(world, config).fingerprint == expected
        assert TemporalSplit.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("unit", ["ms", "us", "dates", "fractions"])
def test_moments_mean_the_same_whatever_the_unit_of_the_times(unit):
    log = pl.DataFrame({"user_id": ["u"] * 8, "item_id": list("abcdefgh"), "timestamp": range(8)})
    times = {
        "ms": pl.col("timestamp") * 1000,
        "us": pl.col("timestamp") * 1_000_000,
        "dates": pl.from_epoch("timestamp", time_unit="s"),
        "fractions": pl.col("timestamp") + 0.25,
    }
    items = pl.DataFrame({"item_id": list("abcdefgh"), "title": list("ABCDEFGH")})
    config = DataConfig(time_unit=unit if unit in ("ms", "us") else "s")
    dataset = build_dataset(log.with_columns(times[unit]), items, config)
    split = split_dataset(dataset, TemporalSplit(validation_from=4, test_from="1970-01-01 00:00:06"))
    assert letters(dataset, split) == {"training": "abcd", "validation": "f", "test": "h", "unused": "eg"}


# Properties, over random logs.


@each_config
@given(log=logs)
@settings(max_examples=20, deadline=None)
def test_every_interaction_is_in_one_part(config, log):
    dataset = dataset_of(log)
    split = try_split(dataset, config)
    if split is None:
        return
    parts, targets = parts_of(dataset, split), getattr(config, "targets", "last")
    assert sorted(event for part in parts.values() for event in part) == sorted(row[:3] for row in log)
    assert not set(split.validation) & set(split.test)
    assert not split.training[split.validation].any()
    assert not split.training[split.test].any()
    for part in ("validation", "test"):
        positions = split.targets(part)
        assert (np.diff(positions) > 0).all(), "ascending, none twice"
        of_user = [user for user, _, _ in parts[part]]
        assert targets == "all" or len(set(of_user)) == len(of_user)
    described = split.describe(dataset)
    assert {part: described[part] for part in parts} == {part: len(found) for part, found in parts.items()}
    for part in ("training", "validation", "test"):
        assert described[f"{part}_users"] == len({user for user, _, _ in parts[part]})
    firsts = {int(start) for start in dataset.offsets[:-1]}
    if targets == "all" and config.kind != "column":
        unused = np.flatnonzero(~split.training)
        assert set(unused) - {*split.validation, *split.test} <= firsts, "only what has no history is neither"
    if config != LeaveOneOutSplit(min_length=2):
        assert not firsts & {*split.validation, *split.test}, "a target has a history"


@each_config
@given(log=logs)
@settings(max_examples=12, deadline=None)
def test_a_history_is_all_the_user_did_before_the_target_and_no_more(config, log):
    dataset = dataset_of(log)
    split = try_split(dataset, config)
    if split is None:
        return
    in_order = {user: sorted((row for row in log if row[0] == user), key=lambda row: row[2]) for user in range(6)}
    for part in ("validation", "test"):
        asked = queries(dataset, split, part)
        assert asked.interactions.tolist() == split.targets(part).tolist()
        for number, history, target, at in zip(
            asked.users, asked.histories, asked.targets, asked.interactions, strict=True
        ):
            user, item, time = events(dataset)[at]
            assert user == dataset.users[int(number)]
            assert item == dataset.item_ids[int(target)]
            before = len(history)
            done = [row[1] for row in in_order[user]]
            assert dataset.item_ids.to_numpy()[history].tolist() == done[:before]
            assert (done[before], in_order[user][before][2]) == (item, time)


@pytest.mark.parametrize("config", [c for c in CONFIGS if c.kind == "temporal"], ids=name_of)
@given(log=logs)
@settings(max_examples=20, deadline=None)
def test_nothing_in_training_is_as_late_as_the_cut(config, log):
    dataset = dataset_of(log)
    split = try_split(dataset, config)
    if split is None:
        return
    times = dataset.timestamps
    latest = times[split.training].max()
    assert latest < times[split.test].min()
    if config.validation == "time":
        assert latest < times[split.validation].min()
    assert times[split.validation].max() < times[split.test].min()
    held = np.flatnonzero(~split.training)
    num_late = sum(row[2] >= times[split.test].min() for row in log)
    assert num_late <= len(held), "all that is so late is held out"
    if config.validation == "users":
        for position in split.validation:
            user = np.searchsorted(dataset.offsets, position, side="right") - 1
            assert not split.training[dataset.offsets[user] : dataset.offsets[user + 1]].any()


@each_config
@given(log=logs_without_ties, order=st.randoms(use_true_random=False))
@settings(max_examples=12, deadline=None)
def test_permuting_the_rows_changes_nothing(config, log, order):
    shuffled = list(log)
    order.shuffle(shuffled)
    first, second = (dataset_of(rows) for rows in (log, shuffled))
    ours, theirs = try_split(first, config), try_split(second, config)
    assert (ours is None) == (theirs is None)
    if ours is not None:
        assert parts_of(first, ours) == parts_of(second, theirs)


@given(log=logs)
@settings(max_examples=30, deadline=None)
def test_leave_one_out_takes_each_users_last_two_items(log):
    dataset = dataset_of(log)
    split = try_split(dataset, LeaveOneOutSplit())
    lengths = np.diff(dataset.offsets)
    if split is None:
        assert lengths.max() < 4
        return
    ends = dataset.offsets[1:][lengths >= 3]
    assert split.test.tolist() == (ends - 1).tolist()
    assert split.validation.tolist() == (ends - 2).tolist()


def test_training_with_one_item_is_refused():
    """Such a run once trained without a word: there is nothing that the item could be told apart from."""
    one = dataset_of([(u, 0, t) for u in range(2) for t in range(4)])
    of_targets = dataset_of([(u, 0 if t < 2 else t, t) for u in range(2) for t in range(4)])
    for dataset in (one, of_targets):
        with pytest.raises(DataError, match=r"all 4 training interactions are with one item"):
            require_two_items(dataset, split_dataset(dataset, LeaveOneOutSplit()))
    two = dataset_of([(u, t % 2, t) for u in range(2) for t in range(4)])
    require_two_items(two, split_dataset(two, LeaveOneOutSplit()))


def test_fingerprints_tell_splits_apart_and_stay_the_same(world):
    configs = [
        LeaveOneOutSplit(),
        LeaveOneOutSplit(min_length=5),
        *(TemporalSplit(validation_from=4, test_from=7, targets=t) for t in ("last", "first", "all")),
        TemporalSplit(test_from=7, validation="last-training-item"),
        RatioSplit(targets="last"),
        ItemSplit(validation_share=0.2, test_share=0.2),
    ]
    found = [split_dataset(world, config).fingerprint for config in configs]
    assert len(set(found)) == len(configs)
    assert found == [split_dataset(world, config).fingerprint for config in configs]
    one = split_dataset(world, LeaveOneOutSplit())
    assert Split("ratio", one.training, one.validation, one.test).fingerprint != one.fingerprint, "same arrays"
    swapped = Split(one.kind, one.training, one.test, one.validation)
    assert swapped.fingerprint != one.fingerprint


def test_fingerprints_are_those_of_the_first_version():
    """Runs and results name them. A cut that divides differently changes them: then say so in the change log."""
    parts = ("train", "valid", "test")
    log = [(u, f"i{(u + t) % 10}", t + u, parts[(t + u) % 3]) for u in range(10) for t in range(6)]
    expected = {
        LeaveOneOutSplit(): "32fabf96ff4f4ec7",
        TemporalSplit(targets="random"): "5f8decd9093d7bf8",
        TemporalSplit(validation="users", validation_share=0.4): "034f7e9556af28a6",
        RatioSplit(): "5ae1b6d3ccab933a",
        UserSplit(): "579d0e6d9727e818",
        ItemSplit(targets="all"): "a4edee91a2c1053f",
        ColumnSplit(): "f76c80d15c9d04c0",
    }
    dataset = dataset_of(log)
    assert {config: split_dataset(dataset, config).fingerprint[:16] for config in expected} == expected


def test_training_counts_leave_the_targets_out():
    dataset = dataset_of([(0, 0, 0), (0, 1, 1), (0, 1, 2), (0, 2, 3), (0, 3, 4), (1, 2, 5)])
    split = split_dataset(dataset, LeaveOneOutSplit())
    assert split.train_counts(dataset).tolist() == [1, 2, 1, 0]
    assert [column.tolist() for column in split.training_log(dataset)] == [[0, 0, 0, 1], [0, 1, 1, 2]]
    assert split.training_lengths(dataset).tolist() == [3, 1]


# What is refused.


def test_splits_that_leave_nothing_are_explained():
    short = dataset_of([(u, 1, t) for u in range(4) for t in range(2)])
    with pytest.raises(DataError, match="leave-one-out split leaves no validation target; more interactions"):
        split_dataset(short, LeaveOneOutSplit())
    with pytest.raises(
        DataError, match="leaves no user with two training interactions, so nothing to learn from; the longest of 4"
    ):
        split_dataset(dataset_of([(u, 1, t) for u in range(4) for t in range(3)]), LeaveOneOutSplit())
    with pytest.raises(DataError, match="needs real times: all interactions have the same one"):
        split_dataset(dataset_of([(0, 1, 5)] * 9), TemporalSplit())


def test_times_that_are_positions_have_no_temporal_split():
    positions = dataset_of([(u, t, t) for u in range(3) for t in range(9)], time_unit="none")
    with pytest.raises(DataError, match=r"only order what one user did; take another split.*data\.time_unit"):
        split_dataset(positions, TemporalSplit())
    assert len(split_dataset(positions, RatioSplit()).test) == 3


def test_a_moment_outside_the_data_is_explained(world):
    for moments in ({"validation_from": 0, "test_from": 7}, {"validation_from": 4, "test_from": "2024-05-31"}):
        with pytest.raises(DataError, match="does not divide the data, whose times run from 1970-01-01T00:00:00 to"):
            split_dataset(world, TemporalSplit(**moments))


def test_a_column_that_cannot_be_read_as_parts_is_explained(world):
    with pytest.raises(ConfigError, match=r"name it with data\.split_col"):
        split_dataset(world, ColumnSplit())
    log = [("u", "abcdef"[t], t, part) for t, part in enumerate(["train", "train", "dev2", "dev2", "test", "x"])]
    with pytest.raises(DataError, match=r"3 of 6 interactions have 'dev2', 'x' in data\.split_col; expected 'train'"):
        split_dataset(dataset_of(log), ColumnSplit())
    without = [row for row in log if row[3] in ("train", "test")]
    with pytest.raises(DataError, match=r'no interaction with a history has "valid".* see split\.validation_values'):
        split_dataset(dataset_of(without), ColumnSplit())
    with pytest.raises(DataError, match="interactions have no column 'prat'"):
        build_dataset(
            pl.DataFrame(log, schema=["user_id", "item_id", "timestamp", "part"], orient="row"),
            pl.DataFrame({"item_id": list("abcdef"), "title": list("ABCDEF")}),
            DataConfig(split_col="prat"),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": "all"}, "unknown key 'split.leave-one-out.targets'; known here: kind, min_length$"),
        (
            {"kind": "temporal", "min_length": 5},
            "unknown key 'split.temporal.min_length'; known here: .*, targets, test_f",
        ),
        (
            {"kind": "ratio", "validation": "users"},
            "unknown key 'split.ratio.validation' .did you mean 'validation_share'",
        ),
        ({"kind": "users", "targets": "first"}, "unknown key 'split.users.targets'"),
        ({"kind": "items", "test_from": 3}, "unknown key 'split.items.test_from'"),
        ({"kind": "column", "test_share": 0.2}, "unknown key 'split.column.test_share'"),
        ({"kind": "users", "test_values": ["x"]}, "unknown key 'split.users.test_values'"),
        ({"kind": "temporal", "test_from": 3}, "give both of validation_from and test_from, or neither"),
        ({"kind": "temporal", "validation_from": 5, "test_from": 5}, "validation_from 5 is not before split.test_from"),
        (
            {"kind": "temporal", "validation": "users", "validation_from": 3},
            "split.validation_from has no effect beside the other options",
        ),
        (
            {"kind": "temporal", "validation": "last-training-item", "validation_share": 0.3},
            "split.validation_share has no effect beside",
        ),
        ({"kind": "temporal", "test_from": 5, "validation_from": 3, "test_share": 0.3}, "split.test_share has no"),
        ({"kind": "temporal", "test_share": 0.95}, "validation_share 0.1 and test_share 0.95 leave nothing"),
        ({"kind": "ratio", "validation_share": 0.5, "test_share": 0.5}, "leave nothing for training"),
        ({"kind": "users", "validation_share": 0.0}, "greater than 0"),
        ({"kind": "temporal", "validation_from": "soon", "test_from": 5}, "'soon' is no date such as 2024-05-31"),
        ({"kind": "temporal", "validation_from": float("inf"), "test_from": 5}, "is no date such as"),
        ({"kind": "column", "test_values": ["dev"]}, '"dev" may stand for one part only'),
        ({"kind": "sorted"}, "leave-one-out"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Whole.from_dict({"split": options}, where="test")


def test_a_split_without_a_kind_is_leave_one_out():
    assert Whole.from_dict({"split": {"min_length": 4}}, where="test").split == LeaveOneOutSplit(min_length=4)


def test_options_are_those_that_the_kind_reads():
    assert options_of(LeaveOneOutSplit(min_length=4)) == {"min_length": 4}
    assert options_of(ItemSplit(test_share=0.2)) == {
        "validation_share": 0.1, "test_share": 0.2, "targets": "last", "seed": 0,
    }  # fmt: skip
