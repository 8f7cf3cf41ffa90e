import numpy as np
import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.schema import DataConfig
from hllm.data.split import split_dataset
from hllm.errors import ConfigError
from hllm.evaluation.baselines import Popularity
from hllm.evaluation.evaluate import evaluate, mean_metrics, queries, require_part
from hllm.evaluation.protocol import EvaluationConfig
from hllm.evaluation.targets import is_cold
from hllm.retrieval.exact import ExactRetriever

CONFIG = EvaluationConfig(bootstrap_samples=200)


class Constant:
    """The model that must not look good: every item has the same score."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def score(self, histories):
        return np.zeros((len(histories), self.num_items), dtype=np.float32)


class Oracle:
    """Knows each history's continuation."""

    def __init__(self, dataset, split, part) -> None:
        asked = queries(dataset, split, part)
        self.next = {tuple(h.tolist()): t for h, t in zip(asked.histories, asked.targets, strict=True)}
        self.num_items = dataset.num_items

    def score(self, histories):
        scores = np.zeros((len(histories), self.num_items), dtype=np.float32)
        for row, history in zip(scores, histories, strict=True):
            row[self.next[tuple(history.tolist())]] = 1.0
        return scores


@pytest.fixture(scope="module")
def world():
    """Three users over items a … e; the last two items of each are targets, so training is ab, abc, bc."""
    rows = [(u, i, t) for u, h in {"u": "abde", "v": "abcde", "w": "bcae"}.items() for t, i in enumerate(h)]
    items = pl.DataFrame({"item_id": list("abcdef"), "title": list("ABCDEF")})
    dataset = build_dataset(
        pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"), items, DataConfig()
    )
    return dataset, split_dataset(dataset, LeaveOneOutSplit())


def index(letters: str) -> np.ndarray:
    return np.array(["abcdef".index(letter) for letter in letters])


def test_cold_items_are_those_with_few_training_interactions(world):
    cold = is_cold(*world, np.arange(6), EvaluationConfig(cold_at_most=2))
    assert np.flatnonzero(cold).tolist() == index("acdef").tolist()


def test_queries_hold_everything_before_the_target(world):
    test = queries(*world, "test")
    assert [h.tolist() for h in test.histories] == [index(h).tolist() for h in ("abd", "abcd", "bca")]
    assert test.targets.tolist() == index("eee").tolist()


def test_a_constant_model_is_at_chance_and_an_oracle_is_perfect(world):
    dataset, split = world
    config = EvaluationConfig(cutoffs=(1, 2), bootstrap_samples=50)
    constant = evaluate("constant", ExactRetriever(Constant(6)), dataset, split, "test", config)
    # Of 6 items the users have seen 3, 4 and 3: the target is first among 3, 2 and 3 with chance 1/3, 1/2, 1/3.
    assert constant.all_items["recall@1"].mean == pytest.approx((1 / 3 + 1 / 2 + 1 / 3) / 3)
    assert constant.all_items["recall@2"].mean == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)
    perfect = evaluate("oracle", ExactRetriever(Oracle(dataset, split, "test")), dataset, split, "test", config)
    assert perfect.all_items["precision@2"].mean == 0.5, "one target cannot fill two places"
    assert {e.mean for name, e in perfect.all_items.items() if name != "precision@2"} == {1.0}


def test_the_protocol_travels_with_the_numbers(world):
    dataset, split = world
    result = evaluate("x", ExactRetriever(Constant(6)), dataset, split, "test", EvaluationConfig(cold_at_most=0))
    assert (result.protocol.num_targets, result.protocol.num_cold_targets) == (3, 3)
    assert result.protocol.dataset == dataset.fingerprint
    assert result.protocol.split_fingerprint == split.fingerprint
    text = "\n".join(result.protocol.lines())
    for word in ("leave-one-out", "the full catalogue", "removed", "ties", "bootstrap", "3 users, 6 items"):
        assert word in text
    validation = evaluate("x", ExactRetriever(Constant(6)), dataset, split, "validation", CONFIG)
    assert validation.protocol != result.protocol


def test_without_cold_targets_there_are_no_cold_numbers(world):
    dataset, split = world
    result = evaluate("x", ExactRetriever(Constant(6)), dataset, split, "validation", EvaluationConfig(cold_at_most=-1))
    assert result.cold_items == {}


def test_a_target_already_seen_is_a_miss_and_is_counted():
    rows = [("u", i, t) for t, i in enumerate("abca")]
    dataset = build_dataset(
        pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"),
        pl.DataFrame({"item_id": list("abc"), "title": list("ABC")}),
        DataConfig(),
    )
    split = split_dataset(dataset, LeaveOneOutSplit())
    result = evaluate("oracle", ExactRetriever(Oracle(dataset, split, "test")), dataset, split, "test", CONFIG)
    assert result.protocol.num_targets_seen == 1
    assert result.all_items["recall@50"].mean == 0


def test_watching_training_uses_the_same_ranks(world):
    dataset, split = world
    retriever = ExactRetriever(Popularity(dataset, split))
    watched = mean_metrics(retriever, dataset, split, "validation")
    full = evaluate("x", retriever, dataset, split, "validation", CONFIG)
    assert watched == pytest.approx({name: full.all_items[name].mean for name in watched})


def test_a_part_that_no_split_has_is_refused():
    with pytest.raises(
        ConfigError, match=r"part is 'Test' \(did you mean 'test'\?\); expected one of validation, test"
    ):
        require_part("Test")
