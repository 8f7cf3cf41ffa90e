import numpy as np
import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.cuts.temporal import TemporalSplit
from hllm.data.describing.description import Description
from hllm.data.describing.measure import TokenCounter, describe
from hllm.data.describing.notes import percent
from hllm.data.describing.tables import describe_tables
from hllm.data.leak import leak_share
from hllm.data.prompt import PromptConfig
from hllm.data.schema import DataConfig
from hllm.data.split import split_dataset
from hllm.errors import DataError

T = 1_600_000_000  # 2020-09-13 12:26:40 UTC
LOG = [
    ("a", "x", T), ("a", "y", T + 10), ("a", "y", T + 10), ("a", "z", T + 20),
    ("b", "x", T), ("b", "z", T + 30),
    ("c", "y", T + 100),
]  # fmt: skip
PLAIN = PromptConfig(field_names=False)


def table(rows, time_type=pl.Int64) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String, "timestamp": time_type}, orient="row")


@pytest.fixture
def log() -> pl.DataFrame:
    return table(LOG)


@pytest.fixture
def hats() -> pl.DataFrame:
    """Item w has no text and no interaction; y and z have the same text."""
    return pl.DataFrame({"item_id": ["w", "x", "y", "z"], "title": ["", "red hat", "blue hat", "blue hat"]})


@pytest.fixture
def described(log, hats) -> Description:
    return describe_tables(log, hats, DataConfig(), split=LeaveOneOutSplit(), prompt=PLAIN)


def positions(*lengths: int, start: int = 0) -> pl.DataFrame:
    """Users u0, u1, … whose times count their interactions."""
    rows = [(f"u{u}", "xyz"[n % 3], start + n) for u, length in enumerate(lengths) for n in range(length)]
    return table(rows)


def test_counts_and_density(described):
    assert (described.num_users, described.num_items, described.num_interactions) == (3, 4, 7)
    assert described.density == 6 / 12, "a and y make one pair, though they met twice"


def test_history_lengths_are_4_2_and_1(described):
    lengths = described.history_length
    assert (lengths.min, lengths.p25, lengths.median, lengths.p75, lengths.max) == (1, 1.5, 2, 3, 4)
    assert (lengths.mean, lengths.p90, lengths.p99) == pytest.approx((7 / 3, 3.6, 3.96))
    assert lengths.histogram.edges == (1, 2, 3, 4, 5)
    assert lengths.histogram.counts == (1, 1, 0, 1)


def test_popularity_counts_items_without_interactions(described):
    popularity = described.popularity
    counts = np.array([0, 2, 3, 2])
    differences = np.abs(counts[:, None] - counts[None, :]).mean()
    assert popularity.gini == pytest.approx(differences / (2 * counts.mean())), "half the relative mean difference"
    assert (popularity.top_1_percent, popularity.top_10_percent) == (3 / 7, 3 / 7), "one item, rounded up"
    assert popularity.never == 1
    assert popularity.per_item.histogram.edges == (0, 1, 2, 4)
    assert popularity.per_item.histogram.counts == (1, 0, 3)


def test_gini_is_0_if_all_items_have_equally_many(hats):
    rows = [("a", item, T + n) for n, item in enumerate("wxyz")]
    assert describe_tables(table(rows), hats, DataConfig()).popularity.gini == 0


def test_the_top_percents_of_200_items_are_2_and_20_items():
    items = pl.DataFrame({"item_id": [str(n) for n in range(200)], "title": [f"item {n}" for n in range(200)]})
    # Items 0 and 1 have 10 interactions, the others one: 218 in all.
    log = table([("a", str(n), T + k) for k, n in enumerate([*range(200), *[0] * 9, *[1] * 9])])
    popularity = describe_tables(log, items, DataConfig()).popularity
    assert popularity.top_1_percent == pytest.approx(20 / 218)
    assert popularity.top_10_percent == pytest.approx((20 + 18) / 218)


def test_duplicates_and_repeated_pairs(hats):
    rows = [*LOG, ("a", "x", T + 50), ("b", "z", T + 30), ("b", "z", T + 30)]
    repeats = describe_tables(table(rows), hats, DataConfig()).repeats
    assert (repeats.duplicates, repeats.pairs) == (3, 4)


def test_times_of_a_clock(described):
    times = described.times
    assert (times.kind, times.first, times.last) == ("clock", "2020-09-13 12:26:40 UTC", "2020-09-13 12:28:20 UTC")
    assert times.resolution_s == 10
    assert times.median_gap_s == 10, "of 10, 0 and 10 of a, and 30 of b"
    assert times.tied_within_user == pytest.approx(2 / 7)
    assert times.tied_overall == pytest.approx(4 / 7)
    assert times.by_time.edges[0] == T
    assert times.by_time.edges[-1] == T + 101
    assert sum(times.by_time.counts) == 7


def test_dates_are_a_clock_of_whole_days(hats):
    rows = [("a", "x", "2024-02-28"), ("a", "y", "2024-02-29"), ("a", "z", "2024-03-05")]
    times = describe_tables(table(rows, pl.String), hats, DataConfig()).times
    assert (times.first, times.last) == ("2024-02-28 00:00:00 UTC", "2024-03-05 00:00:00 UTC")
    assert (times.resolution_s, times.median_gap_s) == (86_400, 3 * 86_400)


def test_one_interaction_a_user_has_no_gap(hats):
    times = describe_tables(table([("a", "x", T), ("b", "x", T + 5)]), hats, DataConfig()).times
    assert (times.kind, times.median_gap_s) == ("clock", None)


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("unit", ["s", "none"])
def test_positions_are_told_from_a_clock(hats, start, unit):
    described = describe_tables(
        positions(5, 3, 1, start=start), hats, DataConfig(time_unit=unit), split=LeaveOneOutSplit()
    )
    assert described.times.kind == "positions"
    assert described.times.first is None
    assert described.split.leak_share is None
    assert "The times are only positions" in described.notes[-1] + described.notes[0] + described.notes[1]


def test_positions_with_a_gap_in_one_history_of_ten_are_still_positions(hats):
    log = positions(*[4] * 10)
    gap = log.filter(~((pl.col("user_id") == "u3") & (pl.col("timestamp") == 1)))
    assert len(gap) == 39
    assert describe_tables(gap, hats, DataConfig()).times.kind == "positions"
    half = log.filter((pl.col("timestamp") != 1) | (pl.col("user_id") < "u5"))
    assert describe_tables(half, hats, DataConfig(time_unit="none")).times.kind == "order"


def test_times_that_count_all_interactions_are_not_positions_of_users(hats):
    rows = [("a", "x", 0), ("b", "y", 1), ("a", "y", 2), ("b", "z", 3)]
    assert describe_tables(table(rows), hats, DataConfig(time_unit="none")).times.kind == "order"


@pytest.mark.parametrize("config", [DataConfig(time_col=""), DataConfig(time_col="same")])
def test_without_times_that_differ_there_are_none(log, hats, config):
    described = describe_tables(log.with_columns(same=pl.lit(T)), hats, config)
    assert described.times.kind == "none"
    assert described.repeats.duplicates == 0, "without times nobody knows whether it is the same event"
    assert any(note.startswith("There are no times that differ") for note in described.notes)


@pytest.mark.parametrize(
    ("factor", "year", "question"),
    [(1000, "52671-", 'is it data.time_unit = "ms"'), (0.01, "1970-", "is data.time_unit right")],
)
def test_dates_beyond_belief_ask_for_the_unit(log, hats, factor, year, question):
    late = log.with_columns((pl.col("timestamp") * factor).cast(pl.Int64))
    described = describe_tables(late, hats, DataConfig())
    assert described.times.first.startswith(year)
    assert any(question in note for note in described.notes)
    right = describe_tables(log.with_columns(pl.col("timestamp") * 1000), hats, DataConfig(time_unit="ms"))
    assert right.times.first == "2020-09-13 12:26:40 UTC"
    assert not any("data.time_unit" in note for note in right.notes)


def test_leak_share_counts_training_after_the_median_test_target(described, log, hats):
    # Only a has three interactions: its z at T + 20 is the test target. Training: x and y of a, x and z of b, y of c.
    assert (described.split.num_training, described.split.num_validation, described.split.num_test) == (5, 1, 1)
    assert described.split.leak_share == 2 / 5, "z of b and y of c are later"


def test_leak_share_is_zero_for_a_temporal_split_and_none_without_a_clock(dataset, interactions, items):
    assert leak_share(dataset, split_dataset(dataset, TemporalSplit())) == 0
    loo = split_dataset(dataset, LeaveOneOutSplit())
    times = dataset.timestamps
    target = np.median(times[dataset.offsets[1:] - 1])
    training = np.concatenate([times[a : b - 2] for a, b in zip(dataset.offsets, dataset.offsets[1:], strict=False)])
    expected = sum(t > target for t in training) / len(training)
    assert expected > 0
    assert leak_share(dataset, loo) == pytest.approx(expected)
    orders = build_dataset(interactions, items, DataConfig(time_unit="none"))
    assert leak_share(orders, split_dataset(orders, LeaveOneOutSplit())) is None


def test_a_split_that_the_data_do_not_allow_is_a_note(hats):
    described = describe_tables(table(LOG[4:]), hats, DataConfig(), split=LeaveOneOutSplit())
    assert described.split is None
    assert any("split leaves no" in note for note in described.notes)


def test_texts_that_are_empty_or_shared(described):
    texts = described.texts
    assert (texts.columns, texts.empty, texts.sharing) == (("title",), 1, 2)
    assert [(s.text, s.count, s.item_ids) for s in texts.shared] == [("blue hat", 2, ("y", "z"))]
    assert [(e.item_id, e.interactions, e.text) for e in texts.first] == [
        ("w", 0, ""),
        ("x", 2, "red hat"),
        ("y", 3, "blue hat"),
    ]
    assert [e.item_id for e in texts.most_popular] == ["y", "x", "z"], "ties by id"
    assert texts.characters.max == len("blue hat")


def test_ids_among_the_text_columns_are_noticed(log):
    items = pl.DataFrame({
        "item_id": [*"xyz", *(str(n) for n in range(9))],
        "title": [f"hat {n}" for n in range(12)],
        "asin": [f"B00{n}X" for n in range(12)],
        "brand": [f"house {chr(97 + n)}" for n in range(12)],
        "year": ["1995"] * 12,
    })  # fmt: skip
    assert describe_tables(log, items, DataConfig()).texts.id_like == ("asin",)


def test_tokens_are_counted_before_they_are_cut(log, hats):
    words = TokenCounter("words", lambda texts: [[*text.split(), "</s>"] for text in texts], max_length=2)
    tokens = describe_tables(log, hats, DataConfig(), prompt=PLAIN, counter=words).tokens
    # "" has one token, the others three: three of four are cut, by one of their ten tokens each.
    assert (tokens.tokenizer, tokens.max_length, tokens.num_items) == ("words", 2, 4)
    assert (tokens.lengths.min, tokens.lengths.max) == (1, 3)
    assert tokens.lengths.histogram.counts == (1, 0, 3)
    assert tokens.cut_items == 3 / 4
    assert tokens.cut_tokens == 3 / 10


def test_a_large_catalogue_is_sampled_for_its_tokens(log, hats, monkeypatch):
    monkeypatch.setattr("hllm.data.describing.measure.MAX_TOKENISED", 2)
    seen = []

    def tokenize(texts):
        seen.extend(texts)
        return [[1] for _ in texts]

    tokens = describe_tables(log, hats, DataConfig(), prompt=PLAIN, counter=TokenCounter("t", tokenize, 9)).tokens
    assert (tokens.num_items, seen) == (2, ["", "blue hat"]), "the first and the last"


def test_columns_say_what_they_are_read_as_and_how_full_they_are(log, hats):
    given = log.with_columns(price=pl.Series([1.5, None, None, None, 2.0, 3.0, 4.0]))
    described = describe_tables(given, hats, DataConfig())
    assert [(c.name, c.type, c.role, c.filled) for c in described.interaction_columns] == [
        ("user_id", "String", "user", 1), ("item_id", "String", "item", 1), ("timestamp", "Int64", "time", 1),
        ("price", "Float64", "", 4 / 7),
    ]  # fmt: skip
    assert [(c.name, c.role, c.filled) for c in described.item_columns] == [
        ("item_id", "item", 1),
        ("title", "title, text", 0.75),
    ]


def test_ids_that_are_numbers_are_told_from_words(hats):
    items = pl.DataFrame({"item_id": ["007", "x", "8"], "title": ["a", "b", "c"]})
    described = describe_tables(table([("1", "007", T), ("2", "x", T + 1)]), items, DataConfig())
    assert (described.user_ids.type, described.user_ids.numeric) == ("String", 1)
    assert described.item_ids.numeric == pytest.approx(2 / 3)


def test_rows_that_cannot_be_used_are_counted_and_left_out(hats):
    text = [(user, item, str(time)) for user, item, time in LOG]
    bad = [
        (None, "x", str(T)), ("a", None, str(T)), ("a", "x", "soon"), ("a", "x", None),
        ("b", "q", str(T)), ("b", "q", str(T)), ("b", "p", str(T)),
    ]  # fmt: skip
    items = pl.concat([hats, pl.DataFrame({"item_id": [None, "x", "x", "y"], "title": ["nobody", "1", "2", "3"]})])
    described = describe_tables(table(bad + text, pl.String), items, DataConfig(), prompt=PLAIN)
    found = {(f.rows, f.what): (f.count, f.total, f.examples) for f in described.faults}
    assert found == {
        ("interactions", "have no user_id"): (1, 14, ()),
        ("interactions", "have no item_id"): (1, 14, ()),
        ("interactions", "have no readable time in 'timestamp'"): (2, 14, ("soon",)),
        ("interactions", "name items that the items table lacks"): (3, 14, ("q", "p")),
        ("interactions", "name items without text, which are left out"): (0, 14, ()),
        ("items", "have no item_id"): (1, 8, ()),
        ("items", "repeat the item_id of an earlier row"): (3, 8, ("x", "y")),
        ("items", "have no text in 'title'"): (1, 8, ("w",)),
    }
    assert (described.num_users, described.num_items, described.num_interactions) == (3, 4, 7)
    assert described.popularity == describe_tables(table(LOG), hats, DataConfig()).popularity
    assert described.texts.most_popular[0].text == "blue hat", "the first row of an item counts"
    assert sum(" of 14 interactions " in note or " of 8 items " in note for note in described.notes) == 7


def test_ids_that_pandas_made_fractions_are_known(hats):
    items = pl.DataFrame({"item_id": [1, 2], "title": ["a", "b"]})
    log = pl.DataFrame({"user_id": ["a", "a", "a"], "item_id": [1.0, 2.0, 3.0], "timestamp": [T, T + 1, T + 2]})
    (fault,) = [f for f in describe_tables(log, items, DataConfig()).faults if "lacks" in f.what]
    assert (fault.count, fault.examples) == (1, ("3",))


@pytest.mark.parametrize("policy", ["keep", "drop"])
def test_policies_that_somebody_has_chosen_are_followed(hats, policy):
    log = table([*LOG, ("a", "q", T), ("a", "w", T)])
    config = DataConfig(unknown_items=policy, items_without_text=policy)
    described = describe_tables(log, hats, config)
    assert described.num_items == {"keep": 5, "drop": 3}[policy]
    assert described.num_interactions == {"keep": 9, "drop": 7}[policy]
    counts = {(f.rows, f.what.split(" that ")[0].split(" in ")[0]): f.count for f in described.faults if f.count}
    left_out = {("interactions", "name items without text, which are left out"): 1} if policy == "drop" else {}
    assert counts == left_out | {("interactions", "name items"): 1, ("items", "have no text"): 1}, (
        "counted all the same"
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_rows_changes_nothing(interactions, items, seed):
    extra = interactions.sample(20, seed=9).with_columns(item_id=pl.Series([f"q{n % 3}" for n in range(20)]))
    log, items = pl.concat([interactions, interactions.head(30), extra]), pl.concat([items, items.head(2)])
    words = TokenCounter("words", lambda texts: [text.split() for text in texts], max_length=4)

    def facts(log, items):
        values = describe_tables(log, items, DataConfig(), split=LeaveOneOutSplit(), counter=words).model_dump()
        del values["texts"]["first"], values["split"]["fingerprint"], values["notes"]
        for fault in values["faults"]:
            del fault["examples"]  # the first ones
        return values

    shuffled = [frame.sample(fraction=1, shuffle=True, seed=seed) for frame in (log, items)]
    assert not shuffled[0].equals(log)
    assert facts(*shuffled) == facts(log, items)


def test_a_stored_dataset_is_described_without_its_tables(log, hats, tmp_path, described):
    dataset = build_dataset(log, hats, DataConfig(items_without_text="keep"))
    again = describe(dataset, split_dataset(dataset, LeaveOneOutSplit()), prompt=PLAIN)
    differing = {"interaction_columns", "faults", "notes"}
    assert again.model_dump(exclude=differing) == described.model_dump(exclude=differing)
    assert (again.interaction_columns, again.faults) == ((), ())
    for notes in (described.notes, again.notes):
        assert sum("no text" in note for note in notes) == 1, "said once, by the fault or by itself"


def test_a_description_survives_json(described):
    assert Description.model_validate_json(described.model_dump_json()) == described


def test_tables_that_cannot_be_described(log, hats):
    with pytest.raises(DataError, match=r"interactions have no column 'user_id' \(did you mean 'user'\?\)"):
        describe_tables(log.rename({"user_id": "user"}), hats, DataConfig())
    with pytest.raises(DataError, match="items have no column 'item_id'"):
        describe_tables(log, hats.rename({"item_id": "id"}), DataConfig())
    with pytest.raises(DataError, match="7 of 7 interactions have no user_id"):
        describe_tables(log.with_columns(user_id=pl.lit(None, pl.String)), hats, DataConfig())
    with pytest.raises(DataError, match="4 of 4 items have no item_id"):
        describe_tables(log, hats.with_columns(item_id=pl.lit(None, pl.String)), DataConfig())


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0 %"), (1.0, "100 %"), (1e-9, "< 0.0001 %"), (0.99999, "> 99.9 %"), (0.000734, "0.0734 %"), (0.063, "6.30 %"),
     (0.758, "75.8 %"), (0.0995, "10.0 %")],
)  # fmt: skip
def test_percentages_never_round_to_nothing_or_everything(share, said):
    assert percent(share) == said
