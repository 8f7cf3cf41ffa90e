import numpy as np
import polars as pl
import pytest
import torch

from hllm.data.build import build_dataset
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.schema import DataConfig
from hllm.data.split import split_dataset
from hllm.errors import ConfigError, DataError
from hllm.evaluation.cold_start import ColdStart, Entrant, cold_items, short_histories
from hllm.evaluation.evaluate import evaluate_with_ranks, queries
from hllm.evaluation.protocol import EvaluationConfig
from hllm.reports.cold_start import cold_start_table
from hllm.retrieval.exact import ExactRetriever

CONFIG = EvaluationConfig(cutoffs=(1, 2), bootstrap_samples=50, cold_at_most=0)
SCORES = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0], dtype=np.float32)


class Fixed:
    """Everyone prefers a to b to c …; remembers what it was asked."""

    num_items = 6

    def __init__(self) -> None:
        self.asked = []

    def score(self, histories):
        self.asked.append([history.tolist() for history in histories])
        return np.tile(SCORES, (len(histories), 1))


class FixedVectors(Fixed):
    """The same as products of vectors."""

    keys = torch.from_numpy(SCORES)[:, None]

    def queries(self, histories):
        self.asked.append([history.tolist() for history in histories])
        return torch.ones(len(histories), 1)


def world_of(histories: dict[str, str]):
    rows = [(user, item, time) for user, items in histories.items() for time, item in enumerate(items)]
    items = pl.DataFrame({"item_id": list("abcdef"), "title": list("ABCDEF")})
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    dataset = build_dataset(log, items, DataConfig())
    return dataset, split_dataset(dataset, LeaveOneOutSplit())


@pytest.fixture(scope="module")
def world():
    """Three users over items a … f; the last two items of each are targets, so training is ab, abc, bc."""
    return world_of({"u": "abde", "v": "abcde", "w": "bcae"})


def contender(world, scorer, name="fixed", *, config=CONFIG, by_id=False) -> Entrant:
    return Entrant(scorer, evaluate_with_ranks(name, ExactRetriever(scorer), *world, "test", config), by_id)


@pytest.mark.parametrize("kind", [Fixed, FixedVectors])
def test_cold_targets_are_ranked_among_all_and_among_cold_items_less_what_was_seen(world, kind):
    """Cold are d, e, f; all ask for e, after abd, abcd and bca. Unseen: c e f; e f; d e f. Of the cold: e f; e f; d e f."""
    found = cold_items([contender(world, kind(), by_id=True)], *world, queries(*world, "test"))
    assert (found.num_items, found.protocol.num_targets, found.by_id) == (3, 3, ("fixed",))
    assert found.full_catalogue["fixed"]["recall@1"].mean == pytest.approx(1 / 3)
    assert found.full_catalogue["fixed"]["recall@2"].mean == 1.0
    assert found.among_cold["fixed"]["recall@1"].mean == pytest.approx(2 / 3)
    assert found.protocol.ranked == "the 3 items with at most 0 training interactions"


def test_without_a_cold_target_there_is_no_such_part():
    """Training is da, dc, db; the targets are c, b and c."""
    other = world_of({"u": "dabc", "v": "dcab", "w": "dbac"})
    assert cold_items([contender(other, Fixed())], *other, queries(*other, "test")) is None


def test_only_the_latest_items_are_read_and_without_any_what_is_popular_is_ranked(world):
    """In training a, b, c occur 2, 3, 2 times. The target e is level with f behind c; level with f; level with d and f."""
    scorer = Fixed()
    each = contender(world, scorer)
    scorer.asked.clear()
    found = short_histories([each], *world, queries(*world, "test"), (0, 1, 2))
    assert scorer.asked == [[[3], [3], [0]], [[1, 3], [2, 3], [2, 0]]], "the last one, the last two; nothing for none"
    points = found.curves["fixed"]
    assert found.lengths == (0, 1, 2, None)
    assert points[0]["recall@1"].mean == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert points[0]["recall@2"].mean == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)
    assert [point["recall@1"].mean for point in points[1:]] == pytest.approx([1 / 3] * 3), "what was seen stays out"
    assert (
        "the latest 0, 1, 2 items before the target, of histories with at least 2; 0: what is" in found.protocol.history
    )


def test_users_with_shorter_histories_are_left_out_at_every_length(world):
    found = short_histories([contender(world, Fixed())], *world, queries(*world, "test"), (0, 4))
    assert (found.num_left_out, found.protocol.num_targets, found.protocol.num_users_with_target) == (2, 1, 1)
    assert found.curves["fixed"][-1]["recall@1"].mean == 1.0, "abcd leaves e and f"


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ((), ConfigError, "expected ascending numbers from 0"),
        ((2, 1), ConfigError, r"the lengths of histories are \[2, 1\]"),
        ((-1, 1), ConfigError, "expected ascending numbers from 0"),
        ((0, 5), DataError, "no target has a history of 5 items, the longest has 4; ask for less"),
    ],
)
def test_lengths_that_cannot_be_are_explained(world, lengths, error, message):
    with pytest.raises(error, match=message):
        short_histories([contender(world, Fixed())], *world, queries(*world, "test"), lengths)


def test_the_table_says_what_was_ranked_and_read(world):
    asked, both = queries(*world, "test"), [contender(world, Fixed()), contender(world, Fixed(), "ids", by_id=True)]
    report = ColdStart(
        cold_items=cold_items(both, *world, asked), short_histories=short_histories(both, *world, asked, (0, 2))
    )
    shown = cold_start_table(report)
    for expected in (
        "COLD ITEMS: 3 targets with at most 0 training interactions",
        "among the full catalogue",
        "among the 3 cold items alone",
        "0.6667 [0.",
        "ids: items by id only; without training interactions that is chance",
        "SHORT HISTORIES: 3 targets, 0 left out",
        "ids, by the number of items read",
        "popular",
    ):
        assert expected in shown
    assert cold_start_table(report.model_copy(update={"cold_items": None})).startswith("no target is a cold item")
