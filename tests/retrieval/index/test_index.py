import os
import signal
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hllm.retrieval.exact as exact
import hllm.retrieval.tiles as tiles
from hllm.errors import CheckpointError, ConfigError, DataError
from hllm.retrieval.index.certificate import recall_of
from hllm.retrieval.index.config import IndexConfig
from hllm.retrieval.index.index import Index
from hllm.retrieval.retriever import Recommendations

QUERY = torch.tensor([[1.0, 0.0]])
SOURCE = "the vectors' fingerprint"


def whole(rng, *shape: int) -> torch.Tensor:
    """Small whole numbers: their products are exact however they are added up, and tie often."""
    return torch.from_numpy(rng.integers(-3, 4, size=shape).astype(np.float32))


def index_of(first: list[float], **config) -> Index:
    """Items "a", "b", … that score these numbers for QUERY."""
    vectors = torch.tensor([[value, 1.0] for value in first])
    ids = pl.Series([chr(ord("a") + n) for n in range(len(first))])
    return Index.build(vectors, ids, IndexConfig(**config), source=SOURCE)


def found(index: Index, k: int, **options) -> list[tuple[str, float]]:
    """The ids and scores for QUERY."""
    best = index.search(QUERY, k, **options)
    return [
        (index.item_ids[int(row)], float(s)) for row, s in zip(best.items[0], best.scores[0], strict=True) if row >= 0
    ]


def sorted_by_hand(vectors, queries, k, allowed, exclude):
    """The rows that a plain sort gives, and their scores."""
    scores = (queries @ vectors.float().T).numpy()
    rows = []
    for query in range(len(queries)):
        fit = [i for i in range(len(vectors)) if allowed[i] and i not in exclude[query]]
        rows.append(sorted(fit, key=lambda i: (-scores[query, i], i))[:k])
    return rows, scores


def test_the_best_of_five_items_by_hand():
    index = index_of([2, 5, 3, 5, 1])
    assert found(index, 3) == [("b", 5), ("d", 5), ("c", 3)]  # equal scores in catalogue order
    assert found(index, 2, exclude=[np.array([1])]) == [("d", 5), ("c", 3)]
    assert found(index, 3, candidates=np.array([True, False, False, False, True])) == [("a", 2), ("e", 1)]
    assert len(found(index, 9)) == 5


def test_added_updated_and_deleted_items_by_hand():
    index = index_of([2, 5, 3])
    index.add(["x", "y"], torch.tensor([[4.0, 0], [6.0, 0]]))
    assert found(index, 3) == [("y", 6), ("b", 5), ("x", 4)]
    index.update(["b", "y"], torch.tensor([[0.0, 0], [1.0, 0]]))
    assert found(index, 9) == [("x", 4), ("c", 3), ("a", 2), ("y", 1), ("b", 0)]
    index.delete(["x", "c"])
    assert found(index, 9) == [("a", 2), ("y", 1), ("b", 0)]
    index.add(["c"], torch.tensor([[1.0, 0]]))  # again, as the newest item
    assert found(index, 9) == [("a", 2), ("y", 1), ("c", 1), ("b", 0)]
    assert (index.num_items, index.num_rows, index.num_changes) == (4, 6, 5)
    index.compact()
    assert found(index, 9) == [("a", 2), ("y", 1), ("c", 1), ("b", 0)]
    assert (index.num_items, index.num_rows, index.num_changes) == (4, 4, 0)
    assert index.item_ids.to_list() == ["a", "b", "y", "c"]


@pytest.mark.parametrize("share", [1.0, 0.9, 0.1, 0.01, 0.001, 0.0])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_filters_of_any_share_against_a_plain_sort(share, dtype, rng, monkeypatch):
    monkeypatch.setattr(tiles, "ITEMS_PER_TILE", 256)
    monkeypatch.setattr(exact, "USERS_PER_TILE", 7)
    vectors, queries = whole(rng, 2000, 3), whole(rng, 16, 3)
    index = Index.build(vectors, pl.Series(range(2000)), IndexConfig(dtype=dtype), source=SOURCE)
    allowed = np.zeros(2000, dtype=bool)
    allowed[rng.choice(2000, size=int(share * 2000), replace=False)] = True
    exclude = [rng.choice(2000, size=rng.integers(0, 40)) for _ in range(16)]
    best = index.search(queries, 8, exclude=exclude, candidates=allowed)
    expected, scores = sorted_by_hand(vectors, queries, 8, allowed, exclude)
    for query in range(16):
        number = len(expected[query])
        assert best.items[query, :number].tolist() == expected[query]
        assert best.scores[query, :number].tolist() == scores[query, expected[query]].tolist()
        assert (best.items[query, number:] == -1).all()
        assert np.isneginf(best.scores[query, number:]).all()


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "update", "delete", "compact"]),
        st.lists(st.integers(0, 39), min_size=1, max_size=6, unique=True),
        st.integers(0, 2**32 - 1),
    ),
    max_size=12,
)


def check_against_a_fresh_index(changes, kind: str) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = whole(rng, 20, 4), whole(rng, 5, 4)
    config = IndexConfig(kind=kind, exact_below=0)
    index = Index.build(vectors, pl.Series(range(20)), config, source=SOURCE)
    model = dict(enumerate(vectors))  # in catalogue order, as dicts keep it
    for change, ids, seed in changes:
        known = [i for i in ids if (i in model) != (change == "add")]
        new = whole(np.random.default_rng(seed), len(known), 4)
        match change:
            case "add":
                index.add(known, new)
                model |= dict(zip(known, new, strict=True))
            case "update":
                index.update(known, new)
                model |= dict(zip(known, new, strict=True))
            case "delete":
                index.delete(known)
                for i in known:
                    del model[i]
            case "compact":
                index.compact()
    assert index.num_items == len(model)
    expected = torch.stack(list(model.values())) if model else torch.zeros(0, 4)
    ids = list(model)
    for k in (3, 30):
        best = index.search(queries, k)
        rows, scores = sorted_by_hand(expected, queries, k, [True] * len(ids), [[]] * 5)
        for query in range(5):
            assert [index.item_ids[int(row)] for row in best.items[query] if row >= 0] == [ids[r] for r in rows[query]]
            assert best.scores[query, : len(rows[query])].tolist() == scores[query, rows[query]].tolist()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES)
def test_any_changes_leave_what_a_fresh_index_would_find(changes):
    check_against_a_fresh_index(changes, "exact")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES)
def test_any_changes_leave_what_a_fresh_index_would_find_with_faiss(changes):
    """FAISS's flat search misses nothing, so that only the changes can go wrong."""
    pytest.importorskip("faiss")
    check_against_a_fresh_index(changes, "flat")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_an_index_is_the_same_after_saving_and_opening(tmp_path, dtype, rng):
    vectors, queries = torch.randn(50, 8), torch.randn(9, 8)
    index = Index.build(vectors, pl.Series([f"ä/{n}" for n in range(50)]), IndexConfig(dtype=dtype), source=SOURCE)
    for step in range(3):  # the first writes, the others replace it, with the base linked
        index.add([f"new {step}"], torch.randn(1, 8))
        index.update([f"ä/{step}"], torch.randn(1, 8))
        index.delete([f"ä/{step + 10}"])
        index.save(tmp_path / "index")
        again = Index.open(tmp_path / "index", source=SOURCE)
        assert again.item_ids.to_list() == index.item_ids.to_list()
        assert (again.num_items, again.num_changes) == (index.num_items, index.num_changes)
        assert again.search(queries, 50).items.tolist() == index.search(queries, 50).items.tolist()
        assert again.search(queries, 50).scores.tolist() == index.search(queries, 50).scores.tolist()
        index = again
    assert sorted(os.listdir(tmp_path)) == ["index"]


def test_bf16_scores_are_those_of_the_rounded_vectors():
    index = index_of([1.0, 1.001, 1.01], dtype="bf16")  # steps of 1/128 above 1
    assert found(index, 3) == [("c", 1.0078125), ("a", 1.0), ("b", 1.0)]


@pytest.mark.parametrize("name", ["vectors.npy", "live.npy", "changed.npy", "delta.npy", "item_ids.parquet"])
def test_a_flipped_bit_in_any_file_is_found(tmp_path, name):
    index = index_of([2, 5, 3])
    index.add(["x"], torch.ones(1, 2))
    index.save(tmp_path / "index")
    content = bytearray((tmp_path / "index" / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / "index" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        Index.open(tmp_path / "index", source=SOURCE)


def test_a_base_that_was_changed_on_disk_is_not_sealed_by_the_next_save(tmp_path):
    index_of([2, 5, 3]).save(tmp_path / "index")
    index = Index.open(tmp_path / "index", source=SOURCE)
    with (tmp_path / "index" / "vectors.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    with pytest.raises(CheckpointError, match=r"vectors.npy was changed after this index was opened"):
        index.save(tmp_path / "index")


@pytest.mark.reliability("other parts")
def test_an_index_of_other_vectors_is_refused(tmp_path):
    index_of([2, 5, 3]).save(tmp_path / "index")
    with pytest.raises(CheckpointError, match=r"is over the vectors of the vectors.*vectors of two models do not mix"):
        Index.open(tmp_path / "index", source="another")


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np, torch
from hllm.retrieval.index.index import Index
index = Index.open(Path(sys.argv[1]), source=sys.argv[2])
index.delete(["b"])
save = np.save
def dies(path, array):
    if Path(path).name == "live.npy":
        os.kill(os.getpid(), signal.SIGKILL)
    save(path, array)
np.save = dies
index.save(Path(sys.argv[1]))
"""


def test_a_kill_while_saving_leaves_the_old_index(tmp_path):
    index_of([2, 5, 3]).save(tmp_path / "index")
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "index"), SOURCE], check=False)
    assert process.returncode == -signal.SIGKILL, "the premise: it was killed"
    assert len(list(tmp_path.glob(".index.partial-*"))) == 1, "the premise: something half-written is left"
    index = Index.open(tmp_path / "index", source=SOURCE)
    assert found(index, 3) == [("b", 5), ("c", 3), ("a", 2)]
    index.save(tmp_path / "index")
    assert os.listdir(tmp_path) == ["index"], "the next writer removes what is left, and no reader does"


def test_an_error_while_saving_leaves_the_old_index(tmp_path, monkeypatch):
    index = index_of([2, 5, 3])
    index.save(tmp_path / "index")
    index.delete(["b"])
    monkeypatch.setattr(np, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="the disk is full"):
        index.save(tmp_path / "index")
    assert found(Index.open(tmp_path / "index", source=SOURCE), 1) == [("b", 5)]


def test_what_cannot_be_built_or_changed_is_refused_and_changes_nothing():
    two = torch.ones(2, 2)
    for vectors, ids, message in (
        (two, ["a"], "2 vectors for 1 item ids"),
        (two, ["a", None], "1 of 2 item ids are missing"),
        (two, ["a", "a"], "1 item ids are repeated; first: 'a'"),
        (torch.tensor([[1.0, 0], [torch.nan, 0]]), ["a", "b"], "vectors of items are not finite; first: 'b'"),
        (torch.tensor([[1.0, 0], [3e38, 3e38]]), ["a", "b"], "vectors of items are not finite; first: 'b'"),
    ):
        with pytest.raises(DataError, match=message):
            Index.build(vectors, pl.Series(ids), source=SOURCE)
    index = index_of([2, 5, 3])
    for change, message in (
        (lambda: index.add(["x", "b"], two), "1 of 2 item ids to add are in the index already; first: 'b'"),
        (lambda: index.add(["x", "x"], two), "1 item ids are repeated; first: 'x'"),
        (lambda: index.add(["x"], two), r"the vectors have shape \(2, 2\), expected \(1, 2\)"),
        (lambda: index.add(["x", "y"], two * torch.inf), "not finite; first: 'x'"),
        (lambda: index.update(["a", "x"], two), "1 of 2 item ids are not in the index; first: 'x'"),
        (lambda: index.update(["a", "a"], two), "1 item ids are repeated; first: 'a'"),
        (lambda: index.delete(["a", "x"]), "1 of 2 item ids are not in the index; first: 'x'"),
        (lambda: Index.build(two, pl.Series([1, 2]), source=SOURCE).delete(["one"]), "are not of the type Int64"),
    ):
        with pytest.raises(DataError, match=message):
            change()
    assert found(index, 9) == [("b", 5), ("c", 3), ("a", 2)]
    assert index.num_changes == 0


def test_searches_that_make_no_sense_are_refused():
    index = index_of([2, 5, 3])
    with pytest.raises(ConfigError, match="k is 0; it must be at least 1"):
        index.search(QUERY, 0)
    with pytest.raises(DataError, match="the queries have 3 dimensions, the index 2"):
        index.search(torch.ones(1, 3), 1)
    with pytest.raises(DataError, match="candidates is for 2 rows, the index has 3"):
        index.search(QUERY, 1, candidates=np.array([True, False]))
    for wrong in (torch.nan, torch.inf, 3e38):
        with pytest.raises(DataError, match="1 of 2 queries would have scores that are not finite"):
            index.search(torch.tensor([[1.0, 0], [wrong, 0]]), 1)


def test_recall_by_hand():
    exact_best = Recommendations(np.array([[0, 1, 2], [3, 4, -1]]), np.array([[0.9, 0.5, 0.5], [0.3, 0.2, -np.inf]]))
    found = Recommendations(np.array([[0, 7, 8], [3, -1, -1]]), np.array([[0.9, 0.5, 0.4], [0.3, -np.inf, -np.inf]]))
    assert recall_of(found, exact_best).tolist() == [2 / 3, 1 / 2]  # item 7 is as good as 1 and 2
    nothing = Recommendations(np.array([[-1]]), np.array([[-np.inf]]))
    assert recall_of(nothing, nothing).tolist() == [1]


def test_the_certificate_is_kept_in_the_manifest(tmp_path, read_manifest):
    index = index_of([2, 5, 3])
    index.certify(QUERY, described="a direction", k=2)
    index.save(tmp_path / "index")
    stored = read_manifest(tmp_path / "index")["details"]["certificate"]
    assert (stored["recall"], stored["k"], stored["num_queries"], stored["num_items"]) == (1, 2, 1, 3)
    assert (stored["threads"], stored["queries"]) == (1, "a direction")
    assert 0 < stored["exact"]["p50_ms"] <= stored["exact"]["p99_ms"]
    opened = Index.open(tmp_path / "index", source=SOURCE)
    assert opened.certificate == index.certificate
    assert "recall@2 1.0000 of exact search" in str(opened.certificate)
    opened.compact()
    assert opened.certificate is None
    with pytest.raises(DataError, match="there are no queries to certify the index with"):
        index.certify(torch.zeros(0, 2), described="none")
