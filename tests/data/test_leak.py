"""Reasons to doubt the numbers of a split; the leak itself is proved in tests/evaluation/test_protocol.py."""

import re

import numpy as np
import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.cuts.ratio import RatioSplit
from hllm.data.leak import doubts, seen_before
from hllm.data.schema import DataConfig
from hllm.data.split import split_dataset
from hllm.errors import HllmWarning
from hllm.evaluation.baselines import Popularity
from hllm.evaluation.evaluate import evaluate
from hllm.evaluation.protocol import EvaluationConfig
from hllm.retrieval.exact import ExactRetriever


def dataset_of(histories, **options):
    """Histories as words, a letter for each item, in order of time."""
    log = [(user, item, time) for user, word in enumerate(histories) for time, item in enumerate(word)]
    items = sorted({item for word in histories for item in word})
    return build_dataset(
        pl.DataFrame(log, schema=["user_id", "item_id", "timestamp"], orient="row"),
        pl.DataFrame({"item_id": items, "title": [f"item {item}" for item in items]}),
        DataConfig(**options),
    )


def said(histories, *parts, config=None, seen_removed=True, **options):
    dataset = dataset_of(histories, **options)
    split = split_dataset(dataset, config or LeaveOneOutSplit())
    return doubts(dataset, split, *(parts or ("validation", "test")), seen_removed=seen_removed)


def test_what_was_seen_before_by_hand():
    assert seen_before(dataset_of(["abacb", "aa", "b", "ba"])).tolist() == [
        *(False, False, True, False, True), *(False, True), False, *(False, False)
    ]  # fmt: skip


def test_what_was_seen_before_against_sets(rng):
    histories = ["".join(rng.choice(list("abcdef"), rng.integers(1, 9))) for _ in range(30)]
    expected = [item in word[:place] for word in histories for place, item in enumerate(word)]
    assert seen_before(dataset_of(histories)).tolist() == expected


@pytest.mark.parametrize(("num_users", "few"), [(19, True), (20, False), (21, False)])
def test_few_users_are_said(num_users, few):
    found = said(["abcde"] * num_users)
    assert len(found) == few, "once, not for each part"
    if few:
        assert re.match("the validation part has 19 targets of 19 users: one user .* recall by 5 points", found[0])


def test_many_targets_of_one_user_are_few_users():
    (found,) = said(["abcdefghijklmnopqrstuvwxyz" * 4], "test", config=RatioSplit(test_share=0.5), seen_removed=False)
    assert found.startswith("the test part has 52 targets of 1 user: one user more or less moves recall by 100 points")


def test_rows_that_stand_twice_are_said():
    """The validation asks for the first of a pair and the test for the second, which the user has met just before."""
    twice = ["aabbccdd", "bbccddee", "ccddeeff", "ddeeffaa"] * 10
    (found,) = said(twice)
    assert found.startswith("40 of the 40 test targets are items that the user had met before")
    assert 'data.duplicate_interactions = "drop"' in found
    assert said(twice, seen_removed=False) == []
    assert said(["abcd", "bcde", "cdea", "deab"] * 10) == []


@pytest.mark.parametrize(("num_repeating", "warned"), [(20, False), (21, True)])
def test_more_than_half_of_the_targets_is_the_limit(num_repeating, warned):
    assert len(said(["abca"] * num_repeating + ["abcd"] * (40 - num_repeating))) == warned


def test_an_evaluation_warns_of_what_its_numbers_are_worth():
    dataset = dataset_of(["aabbccdd", "bbccddee"] * 15)
    split = split_dataset(dataset, LeaveOneOutSplit())
    popular, config = ExactRetriever(Popularity(dataset, split)), EvaluationConfig(bootstrap_samples=5)
    with pytest.warns(HllmWarning, match="30 of the 30 test targets are items that the user had met before"):
        result = evaluate("x", popular, dataset, split, "test", config)
    assert result.protocol.num_targets_seen == 30
    assert result.all_items["recall@50"].mean == 0
    evaluate("x", popular, dataset, split, "validation", config)


def test_an_evaluation_warns_of_few_users():
    dataset = dataset_of(["abcd"] * 3)
    split = split_dataset(dataset, LeaveOneOutSplit())
    with pytest.warns(HllmWarning, match="the test part has 3 targets of 3 users"):
        evaluate("x", ExactRetriever(Popularity(dataset, split)), dataset, split, "test",
                 EvaluationConfig(bootstrap_samples=5))  # fmt: skip
    assert np.array_equal(split.test, [3, 7, 11])
