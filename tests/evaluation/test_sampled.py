import numpy as np
import pytest

from hllm.errors import ConfigError, HllmWarning
from hllm.evaluation.evaluate import evaluate
from hllm.evaluation.protocol import EvaluationConfig
from hllm.evaluation.sampled import sampled_ranks
from hllm.metrics import UNREACHABLE, TargetRanks, ranking_metrics
from hllm.retrieval.exact import ExactRetriever
from tests.evaluation.test_evaluate import Constant, world  # noqa: F401


def test_sampled_ranks_against_drawing_the_candidates(rng):
    """100 items with scores, 7 level with the target: candidates drawn one by one, and counted."""
    scores = np.concatenate([np.full(8, 3.0), np.arange(92)])
    better, tied = int((scores > 3).sum()), int((scores == 3).sum()) - 1
    drawn = []
    for _ in range(4000):
        others = rng.choice(scores[1:], size=20, replace=False)
        drawn.append(((others > 3).sum(), (others == 3).sum()))
    many = TargetRanks(np.full(4000, better), np.full(4000, tied))
    found = sampled_ranks(many, np.full(4000, 100), 20, seed=1)
    expected = np.array(drawn)
    assert found.better.mean() == pytest.approx(expected[:, 0].mean(), abs=0.1)
    assert found.better.std() == pytest.approx(expected[:, 0].std(), rel=0.1)
    assert found.tied.mean() == pytest.approx(expected[:, 1].mean(), abs=0.1)


def test_all_others_as_candidates_are_the_full_ranking():
    ranks = TargetRanks(np.array([0, 3, UNREACHABLE]), np.array([2, 0, 0]))
    found = sampled_ranks(ranks, np.array([6, 6, 6]), 5, seed=1)
    assert found.better.tolist() == ranks.better.tolist()
    assert found.tied.tolist() == ranks.tied.tolist()


def test_sampling_favours_a_bad_model_and_has_another_name():
    """Rank 50 of 1,000 is a miss at 10, but among 20 candidates nearly always a hit."""
    ranks = TargetRanks(np.full(500, 49), np.zeros(500, dtype=np.int64))
    few = sampled_ranks(ranks, np.full(500, 1000), 20, seed=1)
    assert ranking_metrics(ranks)["recall@10"].mean() == 0
    assert ranking_metrics(few)["recall@10"].mean() > 0.99


def test_sampled_metrics_stand_under_names_of_their_own_with_a_warning(world):  # noqa: F811
    dataset, split = world
    config = EvaluationConfig(cutoffs=(1, 2, 5), sampled_candidates=1, bootstrap_samples=20)
    with pytest.warns(HllmWarning, match=r"sampled_…/1: they are not .* \(Krichene & Rendle, KDD 2020"):
        result = evaluate("constant", ExactRetriever(Constant(6)), dataset, split, "test", config)
    names = [name for name in result.all_items if name.startswith("sampled_")]
    assert {"sampled_recall@1/1", "sampled_ndcg@1/1", "sampled_mrr@1/1"} <= set(names)
    assert all(name.endswith("@1/1") for name in names), "no cut-off beyond the candidates"
    assert result.all_items["sampled_recall@1/1"].mean == 0.5  # level with the one other candidate
    plain = evaluate("constant", ExactRetriever(Constant(6)), dataset, split, "test", EvaluationConfig())
    assert not [name for name in plain.all_items if "sampled" in name]


def test_more_candidates_than_items_are_refused(world):  # noqa: F811
    config = EvaluationConfig(sampled_candidates=100)
    with (
        pytest.warns(HllmWarning),
        pytest.raises(ConfigError, match="sampled_candidates is 100, but a target is ranked among only 1 other items"),
    ):
        evaluate("constant", ExactRetriever(Constant(6)), *world, "test", config)
