import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from hllm.errors import CheckpointError, ConfigError, MissingExtraError
from hllm.retrieval.index import faiss as door
from hllm.retrieval.index.config import IndexConfig
from hllm.retrieval.index.index import Index

KINDS = ("flat", "hnsw", "ivf-pq")
NUM_ITEMS, DIM = 3000, 32
SETTINGS = {"exact_below": 0, "num_lists": 32, "num_probes": 16, "refine": 16}
faiss_needed = pytest.mark.usefixtures("faiss")


@pytest.fixture(scope="module")
def faiss():
    module = pytest.importorskip("faiss")
    module.omp_set_num_threads(1)
    return module


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    """Unit vectors round 100 centres."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(100, DIM, generator=draw)
    return F.normalize(centres.repeat(30, 1) + 0.5 * torch.randn(NUM_ITEMS, DIM, generator=draw), dim=-1)


@pytest.fixture(scope="module")
def queries(vectors) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return F.normalize(vectors[::50] + 0.05 * torch.randn(60, DIM, generator=draw), dim=-1)


@pytest.fixture(scope="module")
def indexes(faiss, vectors) -> dict[str, Index]:
    """One of each kind; they must not be changed."""
    ids = pl.Series(range(NUM_ITEMS))
    return {kind: Index.build(vectors, ids, IndexConfig(kind=kind, **SETTINGS), source="s") for kind in KINDS}


def best_by_numpy(vectors, queries, k, allowed, exclude):
    """The k highest scores of each query among what is allowed."""
    scores = (queries @ vectors.T).numpy()
    scores[:, ~allowed] = -np.inf
    for query, own in enumerate(exclude):
        scores[query, own] = -np.inf
    return -np.sort(-scores, axis=1)[:, :k]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [1.0, 0.3, 0.1, 0.01, 0.001, 0.0])
def test_filters_return_all_that_match_and_nothing_else(indexes, vectors, queries, kind, share, rng):
    allowed = np.zeros(NUM_ITEMS, dtype=bool)
    allowed[rng.choice(NUM_ITEMS, size=int(share * NUM_ITEMS), replace=False)] = True
    exclude = [rng.choice(NUM_ITEMS, size=rng.integers(0, 30), replace=False) for _ in queries]
    best = indexes[kind].search(queries, 10, exclude=exclude, candidates=allowed)
    expected = best_by_numpy(vectors, queries, 10, allowed, exclude)
    for query in range(len(queries)):
        matching = np.setdiff1d(np.flatnonzero(allowed), exclude[query])
        rows = best.items[query][best.items[query] >= 0]
        assert len(rows) == min(10, len(matching))
        assert len(set(rows.tolist())) == len(rows)
        assert np.isin(rows, matching).all()
        own = (vectors[rows] @ queries[query]).numpy()
        np.testing.assert_allclose(best.scores[query, : len(rows)], own, atol=1e-6)  # exact scores, whatever was found
        assert (np.diff(best.scores[query, : len(rows)]) <= 0).all()
    recall = (best.scores >= expected - 1e-6).mean()
    assert recall >= (1 if kind == "flat" else 0.95)


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_gets_the_same_in_whatever_company(indexes, queries, kind, rng):
    exclude = [rng.choice(NUM_ITEMS, size=size) for size in rng.integers(0, 200, len(queries))]
    together = indexes[kind].search(queries, 7, exclude=exclude)
    for query in range(0, len(queries), 7):
        alone = indexes[kind].search(queries[query : query + 1], 7, exclude=[exclude[query]])
        assert alone.items[0].tolist() == together.items[query].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_without_history_gets_catalogue_order(indexes, kind):
    best = indexes[kind].search(torch.zeros(1, DIM), 5, exclude=[np.array([0, 2])])
    assert best.items.tolist() == [[1, 3, 4, 5, 6]]


@pytest.mark.parametrize("kind", KINDS)
@faiss_needed
def test_items_level_with_the_last_come_in_catalogue_order(kind):
    """FAISS stops at k of many equal items, whichever they are."""
    vectors = torch.zeros(600, 4)
    vectors[:, 0] = 1
    index = Index.build(vectors, pl.Series(range(600)), IndexConfig(kind=kind, exact_below=0), source="s")
    assert index.search(torch.ones(1, 4), 3).items.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("kind", KINDS)
@faiss_needed
def test_changes_are_found_at_once(vectors, kind):
    index = Index.build(vectors, pl.Series(range(NUM_ITEMS)), IndexConfig(kind=kind, **SETTINGS), source="s")
    index.add([9000], -vectors[:1])
    index.update([7], -vectors[1:2])
    index.delete([5])
    best = index.search(torch.stack([-vectors[0], -vectors[1], vectors[5], vectors[7]]), 1).items[:, 0]
    assert best[:2].tolist() == [NUM_ITEMS, 7]
    assert best[2] != 5
    assert best[3] != 7
    index.compact()
    best = index.search(torch.stack([-vectors[0], -vectors[1]]), 1).items[:, 0]
    assert index.item_ids[best].to_list() == [9000, 7]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@faiss_needed
def test_an_index_is_the_same_after_saving_and_opening(tmp_path, vectors, queries, kind, dtype):
    config = IndexConfig(kind=kind, dtype=dtype, **SETTINGS)
    index = Index.build(vectors, pl.Series(range(NUM_ITEMS)), config, source="s")
    for step in range(2):  # the second replaces the first, with the base and the graph linked
        index.delete([step])
        index.save(tmp_path / "index")
        again = Index.open(tmp_path / "index", source="s")
        assert again.config == config
        assert again.search(queries, 10).items.tolist() == index.search(queries, 10).items.tolist()
        index = again


@faiss_needed
def test_a_flipped_bit_in_the_graph_is_found_before_faiss_reads_it(tmp_path, indexes):
    indexes["hnsw"].save(tmp_path / "index")
    file = tmp_path / "index" / "nominator.faiss"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"nominator\.faiss"):
        Index.open(tmp_path / "index", source="s")


@faiss_needed
def test_recall_below_the_bound_is_refused(vectors, queries):
    config = IndexConfig(kind="ivf-pq", exact_below=0, num_lists=64, num_probes=1, refine=1, code_bytes=1)
    index = Index.build(vectors, pl.Series(range(NUM_ITEMS)), config, source="s")
    assert index.certify(queries, described="noisy items").recall < 0.9, "the premise"
    index.certificate = None
    with pytest.raises(
        ConfigError, match=r"recall@10 of the ivf-pq index is 0\.\d+, below the 0\.9 .*raise num_probes"
    ):
        index.certify(queries, described="noisy items", min_recall=0.9)
    assert index.certificate is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_certified_recall_is_the_share_of_the_true_best(indexes, vectors, queries, kind):
    certificate = indexes[kind].certify(queries, described="noisy items", min_recall=0.95)
    assert certificate.recall == 1 if kind == "flat" else 0.95 <= certificate.recall <= 1
    truth = np.argsort(-(queries @ vectors.T).numpy(), axis=1, kind="stable")[:, :10]
    best = indexes[kind].search(queries, 10).items
    shares = [len(set(t) & set(b)) / 10 for t, b in zip(truth.tolist(), best.tolist(), strict=True)]
    assert certificate.recall == pytest.approx(np.mean(shares), abs=1e-9)
    assert certificate.lowest_recall == pytest.approx(min(shares))


@faiss_needed
def test_settings_that_do_not_fit_are_refused():
    few, ids = torch.randn(100, DIM), pl.Series(range(100))
    with pytest.raises(ConfigError, match="needs at least 256 items to learn from, and there are 100"):
        Index.build(few, ids, IndexConfig(kind="ivf-pq"), source="s")
    many, ids = torch.randn(300, DIM), pl.Series(range(300))
    with pytest.raises(ConfigError, match="code_bytes is 5, which does not divide the vectors' dimension 32"):
        Index.build(many, ids, IndexConfig(kind="ivf-pq", code_bytes=5), source="s")


def test_without_faiss_an_approximate_index_says_what_to_install(monkeypatch):
    def missing(module: str, **names: str):
        raise MissingExtraError(f"{names['purpose']} needs {module}: hllm[{names['extra']}]")

    monkeypatch.setattr(door, "require", missing)
    with pytest.raises(MissingExtraError, match=r"An approximate index needs faiss: hllm\[faiss\]"):
        Index.build(torch.ones(2, 2), pl.Series(["a", "b"]), IndexConfig(kind="hnsw"), source="s")
    Index.build(torch.ones(2, 2), pl.Series(["a", "b"]), source="s")


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf-pq"])
def test_a_file_of_faiss_that_names_another_file_is_refused_before_that_is_opened(faiss, tmp_path, kind):
    """FAISS keeps the lists of an index in a file of their own, if told so, and opens it wherever it is, to write."""
    faiss = pytest.importorskip("faiss")
    vectors = np.random.default_rng(0).random((600, 8)).astype(np.float32)
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(8), 8, 4, 2, 8, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
    index.train(vectors)
    index.add(vectors)
    lists = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(tmp_path / "elsewhere.bin"))
    lists.merge_from_1(index.invlists)
    index.replace_invlists(lists)
    faiss.write_index(index, str(tmp_path / "nominator.faiss"))
    config = IndexConfig(kind=kind)
    with pytest.raises(CheckpointError, match=f'is not an index of kind "{kind}" as hllm writes it'):
        door.FaissNominator.open(tmp_path / "nominator.faiss", config)
    (tmp_path / "elsewhere.bin").unlink()
    with pytest.raises(CheckpointError, match="as hllm writes it"):
        door.FaissNominator.open(tmp_path / "nominator.faiss", config)
    inside = faiss.IndexHNSWFlat(8, 4, faiss.METRIC_INNER_PRODUCT)
    inside.add(vectors)
    inside.storage = index  # a graph over such an index
    faiss.write_index(inside, str(tmp_path / "nominator.faiss"))
    with pytest.raises(CheckpointError, match="as hllm writes it"):
        door.FaissNominator.open(tmp_path / "nominator.faiss", config)
    (tmp_path / "nominator.faiss").write_bytes(b"IxFInothing")
    with pytest.raises(CheckpointError, match=r"FAISS cannot read|as hllm writes it"):
        door.FaissNominator.open(tmp_path / "nominator.faiss", config)
