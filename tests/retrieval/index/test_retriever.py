import numpy as np
import polars as pl
import pytest

from hllm.api import Recommender
from hllm.errors import CheckpointError
from hllm.retrieval.exact import ExactRetriever
from hllm.retrieval.histories import histories_of
from hllm.retrieval.index.config import IndexConfig
from hllm.retrieval.index.index import Index
from hllm.retrieval.index.retriever import IndexRetriever, build_index, open_index, source_of
from hllm.retrieval.retriever import Retriever


@pytest.fixture
def histories(trained):
    users = np.arange(trained.dataset.num_users)
    return histories_of(trained.dataset, users, trained.dataset.offsets[users + 1])


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_a_trained_models_index_recommends_what_exact_retrieval_does(trained, histories, kind):
    if kind != "exact":
        pytest.importorskip("faiss")
    source = source_of(trained.run.table_path)
    config = IndexConfig(kind=kind, exact_below=0)
    index = build_index(trained.scorer, trained.dataset, config, source=source, min_recall=1.0)
    assert index.certificate.queries == "12 of 12 users"
    retriever = IndexRetriever(trained.scorer, index)
    assert isinstance(retriever, Retriever)
    candidates = np.arange(30) % 3 > 0
    found = retriever.recommend(histories, 5, exclude=histories, candidates=candidates)
    expected = ExactRetriever(trained.scorer).recommend(histories, 5, exclude=histories, candidates=candidates)
    assert found.items.tolist() == expected.items.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    targets = np.arange(12)
    ours, theirs = (r.rank(histories, targets, histories) for r in (retriever, ExactRetriever(trained.scorer)))
    assert ours.better.tolist() == theirs.better.tolist()


@pytest.mark.reliability("other parts")
def test_an_index_of_another_catalogue_is_refused(trained):
    index = Index.build(trained.scorer.keys[:20], trained.dataset.item_ids[:20], source="s")
    with pytest.raises(CheckpointError, match="the index has 20 rows, the recommender 30 items; make the index again"):
        IndexRetriever(trained.scorer, index)


def test_an_item_added_to_both_is_recommended(trained, histories):
    index = build_index(trained.scorer, trained.dataset, source="s")
    trained.add_items(pl.DataFrame({"item_id": ["new"], "title": ["red hat"], "kind": ["hat"]}))
    index.add(["new"], trained.scorer.keys[30:])
    found = IndexRetriever(trained.scorer, index).recommend(histories, 31)
    assert (found.items == 30).any(1).all()


def test_a_recommender_recommends_from_the_index_of_its_run_and_evaluates_exactly(trained, tmp_path):
    before = trained.recommend(k=5)
    assert trained.bundle.index is None
    trained.save(tmp_path / "run")
    source = source_of(trained.run.table_path)
    build_index(trained.scorer, trained.dataset, source=source).save(tmp_path / "run" / "index")
    opened = Recommender.load(tmp_path / "run")
    assert isinstance(opened.retriever, IndexRetriever)
    assert isinstance(opened.bundle.exact, ExactRetriever)
    assert opened.recommend(k=5).drop("score").equals(before.drop("score"))
    opened.add_items(pl.DataFrame({"item_id": ["new"], "title": ["red hat"], "kind": ["hat"]}))
    assert opened.bundle.index.num_items == 31
    assert "new" in opened.recommend(k=31)["item_id"].to_list()


@pytest.mark.reliability("other parts")
def test_an_index_with_other_items_than_the_dataset_is_refused(trained, tmp_path):
    table = trained.run.table_path
    ids = trained.dataset.item_ids.reverse()
    Index.build(trained.scorer.keys, ids, source=source_of(table)).save(tmp_path / "index")
    with pytest.raises(CheckpointError, match=r"does not hold the items of the run's dataset.* hllm index"):
        open_index(tmp_path / "index", table, trained.dataset)
