"""Comparisons of ranks made up here, so that every number can be worked out."""

import csv
import io
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from hllm.errors import CheckpointError, ConfigError, HllmWarning
from hllm.evaluation.compare import compare_ranks
from hllm.evaluation.evaluate import Evaluated
from hllm.evaluation.facts import RunFacts
from hllm.evaluation.ranks import Contender, read_ranks, write_ranks
from hllm.metrics import TargetRanks
from hllm.reports.results import FORMATS
from tests.evaluation.test_protocol import evaluated, world

NUM_TARGETS = 400
GOOD, MIDDLING, BAD = 0.5, 0.48, 0.2  # chance of a target in first place; else it is beyond every cut-off


@pytest.fixture(scope="module")
def protocol():
    return evaluated(*world()).result.protocol


def contender(name, protocol, chance, seed, users=None):
    """Each target is first with this chance, else 99 items are before it."""
    users = np.arange(NUM_TARGETS) if users is None else users
    first = np.random.default_rng(seed).random(len(users)) < chance
    targets = replace(
        evaluated(*world()).targets,
        user_ids=pl.Series([f"u{user}" for user in users]),
        item_ids=pl.Series([f"i{n}" for n in range(len(users))]),
        history_length=np.ones(len(users), dtype=np.int64),
        num_ranked=np.full(len(users), 500),
        groups={"cold items": np.arange(len(users)) < 50, "none": np.zeros(len(users), dtype=bool)},
    )
    ranks = TargetRanks(np.where(first, 0, 99), np.zeros(len(users), dtype=np.int64))
    return Contender(name, protocol, RunFacts(num_parameters=7), targets, ranks)


@pytest.fixture
def three(protocol):
    return [
        contender(n, protocol, c, s) for s, (n, c) in enumerate({"good": GOOD, "mid": MIDDLING, "bad": BAD}.items())
    ]


def means(contenders):
    return {c.name: float((c.ranks.better == 0).mean()) for c in contenders}


def test_the_best_and_those_as_good_are_marked(three):
    (table,) = compare_ranks(three, ["recall@10"]).tables
    truth = means(three)
    best = max(truth, key=truth.get)
    assert {row.name: row.value.mean for row in table.rows} == pytest.approx(truth)
    marks = {row.name: row.mark for row in table.rows}
    assert marks == {"good": "as good", "mid": "as good", "bad": ""} | {best: "best"}
    bad = next(row for row in table.rows if row.name == "bad")
    assert bad.test.against == best
    assert bad.test.difference.mean == pytest.approx(truth["bad"] - truth[best])
    assert bad.test.difference.high < 0
    assert bad.test.num_users == NUM_TARGETS
    # The difference of two means over 400 users, 6 standard errors wide: the least value of 10,000 draws, times 2.
    assert bad.test.raw_p_randomisation == 1 / 10_001
    assert bad.test.p_randomisation == 2 / 10_001
    assert bad.test.p_t < 1e-6


def test_a_reference_of_ones_own_and_corrections_over_all_metrics(three):
    comparison = compare_ranks(three, ["recall@10", "ndcg@1"], reference="bad")
    for table in comparison.tables:
        tests = {row.name: row.test for row in table.rows}
        assert tests["bad"] is None
        assert {test.against for test in tests.values() if test} == {"bad"}
        assert tests["good"].p_randomisation == pytest.approx(4 * tests["good"].raw_p_randomisation)
        assert {row.mark for row in table.rows} == {"best", "as good", ""}, "marks are against the best, as ever"


def test_any_cut_off_can_be_asked_of_stored_ranks(three):
    (table,) = compare_ranks(three, ["recall@100"]).tables
    assert [row.value.mean for row in table.rows] == [1.0, 1.0, 1.0]
    assert table.rows[1].test.p_randomisation == 1.0
    with pytest.warns(HllmWarning, match="Krichene"):
        (table,) = compare_ranks(three, ["sampled_recall@1/10"]).tables
    assert table.rows[0].value.mean > means(three)["good"]


def test_a_slice_has_its_own_targets(three):
    (table,) = compare_ranks(three, ["recall@10"], group="cold items").tables
    assert [row.num_targets for row in table.rows] == [50, 50, 50]
    assert table.rows[0].value.mean == pytest.approx((three[0].ranks.better[:50] == 0).mean())
    with pytest.raises(ConfigError, match=r"unknown slice 'cold' \(did you mean 'cold items'\?\); evaluated were"):
        compare_ranks(three, ["recall@10"], group="cold")
    with pytest.raises(ConfigError, match="good has no targets in the slice 'none'"):
        compare_ranks(three, ["recall@10"], group="none")


def test_tests_are_over_users_not_targets(protocol):
    """Every user has four targets: four times the rows, the same number of independent differences."""
    users = np.repeat(np.arange(100), 4)
    pair = [contender("a", protocol, GOOD, 1, users), contender("b", protocol, MIDDLING, 2, users)]
    test = next(row.test for row in compare_ranks(pair, ["recall@10"]).tables[0].rows if row.test)
    assert test.num_users == 100


def test_protocols_that_differ_are_refused_and_named(three, protocol):
    other = contender("other", protocol.model_copy(update={"split_fingerprint": "f" * 64}), GOOD, 1)
    with pytest.raises(
        ConfigError,
        match=r"good and other were made under different protocols: split_fingerprint \(\w{12}… and f{12}…\); .*--force",
    ):
        compare_ranks([three[0], other], ["ndcg@10"])


def test_what_is_computed_anew_is_no_difference(three, protocol):
    config = protocol.evaluation.model_copy(update={"bootstrap_samples": 7, "cutoffs": (3,)})
    other = contender("other", protocol.model_copy(update={"evaluation": config}), GOOD, 1)
    assert compare_ranks([three[0], other], ["ndcg@10"]).mixed == {}


def test_forced_mixing_pairs_the_common_users(three, protocol):
    other = protocol.model_copy(update={"split": "temporal"})
    users = np.arange(300, 500)  # 100 of them are among the 400
    mixed = compare_ranks([three[0], contender("late", other, BAD, 1, users)], ["recall@10"], force=True)
    assert mixed.mixed == {"late": "split (leave-one-out and temporal)"}
    test = mixed.tables[0].rows[1].test
    assert test.num_users == 100
    strangers = contender("strangers", other, BAD, 1, np.arange(1000, 1100))
    row = compare_ranks([three[0], strangers], ["recall@10"], force=True).tables[0].rows[1]
    assert (row.test, row.mark) == (None, "")
    assert "MIXED PROTOCOLS, forced: late differs in split (leave-one-out and temporal)" in FORMATS["text"](mixed)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"metrics": []}, "needs at least one metric"),
        ({"metrics": ["ncdg@10"]}, r"unknown metric 'ncdg@10'; expected one of recall"),
        ({"metrics": ["ndcg@0"]}, "unknown metric 'ndcg@0'"),
        ({"metrics": ["sampled_ndcg@10"]}, "unknown metric 'sampled_ndcg@10'"),
        ({"metrics": ["ndcg@10/100"]}, "unknown metric 'ndcg@10/100'"),
        ({"metrics": ["sampled_ndcg@10/5"]}, "a cut-off beyond its number of candidates"),
        ({"metrics": ["ndcg@10"], "reference": "godo"}, r"unknown reference 'godo' \(did you mean 'good'\?\)"),
    ],
)
def test_wrong_questions_are_explained(three, question, message):
    with pytest.raises(ConfigError, match=message):
        compare_ranks(three, **question)


def test_one_recommender_or_two_of_one_name_are_refused(three):
    with pytest.raises(ConfigError, match="needs at least two recommenders"):
        compare_ranks(three[:1], ["ndcg@10"])
    with pytest.raises(ConfigError, match="two runs are named 'good'"):
        compare_ranks([three[0], three[0]], ["ndcg@10"])


def test_every_format_has_every_recommender(three):
    comparison = compare_ranks(three, ["recall@10"])
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](comparison))))
    assert [row["name"] for row in rows] == ["good", "mid", "bad"]
    assert float(rows[2]["mean"]) == means(three)["bad"]
    assert (rows[2]["mark"], rows[2]["slice"], rows[2]["num_targets"]) == ("", "all items", "400")
    text = FORMATS["text"](comparison)
    assert "bad: 7 parameters" in text
    assert "Holm" in text
    markdown = FORMATS["markdown"](comparison).splitlines()
    assert markdown[0] == "| recommender | recall@10 | difference | p randomisation | p t-test |  |"
    assert sum("**" in line for line in markdown) == 1
    latex = FORMATS["latex"](compare_ranks([replace(three[0], name="a_b"), three[2]], ["recall@10"]))
    assert r"a\_b & \textbf{" in latex
    assert "$<$0.0001" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1


def test_ranks_come_back_as_they_were_written(tmp_path):
    first, second = evaluated(*world()), evaluated(*world())
    other = second.result.model_copy(update={"name": "other", "facts": RunFacts(seed=4)})
    write_ranks(tmp_path / "r.parquet", "popularity", [first, Evaluated(other, second.targets, second.ranks)])
    own = read_ranks(tmp_path / "r.parquet", None, name="shown")
    assert (own.name, own.protocol, own.facts) == ("shown", first.result.protocol, first.result.facts)
    assert own.targets.user_ids.to_list() == ["u", "v"]
    assert own.targets.item_ids.to_list() == ["d", "d"]
    assert own.targets.history_length.tolist() == [3, 3]
    assert own.targets.num_ranked.tolist() == [2, 2]
    assert {n: g.tolist() for n, g in own.targets.groups.items()} == {
        n: g.tolist() for n, g in first.targets.groups.items()
    }
    assert own.ranks.better.tolist() == first.ranks.better.tolist()
    assert own.ranks.tied.tolist() == first.ranks.tied.tolist()
    assert read_ranks(tmp_path / "r.parquet", "other", name="x").facts.seed == 4
    with pytest.raises(
        ConfigError, match=r"has no ranks of 'othr' \(did you mean 'other'\?\); known: popularity, other"
    ):
        read_ranks(tmp_path / "r.parquet", "othr", name="x")


def test_a_damaged_file_of_ranks_is_named(tmp_path):
    (tmp_path / "r.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(
        CheckpointError, match=r"r\.parquet is damaged, or written by another version .* evaluate again"
    ):
        read_ranks(tmp_path / "r.parquet", None, name="x")
    pl.DataFrame({"user_id": ["u"]}).write_parquet(tmp_path / "r.parquet")
    with pytest.raises(CheckpointError, match="is damaged, or written by another version"):
        read_ranks(tmp_path / "r.parquet", None, name="x")


def test_every_flipped_byte_of_ranks_is_found(tmp_path):
    """One changed byte gave another rank, or a traceback."""
    write_ranks(tmp_path / "r.parquet", "popularity", [evaluated(*world())])
    content = (tmp_path / "r.parquet").read_bytes()
    for place in range(0, len(content), 7):
        (tmp_path / "r.parquet").write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match=r"r\.parquet is damaged"):
            read_ranks(tmp_path / "r.parquet", None, name="x")
