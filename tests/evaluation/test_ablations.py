import dataclasses

import numpy as np
import polars as pl
import pytest

from hllm.api import Recommender
from hllm.data.build import build_dataset
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.prompt import PromptConfig
from hllm.data.schema import DataConfig
from hllm.data.split import split_dataset
from hllm.errors import ConfigError
from hllm.evaluation.ablations import SWITCHES, Rearranged, TextReader, ablate, check_switches
from hllm.evaluation.baselines import CoOccurrence, Markov, Popularity
from hllm.evaluation.evaluate import evaluate, queries
from hllm.evaluation.protocol import EvaluationConfig
from hllm.jobs.ablate import ablate_bundle, with_texts
from hllm.metrics import TargetRanks
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.histories import Histories
from hllm.retrieval.retriever import Retriever
from hllm.retrieval.scorer import ModelScorer

ORDER = ("shuffled-order", "reversed-order")
TEXT = ("shuffled-text", "title-only", "no-text")
CONFIG = EvaluationConfig(cutoffs=(1, 5), bootstrap_samples=2000)


@pytest.fixture(scope="module")
def world(interactions, items):
    """The tiny world, with what was done with each item: "even" or "odd", as its number is."""
    parity = pl.col("item_id").str.slice(1).cast(pl.Int64) % 2
    log = interactions.with_columns(action=pl.when(parity == 0).then(pl.lit("even")).otherwise(pl.lit("odd")))
    dataset = build_dataset(log, items, DataConfig(action_col="action", time_unit="s"))
    return dataset, split_dataset(dataset, LeaveOneOutSplit())


class Told:
    """A Retriever that notes the histories it is asked for, and ranks as it is told for each number of calls."""

    def __init__(self, *better: list[int]) -> None:
        self.better = list(better)
        self.asked: list = []

    def recommend(self, histories, k, *, exclude=None, candidates=None):
        pytest.fail("ablations rank targets; they ask for no lists")

    def rank(self, histories, targets, exclude):
        self.asked.append(histories)
        better = np.array(self.better.pop(0) if self.better else [0] * len(targets))
        return TargetRanks(better, np.zeros_like(better))


def thrown(retriever, world, switches, config=CONFIG, max_history=None, texts=None):
    as_it_is = evaluate("it", retriever, *world, "test", config)
    return ablate(as_it_is, retriever, *world, switches=switches, max_history=max_history, texts=texts)


@pytest.mark.parametrize("baseline", [Popularity, CoOccurrence])
def test_the_order_of_a_history_is_nothing_to_a_recommender_of_sets(world, baseline):
    for result in thrown(ExactRetriever(baseline(*world)), world, ORDER).results:
        assert {(d.mean, d.low, d.high) for d in result.drop.values()} == {(0.0, 0.0, 0.0)}


def test_a_first_order_markov_chain_lives_on_the_order_and_reads_the_last_item_alone(world):
    shuffled, reversed_, last = thrown(ExactRetriever(Markov(*world)), world, [*ORDER, "last-item"]).results
    assert shuffled.drop["recall@1"].low > 0
    assert reversed_.drop["recall@1"].low > 0
    assert {(d.mean, d.low, d.high) for d in last.drop.values()} == {(0.0, 0.0, 0.0)}


def test_popularity_is_what_the_popularity_switch_leaves(world):
    found = thrown(ExactRetriever(Markov(*world)), world, ["popularity"])
    expected = evaluate("p", ExactRetriever(Popularity(*world)), *world, "test", CONFIG).all_items
    assert found.results[0].values == expected
    assert found.results[0].drop["recall@5"].mean == pytest.approx(
        found.intact["recall@5"].mean - expected["recall@5"].mean
    )


def test_a_drop_and_its_interval_by_hand():
    """Three users, found at rank 1, 1 and 9 before, at 1, 2 and 9 then: the drops of recall@1 are 0, 1, 0.

    A resample of three users holds the middle one n times with chance C(3, n) (1/3)^n (2/3)^(3-n): 8/27 for
    never, 1/27 = 3.7 % for three times, so the 95 % interval ends at 0 and at 1.
    """
    rows = [(u, i, t) for u in "uvw" for t, i in enumerate("abcd")]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    dataset = build_dataset(table, pl.DataFrame({"item_id": list("abcd"), "title": list("ABCD")}), DataConfig())
    three = dataset, split_dataset(dataset, LeaveOneOutSplit())
    found = thrown(Told([0, 0, 8], [0, 0, 8], [0, 1, 8]), three, ["reversed-order"])
    drop = found.results[0].drop["recall@1"]
    assert found.intact["recall@1"].mean == pytest.approx(2 / 3)
    assert found.results[0].values["recall@1"].mean == pytest.approx(1 / 3)
    assert (drop.mean, drop.low, drop.high) == pytest.approx((1 / 3, 0, 1))
    # Of recall@5 nobody's changes; ndcg@5 of the middle user falls from 1 to 1 / log2(3).
    assert found.results[0].drop["recall@5"].mean == 0
    assert found.results[0].drop["ndcg@5"].mean == pytest.approx((1 - 1 / np.log2(3)) / 3)


def test_items_and_actions_move_together_within_what_is_read_and_times_stay(world):
    dataset = world[0]
    told = Told()
    thrown(told, world, ["shuffled-order"], max_history=4)
    _, before, after = told.asked
    moved = 0
    for user in range(len(before)):
        assert after[user][:-4].tolist() == before[user][:-4].tolist(), "items that are not read stay"
        assert sorted(after[user][-4:].tolist()) == sorted(before[user][-4:].tolist()), "the same items are read"
        assert after.times[user].tolist() == before.times[user].tolist()
        names = [dataset.action_names[a] for a in after.actions[user]]
        assert names == ["even" if item % 2 == 0 else "odd" for item in after[user]], "an action is its item's"
        moved += after[user].tolist() != before[user].tolist()
    assert moved > len(before) / 2


def test_reversal_and_the_last_item(world):
    told = Told()
    thrown(told, world, ["reversed-order", "last-item"], max_history=3)
    _, before, backwards, last = told.asked
    for user, history in enumerate(before):
        assert backwards[user].tolist() == [*history[:-3].tolist(), *history[-3:][::-1].tolist()]
        assert last[user].tolist() == history[-1:].tolist()
        assert last.times[user].tolist() == before.times[user][-1:].tolist()


def test_bare_histories_can_be_rearranged_and_empty_ones_stay_empty(world):
    told = Told()
    rearranged = Rearranged(told, lambda n: np.arange(n)[::-1])
    assert isinstance(rearranged, Retriever)
    rearranged.rank(
        Histories([np.array([3, 4]), np.zeros(0, dtype=np.int64)]), np.array([0, 0]), [np.array([3, 4])] * 2
    )
    assert [history.tolist() for history in told.asked[0]] == [[4, 3], []]


def test_a_shuffle_is_a_function_of_the_seed(world):
    def orders(seed):
        told = Told()
        thrown(told, world, ["shuffled-order"], config=CONFIG.model_copy(update={"seed": seed}))
        return [history.tolist() for history in told.asked[2]]

    assert orders(1) == orders(1)
    assert orders(1) != orders(2)


def test_other_texts_change_a_model_that_reads_text_and_no_text_leaves_chance(trained):
    found = ablate_bundle(trained.bundle, TEXT)
    shuffled, titles, nothing = found.results
    assert shuffled.values["ndcg@10"].mean < found.intact["ndcg@10"].mean
    assert titles.values != found.intact
    # All items are level, so a target is among the first 5 of those unseen with chance 5 / their number.
    asked = queries(trained.dataset, trained.split, "test")
    unseen = np.array([trained.dataset.num_items - len(np.unique(history)) for history in asked.histories])
    assert nothing.values["recall@5"].mean == pytest.approx((5 / unseen).mean())


def test_the_model_is_evaluated_as_ever_and_again_with_titles_alone(trained):
    found = ablate_bundle(trained.bundle, ["title-only"])
    assert found.intact == trained.evaluate().all_items
    assert found.protocol == trained.evaluate().protocol
    vectors = trained.encode([{"title": title} for title in trained.dataset.items["title"]])
    scorer = ModelScorer(
        trained.model,
        trained.scorer.table.new_tensor(vectors),
        max_history=8,
        device=trained.scorer.device,
        precision="fp32",
    )
    config = trained.recipe.evaluation
    expected = evaluate("t", ExactRetriever(scorer), trained.dataset, trained.split, "test", config).all_items
    for metric, value in found.results[0].values.items():
        assert value.mean == pytest.approx(expected[metric].mean)


def test_a_text_that_an_item_had_keeps_its_vector(trained):
    texts = [f"title: {title} kind: {kind}" for title, kind in trained.dataset.items.select("title", "kind").rows()]
    rolled = with_texts(trained.bundle, [*texts[1:], texts[0]])
    assert rolled.scorer.table.tolist() == trained.scorer.table.roll(-1, 0).tolist()


def test_a_model_of_ids_says_what_does_not_apply(interactions, items, id_recipe, tmp_path):
    stages = (id_recipe.stages[0].model_copy(update={"epochs": 1}),)
    run = Recommender.fit(
        interactions, items, recipe=id_recipe.model_copy(update={"stages": stages}), out=tmp_path / "id"
    )
    results = {result.switch: result for result in ablate_bundle(run.bundle).results}
    assert list(results) == list(SWITCHES)
    for switch in TEXT:
        assert "knows items by id only" in results[switch].not_applied
        assert results[switch].values == results[switch].drop == {}
    assert results["shuffled-order"].not_applied == ""
    with pytest.raises(ConfigError, match="'no-text' does not apply: the model knows items by id only"):
        ablate_bundle(run.bundle, ["shuffled-order", "no-text"])


def test_names_are_checked_before_the_work(world):
    with pytest.raises(ConfigError, match=r"unknown ablation switch 'shufled-order' \(did you mean 'shuffled-order'"):
        check_switches(["shufled-order"], world[0], None)
    with pytest.raises(ConfigError, match="no ablation switch is named; known: shuffled-order"):
        check_switches([], world[0], None)


def test_titles_alone_must_be_read_and_be_less_than_all(world):
    dataset, reader = world[0], TextReader(PromptConfig(), lambda texts: Told())
    only_titles = dataclasses.replace(dataset, text_cols=("title",))
    assert "the title is all the text" in check_switches(None, only_titles, reader)["title-only"]
    no_titles = dataclasses.replace(dataset, text_cols=("kind",))
    assert "does not read the title column 'title'" in check_switches(None, no_titles, reader)["title-only"]
    assert set(check_switches(None, dataset, reader).values()) == {""}


def test_results_of_one_model_are_joined_and_those_of_another_are_not(world):
    markov = ExactRetriever(Markov(*world))
    first = thrown(markov, world, ["popularity", "last-item"])
    second = thrown(markov, world, ["shuffled-order", "popularity"])
    joined = second.joined_to(first)
    assert [result.switch for result in joined.results] == ["shuffled-order", "last-item", "popularity"]
    other = thrown(ExactRetriever(Popularity(*world)), world, ["shuffled-order"])
    assert other.joined_to(first) is other
