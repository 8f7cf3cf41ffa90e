"""Several targets of one query, and seen items kept: against ir-measures on the scores, and by hand."""

import ir_measures
import numpy as np
import polars as pl
import pytest

from hllm.data.build import build_dataset
from hllm.data.cuts.temporal import TemporalSplit
from hllm.data.schema import DataConfig
from hllm.data.split import split_dataset
from hllm.errors import ConfigError
from hllm.evaluation.compare import compare_ranks
from hllm.evaluation.evaluate import evaluate_with_ranks, mean_metrics, queries
from hllm.evaluation.protocol import EvaluationConfig, require_query_per_target
from hllm.evaluation.ranks import Contender
from hllm.retrieval.exact import ExactRetriever

MEASURES = {"recall": "R", "ndcg": "nDCG", "mrr": "RR", "precision": "P", "map": "AP", "hit_rate": "Success"}
NUM_ITEMS, NUM_USERS, LENGTH = 40, 30, 14
PER_USER = EvaluationConfig(cutoffs=(3, 10), bootstrap_samples=20, query_per="user")


class Fixed:
    """Scores all items alike for every history, without ties."""

    num_items = NUM_ITEMS
    scores = np.random.default_rng(5).permutation(NUM_ITEMS).astype(np.float32)

    def score(self, histories):
        return np.tile(self.scores, (len(histories), 1))


@pytest.fixture(scope="module")
def world():
    """Users choose items at times 0 to 13, some of them again; targets are all from time 8 and from time 10 on."""
    rng = np.random.default_rng(3)
    rows = [(u, int(rng.integers(NUM_ITEMS)), t) for u in range(NUM_USERS) for t in range(LENGTH) if rng.random() < 0.8]
    items = pl.DataFrame({
        "item_id": range(NUM_ITEMS), "title": [f"title {i}" for i in range(NUM_ITEMS)],
        "genre": [("a,b", "b", "c")[i % 3] for i in range(NUM_ITEMS)],
    })  # fmt: skip
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    dataset = build_dataset(events, items, DataConfig(text_cols=("title",), items_without_interactions="keep"))
    return dataset, split_dataset(dataset, TemporalSplit(validation_from=8, test_from=10, targets="all")), rows


def evaluated(world, config, part="test", name="fixed"):
    dataset, split, _ = world
    return evaluate_with_ranks(name, ExactRetriever(Fixed()), dataset, split, part, config)


def from_rows(rows, seen):
    """Return judgements and a run, from the rows alone."""
    judged, run = [], []
    for user in {u for u, _, _ in rows}:
        targets = {i for u, i, t in rows if u == user and t >= 10}
        before = {i for u, i, t in rows if u == user and t < 10}
        judged += [ir_measures.Qrel(str(user), str(item), 1) for item in targets]
        ranked = set(range(NUM_ITEMS)) - (before if seen == "removed" else set())
        run += [ir_measures.ScoredDoc(str(user), str(item), float(Fixed.scores[item])) for item in ranked if targets]
    return judged, run


@pytest.mark.parametrize("seen", ["removed", "kept"])
def test_one_query_a_user_against_ir_measures(world, seen):
    result = evaluated(world, PER_USER.model_copy(update={"seen": seen})).result
    names = {
        f"{metric}@{k}": ir_measures.parse_measure(f"{name}@{k}") for metric, name in MEASURES.items() for k in (3, 10)
    }
    expected = ir_measures.calc_aggregate(list(names.values()), *from_rows(world[2], seen))
    assert {name: each.mean for name, each in result.all_items.items()} == pytest.approx(
        {name: expected[measure] for name, measure in names.items()}
    )


def test_the_two_choices_of_seen_items_differ_where_people_choose_again(world):
    removed, kept = (
        evaluated(world, PER_USER.model_copy(update={"seen": seen})).result for seen in ("removed", "kept")
    )
    assert removed.protocol.num_targets_seen == kept.protocol.num_targets_seen > 0
    at_all = EvaluationConfig(cutoffs=(NUM_ITEMS,), bootstrap_samples=2)
    found = {seen: evaluated(world, at_all.model_copy(update={"seen": seen})).result for seen in ("removed", "kept")}
    assert found["kept"].all_items[f"recall@{NUM_ITEMS}"].mean == 1.0
    share = found["removed"].protocol.num_targets_seen / found["removed"].protocol.num_targets
    assert found["removed"].all_items[f"recall@{NUM_ITEMS}"].mean == pytest.approx(1 - share)


def test_a_users_query_is_asked_before_its_first_target_and_has_each_item_once(world):
    dataset, split, rows = world
    asked = queries(dataset, split, "test", PER_USER)
    ids = dataset.item_ids.to_list()
    for user in np.unique(asked.users):
        of_user = asked.users == user
        name = dataset.users[int(user)]
        found = [ids[item] for item in asked.targets[of_user]]
        assert sorted(found, key=str) == sorted({i for u, i, t in rows if u == name and t >= 10}, key=str)
        before = [i for u, i, t in rows if u == name and t < 10]
        for row in np.flatnonzero(of_user):
            assert [ids[item] for item in asked.histories[int(row) : int(row) + 1].items[0]] == before


def test_validations_and_groups_follow_the_options(world):
    dataset, split, _ = world
    for config in (PER_USER, PER_USER.model_copy(update={"seen": "kept"})):
        config = config.model_copy(update={"cutoffs": (10, 50)})
        watched = mean_metrics(ExactRetriever(Fixed()), dataset, split, "validation", config=config)
        whole = evaluated(world, config, "validation").result
        assert watched == pytest.approx({name: whole.all_items[name].mean for name in watched})
    result = evaluated(world, PER_USER).result
    head, tail = result.slices["head items"], result.slices["tail items"]
    assert result.slice_targets["head items"] + result.slice_targets["tail items"] == result.protocol.num_targets
    assert {"hit_rate@3", "recall@10"} <= head.keys() == tail.keys()


def test_lists_are_counted_once_for_each_user(world):
    """A list is in serendipity the more, the more targets it holds: at most precision, by its definition."""
    config = PER_USER.model_copy(update={"beyond_accuracy": True, "category_col": "genre"})
    result = evaluated(world, config).result
    assert 0 <= result.beyond_accuracy["serendipity@10"] <= result.all_items["precision@10"].mean
    assert result.beyond_accuracy["category_diversity@10"] > 0


def test_other_options_are_other_protocols(world):
    base = evaluated(world, EvaluationConfig(bootstrap_samples=2)).result.protocol
    for option, field, words in (
        ({"query_per": "user"}, "query", "one for each user"),
        ({"seen": "kept"}, "seen_items", "seen items: kept"),
    ):
        other = evaluated(world, EvaluationConfig(bootstrap_samples=2, **option)).result.protocol
        assert field in [name for name, _, _ in base.differences(other)]
        assert words in "\n".join(other.lines())
        ours, theirs = (
            Contender(name, e.result.protocol, e.result.facts, e.targets, e.ranks)
            for name, e in (
                ("a", evaluated(world, EvaluationConfig(bootstrap_samples=2))),
                ("b", evaluated(world, EvaluationConfig(bootstrap_samples=2, **option))),
            )
        )
        with pytest.raises(ConfigError, match="under different protocols"):
            compare_ranks([ours, theirs], ["ndcg@10"])
        if option == {"query_per": "user"}:
            compare_ranks([ours, theirs], ["ndcg@10"], force=True)
            with pytest.raises(ConfigError, match="unknown metric 'hit_rate@10'"):
                compare_ranks(
                    [ours, ours.__class__("c", ours.protocol, ours.facts, ours.targets, ours.ranks)], ["hit_rate@10"]
                )


def test_ranks_of_users_queries_are_compared_over_users(world):
    one = evaluated(world, PER_USER)
    two = Contender("b", one.result.protocol, one.result.facts, one.targets, one.ranks)
    found = compare_ranks(
        [Contender("a", two.protocol, two.facts, two.targets, two.ranks), two], ["hit_rate@7", "map@3"]
    )
    hits, precision = found.tables
    assert hits.rows[0].num_targets == one.result.protocol.num_users_with_target
    assert precision.rows[0].value.model_dump() == pytest.approx(one.result.all_items["map@3"].model_dump())
    with pytest.raises(ConfigError, match="sampled_ndcg@5/10 is of targets by themselves"):
        compare_ranks([Contender("a", two.protocol, two.facts, two.targets, two.ranks), two], ["sampled_ndcg@5/10"])


def test_categories_belong_to_the_protocol(world):
    """The data's fingerprint is of texts; another genre of an item changes a distance of the lists all the same."""
    dataset, split, rows = world
    config = EvaluationConfig(bootstrap_samples=2, beyond_accuracy=True, category_col="genre")
    items = dataset.items.with_columns(
        pl.when(pl.col("genre") == "c").then(pl.lit("b")).otherwise("genre").alias("genre")
    )
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    other = build_dataset(events, items, DataConfig(text_cols=("title",), items_without_interactions="keep"))
    assert other.log_fingerprint == dataset.log_fingerprint, "the premise"
    ours, theirs = evaluated(world, config).result, evaluated((other, split, rows), config).result
    assert ours.beyond_accuracy["category_diversity@10"] != theirs.beyond_accuracy["category_diversity@10"]
    assert [name for name, _, _ in ours.protocol.differences(theirs.protocol)] == ["categories"]
    assert evaluated(world, EvaluationConfig(bootstrap_samples=2)).result.protocol.categories is None


def test_what_needs_each_target_by_itself_is_refused():
    with pytest.raises(ConfigError, match=r'an ablation looks at each target by itself.*query_per = "target"'):
        require_query_per_target(PER_USER, purpose="an ablation")
    with pytest.raises(ValueError, match=r'sampled_candidates = 100 has no effect beside query_per = "user"'):
        EvaluationConfig(query_per="user", sampled_candidates=100)
