import numpy as np
import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.cuts.temporal import TemporalSplit
from hllm.data.leak import leak_share
from hllm.data.schema import DataConfig
from hllm.data.split import Split, split_dataset
from hllm.evaluation.baselines import Popularity
from hllm.evaluation.evaluate import evaluate, evaluate_with_ranks
from hllm.evaluation.facts import Provenance, RunFacts
from hllm.evaluation.protocol import EvaluationConfig, describe_differences
from hllm.retrieval.exact import ExactRetriever

CONFIG = EvaluationConfig(bootstrap_samples=20)


def world(**options):
    """Users u (times 0, 10, 20, 30) and v (1, 2, 3, 4); training is u at 0 and 10, v at 1 and 2."""
    rows = [("u", i, 10 * n) for n, i in enumerate("abcd")] + [("v", i, 1 + n) for n, i in enumerate("bacd")]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": list("abcde"), "title": list("ABCDE")})
    dataset = build_dataset(events, items, DataConfig(**options))
    return dataset, split_dataset(dataset, LeaveOneOutSplit())


def evaluated(dataset, split, config=CONFIG, part="test", **known):
    retriever = ExactRetriever(Popularity(dataset, split))
    return evaluate_with_ranks("popularity", retriever, dataset, split, part, config, **known)


def test_the_leak_by_hand():
    """The test targets are at 30 and 4, their median is 17; no training interaction is later, of 0, 10, 1 and 2."""
    dataset, split = world()
    assert leak_share(dataset, split) == 0.0
    rows = [("u", i, 100 + n) for n, i in enumerate("abcd")] + [("v", i, n) for n, i in enumerate("bacd")]
    rows += [("w", i, n) for n, i in enumerate("abc")]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": list("abcd"), "title": list("ABCD")})
    dataset = build_dataset(events, items, DataConfig())
    # Test targets at 103, 3 and 2, median 3; training at 100 and 101, 0 and 1, 0: two of five are later.
    assert leak_share(dataset, split_dataset(dataset, LeaveOneOutSplit())) == pytest.approx(2 / 5)


def test_times_that_are_no_clock_have_no_leak():
    dataset, split = world(time_unit="none")
    assert leak_share(dataset, split) is None
    result = evaluate("x", ExactRetriever(Popularity(dataset, split)), dataset, split, "test", CONFIG)
    assert "leak: unknown, because the interactions' times only order them" in result.protocol.lines()


def test_the_protocol_says_what_the_checklist_asks_for():
    known = Provenance({"unknown_items": "drop"}, {"min_length": 3, "targets": None})
    text = "\n".join(evaluated(*world(), provenance=known).result.protocol.lines())
    for phrase in (
        "2 users, 5 items, 8 interactions; unknown_items drop",
        "split leave-one-out (min_length 3)",
        "2 targets of 2 users",
        "cold: 2 with <= 5 training interactions, counted among all items",
        "leak: 0.0% of training interactions are later than the median test target",
        "the full catalogue (5 items)",
        "seen items: removed",
        "ties: shared",
        "the latest model.max_history items",
        "20 samples, seed 0",
        "recall@k: expected share of users",
    ):
        assert phrase in text


def test_the_protocol_says_how_many_items_are_hidden_from_training():
    """c and d are first met at 3 or later; trained with and without them, two numbers may not stand in one table."""
    dataset, _ = world()
    found = {}
    for later_items in ("withheld", "kept"):
        split = split_dataset(dataset, TemporalSplit(validation_from=3, test_from=20, later_items=later_items))
        found[later_items] = evaluated(dataset, split).result.protocol
    assert (found["withheld"].num_withheld_items, found["kept"].num_withheld_items) == (2, 0)
    assert any("training does not see 2 items at all" in line for line in found["withheld"].lines())
    assert not any("does not see" in line for line in found["kept"].lines())
    assert found["withheld"].differences(found["kept"]) == [("num_withheld_items", 2, 0)]


def test_differences_name_the_field_and_both_values():
    dataset, split = world()
    ours = evaluated(dataset, split).result.protocol
    assert ours.differences(ours) == []
    theirs = evaluated(dataset, split, EvaluationConfig(seed=3), part="validation").result.protocol
    found = {field: (a, b) for field, a, b in ours.differences(theirs)}
    assert found["part"] == ("test", "validation")
    assert found["evaluation.seed"] == (0, 3)
    assert "part (test and validation)" in describe_differences(ours.differences(theirs))
    assert f"dataset ({'a' * 12}… and None)" in describe_differences([("dataset", "a" * 64, None)])


def test_options_that_made_the_same_data_and_split_are_no_difference():
    dataset, split = world()
    ours = evaluated(dataset, split, provenance=Provenance({"missing": []}, {"min_length": 2})).result.protocol
    theirs = evaluated(dataset, split, provenance=Provenance(split_options={"min_length": 3})).result.protocol
    assert ours.differences(theirs) == []
    other = theirs.model_copy(update={"split_fingerprint": "0" * 64})
    assert [field for field, _, _ in ours.differences(other)] == ["split_options.min_length", "split_fingerprint"]


def test_groups_by_history_length_hold_each_target_once():
    result = evaluated(*world()).result
    groups = {name: count for name, count in result.slice_targets.items() if name.startswith("history")}
    assert groups == {
        "history 0": 0, "history 1-5": 2, "history 6-10": 0, "history 11-20": 0, "history 21-50": 0, "history >50": 0,
    }  # fmt: skip
    assert result.slices["history 1-5"] == result.all_items
    assert result.slices["history 0"] == {}
    assert evaluated(*world(), EvaluationConfig(slices=())).result.slices == {}


def test_what_the_lists_are_like_by_hand():
    """Training counts a 2, b 2: u and v have seen abc and bac; the first of d and e, level at 0, is d for both.

    Popularity offers the same, so nothing surprises; d and e share no word; an item never seen counts as seen once of
    four times, 2 bits. Shares (0, 0, 0, ½, ½) have a Gini index of (2·½ + 4·½) / 4.
    """
    result = evaluated(*world(), EvaluationConfig(cutoffs=(1, 2), beyond_accuracy=True)).result
    assert result.beyond_accuracy == {
        "coverage@1": 1 / 5, "coverage@2": 2 / 5, "popularity@1": 0.0, "popularity@2": 0.0, "gini@1": 1.0,
        "gini@2": 0.75, "novelty@1": 2.0, "novelty@2": 2.0, "diversity@2": 1.0, "serendipity@1": 0.0,
        "serendipity@2": 0.0,
    }  # fmt: skip
    assert evaluated(*world()).result.beyond_accuracy == {}


def test_facts_that_are_known_are_said():
    facts = RunFacts(num_parameters=1234, epochs_to_best=2, epochs=5, test_evaluations=3)
    assert facts.line() == (
        "1,234 parameters; best after 2 epochs; 5 epochs in all; evaluations of this split's test part: 3"
    )
    assert evaluated(*world()).result.facts.evaluation_s >= 0


def test_several_targets_of_a_user_are_one_user():
    """One user with three targets cannot have an interval: every resample is that user."""
    rows = [("u", i, n) for n, i in enumerate("abcde")] + [("v", i, n) for n, i in enumerate("ba")]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    dataset = build_dataset(events, pl.DataFrame({"item_id": list("abcde"), "title": list("ABCDE")}), DataConfig())
    split = Split("by hand", np.arange(7) // 5 == 1, validation=np.array([1]), test=np.array([2, 3, 4]))
    result = evaluated(dataset, split).result
    assert (result.protocol.num_targets, result.protocol.num_users_with_target) == (3, 1)
    assert {estimate.low for estimate in result.all_items.values()} == {
        estimate.mean for estimate in result.all_items.values()
    }
